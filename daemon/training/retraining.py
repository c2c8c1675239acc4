"""Retraining: when it is due, running the trainer's process, and what becomes of its version."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from daemon.config import ConfigError, RetrainSettings, Settings
from daemon.files import file_sha256, write_durably
from daemon.models.registry import Registry, TrainingUnderWay
from daemon.telemetry.metrics import Metrics
from daemon.training.corrections import CorrectionWatch, list_corrections
from daemon.training.dataset import load_base_data
from daemon.training.gate import PROMOTED, Answers, Verdict, decide
from daemon.training.job import STOPPED, WRONG_SETTINGS, Job

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0  # after SIGTERM; then SIGKILL
POLL_SECONDS = 0.5
CLOCK_STEP_SECONDS = 30.0  # a wall clock that moves so much against the monotonic one was set
SCHEDULED, CORRECTED = "scheduled", "corrections"


@dataclass(frozen=True)
class Run:
    """How a training ended.

    Attributes:
        result: "promoted", "refused", "insufficient_evidence", "failed", "stopped" or "nothing_to_learn".
        version: its version, or what would have been.
        reason: in words.

    """

    result: str
    version: str
    reason: str


class TrainingEnded(Exception):
    """The child gave no version; `result` is "failed" or "stopped"."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result, self.reason = result, reason


