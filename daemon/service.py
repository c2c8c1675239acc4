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
from types import FrameType

from daemon.answering.pipeline import Pipeline
from daemon.answering.predicting import Predicting
from daemon.answering.retirement import Folders, Retirement
from daemon.answering.root import StartError, stay_known
from daemon.changes import in_force, tell_waiting
from daemon.config import PRESENCE, ConfigError, Settings, load_settings
from daemon.index.following import Following
from daemon.index.looking import past
from daemon.index.tending import Tending
from daemon.index.writer import Index
from daemon.intake.inbox import Inbox
from daemon.loop import Loop
from daemon.models.live import limit_threads
from daemon.models.registry import Registry
from daemon.models.swapping import Swapper
from daemon.processes import running_seconds, sweep_temporary_folders
from daemon.reading.chunks import Decoders
from daemon.systemd import Opener, ask_for_time, notify
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.presence import announce
from daemon.telemetry.readiness import Readiness
from daemon.training.candidates import Candidates
from daemon.training.correction_watch import CorrectionWatch
from daemon.training.retraining import Retraining, show_progress
from daemon.training.schedule import Schedule
from daemon.training.vetting import Vetting

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
PASS_SECONDS = 0.25  # how long a pass of the pipeline waits for something to happen
VETTING_SECONDS = 30.0  # that systemd is asked to wait, again and again while a model is vetted before there is one
FINISH_SECONDS = 3.0  # after SIGTERM, for what is claimed to get its result
STOP_SECONDS = 20.0  # after SIGTERM, for everything; less than the unit's TimeoutStopSec


