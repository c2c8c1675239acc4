"""The daemon as a whole: constructs everything, starts it, waits, stops it."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from daemon.answering.pipeline import Pipeline
from daemon.answering.publish import prepare, remove_temporaries
from daemon.answering.retirement import Folders, Retirement
from daemon.config import FOLDERS, LOCK, ONE_FILE_SYSTEM, PRESENCE, ConfigError, Settings, load_settings
from daemon.files import take_lock
from daemon.intake.inbox import Inbox
from daemon.models.live import limit_threads
from daemon.models.registry import Registry
from daemon.models.swapping import Swapper
from daemon.reading.workers import Decoders
from daemon.systemd import notify
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.presence import announce, who_runs
from daemon.telemetry.readiness import Readiness
from daemon.training.corrections import CorrectionWatch
from daemon.training.retraining import Retraining

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
PASS_SECONDS = 0.25  # how long a pass of the pipeline waits for something to happen
STALLED_SECONDS = 30.0  # a thread that made no pass for so long does not move
FINISH_SECONDS = 3.0  # after SIGTERM, for what is claimed to get its result
# What SIGHUP puts in force while images walk; [training] is read by each training anew. All else needs a restart.
LIVE = (
    "inbox.rescan_seconds",
    "inbox.grace_seconds",
    "inbox.ignore",
    "inference.review_below",
    "inference.not_a_digit_above",
    "training.",
    "retrain.",
    "gate.",
    "retention.",
)


class StartError(Exception):
    """The daemon cannot start; the message says what was expected and what to do."""


class Service:
    """One daemon on one root.

    Args:
        settings: the configuration.

    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._in_force = settings.by_key()
        self._reloads: list[Callable[[Settings], None]] = []  # what each part does with settings that change live
        self._failed = False
        self._beats: list[Callable[[], float]] = []  # when each thread made its last pass

    def run(self) -> int:
        """Start, wait for SIGTERM or SIGINT, stop. SIGHUP reads the configuration again.

        Returns:
            The exit code: 0, or 1 where a thread died.

        Raises:
            StartError: another daemon has this root, or the folders or the address cannot be used.
            RegistryError, ModelError: there is no usable model.

        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        on_terminal = os.isatty(0)
        threading.excepthook = self._on_thread_death
        with ExitStack() as stack:
            try:
                self._start(stack)
            except OSError as error:
                raise StartError(f"expected folders that can be read and written. Received: {error}") from error
            while not self._stop.wait(HEARTBEAT_SECONDS):
                if not self._dead():
                    notify("WATCHDOG=1")
                if self._reload.is_set():
                    self._reload.clear()
                    if on_terminal and not os.isatty(0):
                        break  # SIGHUP because the terminal that it was started on was closed
                    self._read_again()
            notify("STOPPING=1")
            log.info("stopping")
        log.info("stopped")
        return 1 if self._failed else 0

    def _start(self, stack: ExitStack) -> None:
        settings = self._settings
        began = time.monotonic()
        try:
            for name in FOLDERS:
                settings.folder(name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"[paths] {name}: expected a folder that can be written. Received: {error}") from error
        _check_one_file_system(settings)
        self._take_root(stack)
        folders = Folders(*(settings.folder(name) for name in ("work", "results", "processed", "rejected")))
        for folder in (folders.results, folders.rejected):
            prepare(folder)
            remove_temporaries(folder)

        metrics = Metrics()
        metrics.watch_disk(settings.root)
        readiness = Readiness(metrics)
        try:
            http = HttpServer(settings.http, metrics, self._dead, lambda: readiness.reasons)
        except OSError as error:
            raise StartError(str(error.strerror or error)) from error
        self._thread("http", http.run)
        stack.callback(os.close, announce(settings.folder("work") / PRESENCE, {"pid": os.getpid(), "address": http.address}))

        decoders = Decoders(folders.work, settings.inbox)
        stack.callback(decoders.close)
        limit_threads(settings.inference.threads)
        registry = Registry(settings.folder("models"))
        swapper = Swapper(settings, registry, metrics)

        steps: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        inbox = Inbox(settings.folder("inbox"), folders.work, settings.inbox, metrics, wake=lambda: steps.put(_nothing))
        stack.callback(inbox.close)
        retirement = Retirement(folders, inbox, readiness, metrics, settings.inference.sync_seconds)
        stack.callback(retirement.flush)
        pipeline = Pipeline(
            inbox,
            decoders,
            lambda: swapper.slot.live,
            retirement,
            folders,
            readiness,
            metrics,
            settings,
            steps,
        )
        self._reloads.append(lambda new: steps.put(partial(pipeline.apply, new)))
        stack.enter_context(_Loop("retire", lambda: retirement.run_once(PASS_SECONDS)))
        stack.enter_context(_Loop("predict", lambda: pipeline.predict_once(PASS_SECONDS)))
        stack.callback(_finish, pipeline)
        stack.enter_context(_Loop("pipeline", lambda: pipeline.run_once(PASS_SECONDS)))
        self._beats += [lambda: retirement.last_pass, lambda: pipeline.last_pass, lambda: pipeline.last_prediction]
        stack.enter_context(_Loop("models", swapper.run_once, rest=HEARTBEAT_SECONDS))
        retraining = self._retraining(metrics, registry)
        self._reloads.append(retraining.apply)
        stack.callback(retraining.close)
        retraining.start()
        stack.enter_context(_Loop("retraining", retraining.run_once, rest=HEARTBEAT_SECONDS))
        readiness.report("start", None)
        notify("READY=1")
        log.info("watching %s; results appear in %s", settings.folder("inbox"), folders.results)
        log.info("metrics on http://%s/metrics; ready after %.1f s", http.address, time.monotonic() - began)

    def _take_root(self, stack: ExitStack) -> None:
        """See to it that no other daemon works on this root for as long as this one does."""
        work = self._settings.folder("work")
        lock = take_lock(work / LOCK)
        if lock is None:
            raise StartError(
                f"{self._settings.root}: expected no other daemon on this root. Received: one is running, "
                f"{who_runs(work / PRESENCE) or 'only just started'}."
            )
        stack.callback(os.close, lock)

    def _retraining(self, metrics: Metrics, registry: Registry) -> Retraining:
        corrections = self._settings.folder("corrections")
        journal = self._settings.folder("logs") / "corrections.jsonl"
        watch = CorrectionWatch(corrections, self._settings.folder("results"), journal, metrics)
        return Retraining(self._settings, registry, watch, metrics)

    def _read_again(self) -> None:
        """Put in force what can change live; name what needs a restart. A wrong configuration changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            new = load_settings(self._settings.file)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
        else:
            try:
                for apply in self._reloads:
                    apply(new)
            except ConfigError as error:
                log.error("not all of the configuration is in force: %s", error)
            self._report_changes(new.by_key())
        notify("READY=1")

    def _report_changes(self, new: dict[str, Any]) -> None:
        for key in sorted(self._in_force.keys() | new.keys()):
            old, value = self._in_force.get(key), new.get(key)
            if value == old:
                continue
            if key.startswith(LIVE):
                log.info("%s is now %r; it was %r", key, value, old)
                self._in_force[key] = value
            else:
                log.warning("%s = %r needs a restart; %r stays in force", key, value, old)
        log.info("read %s again", self._settings.file)

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _dead(self) -> list[str]:
        """Which threads do not move; empty when the daemon lives."""
        now = time.monotonic()
        return [f"a thread made no pass for {now - beat():.0f} s" for beat in self._beats if now - beat() > STALLED_SECONDS]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._reload.set()

    def _on_thread_death(self, args: threading.ExceptHookArgs) -> None:
        log.critical(
            "thread %s died; the daemon ends",
            args.thread.name if args.thread else "?",
            exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
        )
        self._failed = True
        self._stop.set()


class _Loop:
    """A thread that makes one pass after another until it is left."""

    def __init__(self, name: str, run_once: Callable[[], None], rest: float = 0.0) -> None:
        self._run_once, self._rest = run_once, rest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._run_once()
            except OSError as error:
                if not self._rest:
                    raise
                log.error("%s: %s; trying again", self._thread.name, error)  # such as a full disk: never its end
            if self._rest:
                self._stop.wait(self._rest)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _finish(pipeline: Pipeline) -> None:
    """Give what is claimed the time to get its result; what does not is swept at the next start."""
    deadline = time.monotonic() + FINISH_SECONDS
    while not pipeline.idle and time.monotonic() < deadline:
        pipeline.run_once(0.1, claim=False)


def _check_one_file_system(settings: Settings) -> None:
    """Claiming and retiring are renames, which do not cross file systems."""
    devices = {name: settings.folder(name).stat().st_dev for name in ONE_FILE_SYSTEM}
    if len(set(devices.values())) > 1:
        raise StartError(
            "[paths]: expected inbox, work, processed and rejected on one file system, because files move between them "
            f"by rename. Received: devices {devices}."
        )


def _nothing() -> None:
    """The step of a wake-up: the sweep that every pass begins with is all that it asks for."""