class Trainer:
    """Runs one training at a time in a child process, and lets the gate decide about its version.

    Args:
        settings: the configuration.
        registry: where champion and candidate are.
        on_progress: handed the content of progress.json after each epoch.

    """

    def __init__(
        self, settings: Settings, registry: Registry, on_progress: Callable[[dict[str, float]], None] = lambda _: None
    ) -> None:
        self.settings, self._registry, self._on_progress = settings, registry, on_progress
        self.stop = threading.Event()

    def run(self, why: str, even_if_nothing_new: bool = False, verbose: int = 0) -> Run:
        """Train, decide, and make the version current if it was promoted.

        Args:
            why: what started it, for log and ledger.
            even_if_nothing_new: train although data and configuration are those of the last verdict.
            verbose: Keras' verbosity; not 0 means in the foreground, on this terminal.

        Raises:
            TrainingUnderWay: another process trains into this folder.

        """
        with self._registry.training() as lock:
            fingerprint = self._fingerprint()
            if not even_if_nothing_new and self._has_learnt(fingerprint):
                reason = "no new corrections, same data, same configuration as last time"
                run = Run("nothing_to_learn", self._registry.next_name(), reason)
                log.info("retraining (%s): nothing to learn: %s", why, run.reason)
                return run
            name = self._registry.begin(f"a training ({why})")
            log.info("retraining (%s): %s begins", why, name)
            started, began = time.monotonic(), time.time()
            try:
                report = self._train(name, lock, verbose)
                verdict = self._decide(name, report)
            except TrainingEnded as end:
                run = Run(end.result, name, end.reason)
                self._registry.ledger.record(run.result, name, run.reason, why=why, began=began)
            else:
                run = Run(verdict.verdict, name, verdict.reason)
                self._keep(name, report, run, why=why, began=began, fingerprint=fingerprint)
            level = logging.ERROR if run.result == "failed" else logging.INFO
            log.log(level, "%s %s after %.0f s: %s", name, run.result, time.monotonic() - started, run.reason)
            return run

    def _train(self, name: str, lock: int, verbose: int) -> dict[str, Any]:
        """Run the child to its end; give its report."""
        folder = self.settings.folder("logs") / "training" / name
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(str(self.settings.file), name, self._registry.current_name(), verbose, background=not verbose)
        with contextlib.ExitStack() as stack:
            output = None if verbose else stack.enter_context((folder / "trainer.log").open("wb"))
            # The lock goes with the child, so that no other training begins should this process be killed.
            child = subprocess.Popen(job.command(), stdout=output, stderr=output, pass_fds=(lock,))  # noqa: S603 -- ourselves
            stack.callback(_end, child)
            limit = time.monotonic() + self.settings.retrain.max_hours * 3600
            while child.poll() is None:
                if self.stop.wait(POLL_SECONDS):
                    raise TrainingEnded("stopped", "it was told to stop")
                if time.monotonic() > limit:
                    raise TrainingEnded("failed", f"it took longer than {self.settings.retrain.max_hours:g} hours")
                with contextlib.suppress(OSError, ValueError):
                    self._on_progress(json.loads((folder / "progress.json").read_bytes()))
        if child.returncode != 0:
            raise _explain_end(child.returncode, None if verbose else folder / "trainer.log")
        report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
        for text in report["corrections"]["conflicts"] + report["corrections"]["refused"]:
            log.warning("left out of training: %s", text)
        return report

    def _decide(self, name: str, report: dict[str, Any]) -> Verdict:
        champion = report["champion"]
        if champion is None:
            return Verdict(PROMOTED, "The first version: there is no champion to compare it with.")
        with np.load(self.settings.folder("logs") / "training" / name / "answers.npz") as file:
            holdout, corrections = (
                Answers(*(file[f"{part}_{what}"] for what in ("truth", "champion", "candidate")))
                for part in ("holdout", "corrections")
            )
        return decide(holdout, corrections, self._best_accuracy(champion, report), self.settings.gate)

    def _keep(self, name: str, report: dict[str, Any], run: Run, **facts: Any) -> None:
        """Write the verdict down: report, ledger, and current.h5 where it was promoted."""
        path = self.settings.folder("logs") / "training" / name / "report.json"
        write_durably(path, json.dumps(report | {"verdict": run.result, "reason": run.reason}, indent=2).encode())
        self._registry.ledger.record(
            run.result,
            name,
            run.reason,
            champion=report["champion"],
            holdout_accuracy=report["holdout"]["accuracy"],
            corrections_accuracy=report["corrections"]["accuracy"],
            dataset_sha256=report["training"]["dataset_sha256"],
            **facts,
        )
        if run.result == PROMOTED:
            self._registry.make_current(name, f"promoted by the gate ({facts['why']})")
        for removed in self._registry.remove_old(self.settings.retention.versions):
            log.info("removed %s: only the newest %d versions are kept", removed, self.settings.retention.versions)

    def _best_accuracy(self, champion: str, report: dict[str, Any]) -> float:
        """The best hold-out accuracy of any promoted version that was measured on the same data."""
        data = report["training"]["dataset_sha256"]
        ever = [
            float(line["holdout_accuracy"])
            for line in self._registry.ledger.lines()
            if line.get("event") == PROMOTED and line.get("dataset_sha256") == data
        ]
        manifest = self._registry.manifest(champion)
        if manifest.training.dataset_sha256 == data:
            ever.append(manifest.holdout.accuracy)
        return max(ever, default=0.0)

    def _fingerprint(self) -> str:
        """A digest of all that a training learns from: corrections, data set and configuration."""
        corrections = self.settings.folder("corrections")
        labels = sorted((name[0], file_sha256(corrections / name)) for name, _ in list_corrections(corrections))
        dataset = self.settings.root / self.settings.training.dataset
        status = dataset.stat() if dataset.exists() else None
        learnt = [
            labels,
            [status.st_size, status.st_mtime_ns] if status else None,
            self.settings.training.model_dump(),
            self.settings.retrain.model_dump(include={"steps", "learning_rate", "corrections_share", "patience"}),
        ]
        return hashlib.sha256(json.dumps(learnt, sort_keys=True).encode()).hexdigest()

    def _has_learnt(self, fingerprint: str) -> bool:
        """Whether the last verdict was on just this, or the shipped model comes from it and nobody has trained here yet."""
        found = [line["fingerprint"] for line in self._registry.ledger.lines() if "fingerprint" in line]
        if found:
            return bool(found[-1] == fingerprint)
        champion, chosen = self._registry.current_name(), self.settings.training
        if champion is None or any(True for _ in list_corrections(self.settings.folder("corrections"))):
            return False
        manifest = self._registry.manifest(champion)
        made = manifest.training.model_dump()
        return (
            manifest.layers == [layer.model_dump() for layer in chosen.layers]
            and all(made.get(key) == value for key, value in chosen.model_dump(exclude={"layers", "patience"}).items())
            and made.get("dataset_sha256") == load_base_data(chosen.dataset, self.settings.root, self.settings.inbox).sha256
        )