class Service:
    """One daemon on one root, which whoever makes it has taken.

    Args:
        settings: the configuration.
        folders: of what it answers; None where others do, and it trains, indexes and tells.

    """

    def __init__(self, settings: Settings, folders: Folders | None) -> None:
        self._settings, self._folders = settings, folders
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._reloads: list[Callable[[Settings], None]] = []  # what each part does with settings that change live
        self._failed = False
        self._loops: list[Loop] = []

    def run(self) -> int:
        """Start, wait for SIGTERM or SIGINT, stop. SIGHUP reads the configuration again; a second SIGTERM ends it at once.

        Returns:
            The exit code: 0, or 1 where a thread died. A stop that takes longer than STOP_SECONDS does not return.

        Raises:
            ConfigError: the configuration cannot be used.
            StartError: the folders or the address cannot be used.
            RegistryError, ModelError: there is no usable model.

        """
        threading.excepthook = self._on_thread_death
        on_terminal = os.isatty(0)
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
        settings, folders = self._settings, self._folders
        sweep_temporary_folders(settings.root)
        metrics = Metrics()
        metrics.watch_disk(settings.root)
        readiness = Readiness(metrics, settings.root)
        try:
            http = HttpServer(settings.http, metrics, self._dead, lambda: readiness.reasons)
        except OSError as error:
            raise StartError(str(error.strerror or error)) from error
        self._thread("http", http.run)
        places, facts = ["work", "logs"] if folders else ["logs"], {"pid": os.getpid(), "address": http.address}
        stack.callback(os.close, announce(settings.folder(places[0]) / PRESENCE, facts))
        self._loop(stack, "root", lambda: stay_known(settings, places, facts, stack), rest=HEARTBEAT_SECONDS)
        limit_threads(settings.inference.threads)
        registry = Registry(settings.folder("models"))
        vetting = Vetting(settings, self._stop, partial(ask_for_time, VETTING_SECONDS))
        self._reloads.append(vetting.apply)
        swapper = Swapper(registry, vetting, metrics)
        self._heed_signals()  # until here nothing is claimed, and their default is an end at once

        index = Index(settings.index, metrics, partial(past, settings)) if folders else Index(settings.index, metrics)
        stack.callback(index.close)
        if folders:
            is_quiet = self._start_answering(stack, folders, swapper, index, readiness, metrics)
        else:
            is_quiet = self._follow_others(stack, index)
        self._loop(stack, "models", lambda: swapper.run_once(time.monotonic()), rest=HEARTBEAT_SECONDS)
        stack.callback(self._stop.set)  # which a vetting heeds
        self._start_learning(stack, registry, metrics, index)
        self._tend(stack, metrics, is_quiet)
        readiness.report("start", None)
        notify("READY=1")
        if folders:
            log.info("watching %s; results appear in %s", settings.folder("inbox"), folders.results)
        else:
            log.info("answering nothing; following the answers in %s", settings.folder("results"))
        log.info("metrics on http://%s/metrics; ready after %.1f s", http.address, running_seconds())

    def _start_answering(
        self,
        stack: ExitStack,
        folders: Folders,
        swapper: Swapper,
        index: Index,
        readiness: Readiness,
        metrics: Metrics,
    ) -> Callable[[], bool]:
        """Answer what is dropped; gives what tells whether nothing is."""
        settings = self._settings
        decoders = Decoders(folders.work, settings.inbox)
        stack.callback(decoders.close)
        steps: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        inbox = Inbox(
            settings.folder("inbox"),
            folders.work,
            settings.inbox,
            metrics,
            wake=lambda: steps.put(_nothing),
            ask_to_open=Opener(settings.root).ask,
        )
        stack.callback(inbox.close)
        retirement = Retirement(folders, inbox, readiness, metrics, settings.inference.sync_seconds, index)
        stack.callback(retirement.flush)
        predicting = Predicting(lambda: swapper.slot.live, metrics)
        pipeline = Pipeline(
            inbox,
            decoders,
            predicting,
            retirement,
            folders,
            readiness,
            metrics,
            settings,
            steps,
        )
        self._reloads.append(lambda new: steps.put(partial(pipeline.apply, new)))
        self._loop(stack, "retire", lambda: retirement.run_once(PASS_SECONDS))
        self._loop(stack, "predict", lambda: predicting.run_once(PASS_SECONDS))
        stack.callback(_finish, pipeline)
        self._loop(stack, "pipeline", lambda: pipeline.run_once(PASS_SECONDS))
        return lambda: pipeline.idle and not inbox.waiting()

    def _follow_others(self, stack: ExitStack, index: Index) -> Callable[[], bool]:
        """Take what others answer into the index; whether they do just now is not known."""
        following = Following(self._settings)
        self._loop(stack, "labels", lambda: index.run_once(time.monotonic()), rest=HEARTBEAT_SECONDS)
        self._loop(stack, "following", lambda: following.run_once(time.monotonic()), rest=HEARTBEAT_SECONDS)
        stack.callback(following.close)
        return lambda: True

    def _start_learning(self, stack: ExitStack, registry: Registry, metrics: Metrics, index: Index) -> None:
        corrections = CorrectionWatch(self._settings, metrics, index)
        candidates = Candidates(self._settings, registry, partial(show_progress, metrics))
        retraining = Retraining(self._settings, registry, corrections, candidates, metrics)
        self._reloads += [retraining.apply, corrections.apply]
        self._loop(stack, "corrections", partial(_at_this_moment, corrections.run_once), rest=HEARTBEAT_SECONDS)
        stack.callback(corrections.close)
        self._loop(stack, "retraining", partial(_at_this_moment, retraining.run_once), rest=HEARTBEAT_SECONDS)
        stack.callback(retraining.close)

    def _tend(self, stack: ExitStack, metrics: Metrics, is_quiet: Callable[[], bool]) -> None:
        tending = Tending(self._settings, metrics, is_quiet)
        self._reloads.append(tending.apply)
        stack.callback(tending.close)
        self._loop(stack, "index", lambda: tending.run_once(time.monotonic()), rest=HEARTBEAT_SECONDS)

    def _read_again(self) -> None:
        """Put in force what can change live; name what needs a restart. A wrong configuration changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            new = load_settings(self._settings.file)
            Schedule(new.retrain)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
        else:
            for apply in self._reloads:
                apply(in_force(self._settings, new))  # says itself what is now in force
            tell_waiting(log, self._settings, new)
            log.info("read %s again", new.file)
        notify("READY=1")

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _loop(self, stack: ExitStack, name: str, run_once: Callable[[], None], rest: float = 0.0) -> None:
        self._loops.append(stack.enter_context(Loop(name, run_once, rest)))

    def _dead(self) -> list[str]:
        """Which threads do not move; empty when the daemon lives."""
        now = time.monotonic()
        return [text for loop in self._loops if (text := loop.stall(now))]

    def _heed_signals(self) -> None:
        self._thread("signals", self._follow_signals)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)  # an Event could be locked by whom the handler interrupts; a SimpleQueue is made for it

    def _follow_signals(self) -> None:
        """Do what signals ask for, and see to it that a stop comes to its end; in a thread of its own."""
        while self._signals.get() == signal.SIGHUP:
            self._reload.set()
        self._stop.set()
        why = "it was told so again"
        try:
            while self._signals.get(timeout=STOP_SECONDS) == signal.SIGHUP:
                pass
        except queue.Empty:
            why = f"stopping took more than {STOP_SECONDS:.0f} s"
        held_up = ", ".join(loop.name for loop in self._loops if loop.is_alive()) or "none"
        log.error("ends at once, %s; threads that still run: %s. The next start does what is left", why, held_up)
        os._exit(1)

    def _on_thread_death(self, args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, StartError):
            log.critical("%s This one ends.", args.exc_value)
        else:
            log.critical(
                "thread %s died; the daemon ends",
                args.thread.name if args.thread else "?",
                exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
            )
        self._failed = True
        self._signals.put(signal.SIGTERM)


def _at_this_moment(run_once: Callable[[float, float], object]) -> None:
    """Make a pass that is handed the wall clock's time, which may be set, and the monotonic clock's."""
    run_once(time.time(), time.monotonic())


def _finish(pipeline: Pipeline) -> None:
    """Give what is claimed the time to get its result; what does not is swept at the next start."""
    deadline = time.monotonic() + FINISH_SECONDS
    while not pipeline.idle and time.monotonic() < deadline:
        pipeline.run_once(0.1, claim=False)


def _nothing() -> None:
    """The step of a wake-up: the sweep that every pass begins with is all that it asks for."""