class Retraining:
    """Starts trainings: by the clock, when enough corrections have come, and once for what was missed.

    Args:
        settings: the configuration.
        registry: its ledger tells when the last training was.
        corrections: notices corrections.
        metrics: shows how trainings go and when the next one is.

    """

    def __init__(self, settings: Settings, registry: Registry, corrections: CorrectionWatch, metrics: Metrics) -> None:
        self._settings, self._registry, self._corrections, self._metrics = settings, registry, corrections, metrics
        self._trainer = Trainer(settings, registry, self._show_progress)
        self._last = max((line["began"] for line in registry.ledger.lines() if "began" in line), default=time.time())
        self._clock = time.time() - time.monotonic()
        self._look_due = 0.0
        self._busy = threading.Lock()
        self._trigger = schedule(settings.retrain)
        self._scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)})
        for line in registry.ledger.lines():
            if line.get("event") == PROMOTED:
                metrics.training_last_success.set(line["time"])

    def start(self) -> None:
        """Start the clock; a run that fell into the time when the daemon was down comes at once, and only once."""
        last = datetime.fromtimestamp(self._last, UTC)
        missed = self._trigger and self._trigger.get_next_fire_time(last, last)
        now = datetime.now(UTC)
        self._add_scheduled(**({"next_run_time": now} if missed and missed <= now else {}))
        self._scheduler.start()

    def _add_scheduled(self, **when: datetime) -> None:
        if self._trigger is not None:
            self._scheduler.add_job(
                self._run,
                self._trigger,
                args=[SCHEDULED],
                id=SCHEDULED,
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
                **when,
            )

    def apply(self, settings: Settings) -> None:
        """Put a changed configuration in force: for the next training, and for when it comes.

        Raises:
            ConfigError: [retrain] names no schedule; the old one stays.

        """
        if settings.retrain != self._settings.retrain:
            self._trigger = schedule(settings.retrain)
            if self._scheduler.get_job(SCHEDULED):
                self._scheduler.remove_job(SCHEDULED)
            self._add_scheduled()
        for change in settings.changes_in_force(self._settings, "training", "retrain", "gate", "retention"):
            log.info("%s", change)
        self._settings = self._trainer.settings = settings

    def close(self) -> None:
        """End a training that runs, and the clock."""
        self._trainer.stop.set()
        self._scheduler.shutdown(wait=True)

    def run_once(self) -> None:
        """Notice corrections, and a clock that was set; start a training that corrections ask for."""
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + self._settings.inbox.rescan_seconds
            self._corrections.run_once()
            self._start_after_corrections()
        self._follow_clock()

    def _start_after_corrections(self) -> None:
        wanted, quiet = self._settings.retrain.after_corrections, self._settings.retrain.quiet_seconds
        new = self._corrections.new_since(self._last)
        if not wanted or new < wanted or self._busy.locked() or time.time() - self._corrections.last_noticed() < quiet:
            return
        if self._scheduler.get_job(CORRECTED) is None:
            log.info("%d new corrections: a training is due", new)
            self._scheduler.add_job(self._run, args=[CORRECTED], id=CORRECTED, misfire_grace_time=None)

    def _follow_clock(self) -> None:
        """APScheduler runs nothing after the clock went back, until it catches up: so the next run is taken anew."""
        clock = time.time() - time.monotonic()
        job = self._scheduler.get_job(SCHEDULED)
        if job and abs(clock - self._clock) > CLOCK_STEP_SECONDS:
            log.warning("the clock was set by %+.0f s; the next training is scheduled anew", clock - self._clock)
            job = self._scheduler.reschedule_job(SCHEDULED, trigger=self._trigger)
        self._clock = clock
        if job and job.next_run_time:
            self._metrics.training_next_run.set(job.next_run_time.timestamp())

    def _run(self, why: str) -> None:
        """One training, in APScheduler's thread. Whatever goes wrong with it is its own end, not the daemon's."""
        metrics = self._metrics
        self._last = time.time()
        started = time.monotonic()
        with self._busy:
            metrics.training_in_progress.set(1)
            try:
                run = self._trainer.run(why)
                result = run.result
            except TrainingUnderWay as error:
                log.warning("retraining (%s): %s", why, error)
                return
            except Exception:
                log.exception("retraining (%s) failed", why)
                result = "failed"
            finally:
                metrics.training_in_progress.set(0)
        metrics.training_runs.labels(result).inc()
        if result in ("promoted", "refused", "insufficient_evidence"):
            metrics.gate_decisions.labels(result).inc()
            metrics.training_seconds.observe(time.monotonic() - started)
            self._show_accuracies(run.version)
        if result == PROMOTED:
            metrics.training_last_success.set_to_current_time()

    def _show_progress(self, progress: dict[str, float]) -> None:
        metrics = self._metrics
        metrics.training_epoch.set(progress["epoch"])
        for split, prefix in (("training", ""), ("validation", "val_")):
            metrics.training_loss.labels(split).set(progress[f"{prefix}loss"])
            metrics.training_accuracy.labels(split).set(progress[f"{prefix}accuracy"])

    def _show_accuracies(self, version: str) -> None:
        report = json.loads((self._settings.folder("logs") / "training" / version / "report.json").read_bytes())
        self._metrics.holdout_accuracy.labels("candidate").set(report["holdout"]["accuracy"])
        if report["champion_holdout_accuracy"] is not None:
            self._metrics.holdout_accuracy.labels("champion").set(report["champion_holdout_accuracy"])


def schedule(settings: RetrainSettings) -> BaseTrigger | None:
    """The trigger that `[retrain]` describes; None for never.

    Raises:
        ConfigError: cron is no cron expression, or there is an interval as well.

    """
    if settings.interval_hours:
        if settings.cron:
            raise ConfigError(
                f'[retrain] interval_hours: expected cron = "" beside an interval. Received: cron = {settings.cron!r}.'
            )
        return IntervalTrigger(seconds=settings.interval_hours * 3600)
    if not settings.cron:
        return None
    try:
        return CronTrigger.from_crontab(settings.cron)
    except ValueError as error:
        raise ConfigError(
            f"[retrain] cron: expected five fields: minute hour day month weekday, such as '0 3 * * *'. "
            f"Received: {settings.cron!r}: {error}"
        ) from error


def retrain_now(settings: Settings) -> int:
    """`digitd retrain`: train in the foreground, with Keras' progress bar. A running daemon swaps to it by itself.

    Returns:
        0 where a version was made, whatever the verdict; else 1.

    """
    trainer = Trainer(settings, Registry(settings.folder("models")))
    signal.signal(signal.SIGTERM, lambda *_: trainer.stop.set())
    signal.signal(signal.SIGINT, lambda *_: trainer.stop.set())
    try:
        run = trainer.run("by hand", even_if_nothing_new=True, verbose=1 if sys.stdout.isatty() else 2)
    except TrainingUnderWay as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{run.version} {run.result}: {run.reason}")
    if run.result not in ("promoted", "refused", "insufficient_evidence"):
        return 1
    print(f"history  {settings.folder('logs') / 'training' / run.version}")
    print(f"curves   tensorboard --logdir {settings.folder('logs') / 'tensorboard'}")
    return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs: SIGTERM, and SIGKILL for one that does not heed it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _explain_end(code: int, output: Path | None) -> TrainingEnded:
    if code in (STOPPED, -signal.SIGTERM):
        return TrainingEnded("stopped", "SIGTERM came")
    last = ""
    if output:
        lines = output.read_text(errors="replace").strip().splitlines()
        last = f"; its last words: {lines[-1]}" if lines else ""
    if code == -signal.SIGKILL:
        return TrainingEnded("failed", f"the trainer was killed by SIGKILL, perhaps because memory ran out{last}")
    if code < 0:
        return TrainingEnded("failed", f"the trainer died of signal {signal.Signals(-code).name}{last}")
    what = "wrong settings" if code == WRONG_SETTINGS else f"the trainer ended with exit code {code}"
    return TrainingEnded("failed", f"{what}{last}")
