"""When the daemon retrains: by the clock, or because enough corrections have come."""

from __future__ import annotations

import logging
import math

from daemon.changes import tell_in_force
from daemon.config import Settings
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import Registry
from daemon.telemetry.metrics import Metrics
from daemon.training.candidates import OVERTAKEN, Candidates, Run
from daemon.training.correction_watch import CorrectionWatch
from daemon.training.gate import PROMOTED
from daemon.training.labels import Labels, read_learnt
from daemon.training.schedule import Schedule

log = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0  # before a training that met another, or was stopped, is tried again
FAILED_SECONDS = 86400.0  # before corrections whose training failed, as on a full disk, ask for another by themselves
_NONE = Labels()


class Retraining:
    """Starts a training whenever one is due, in the thread that asks.

    What is due follows from what is on the disk: when the last training of the ledger began, and which corrections none has
    looked at. So it outlives restarts, suspends and clocks that are set.

    Args:
        settings: the configuration.
        registry: its ledger tells when the last training was.
        corrections: tells which there are.
        candidates: runs it.
        metrics: shows how trainings go and when the next one is.

    Raises:
        ConfigError: [retrain] names no schedule.

    """

    def __init__(
        self, settings: Settings, registry: Registry, corrections: CorrectionWatch, candidates: Candidates, metrics: Metrics
    ) -> None:
        self._settings, self._registry, self._corrections = settings, registry, corrections
        self._candidates, self._metrics = candidates, metrics
        self._schedule = Schedule(settings.retrain)
        self._last = -math.inf  # when the last training began
        self._begins_anew = False  # whether the schedule is a new one, of which nothing was missed before the next look
        self._learnt = Labels()  # what it had looked at
        self._failed = Labels()  # what one that failed would have
        self._counted: tuple[object, ...] = (None,) * 3  # the labels, and what was looked at, that `_new` was counted of
        self._new = 0
        self._not_before = self._failed_until = -math.inf
        for line in registry.ledger.lines():
            if line.get("event") == PROMOTED:
                metrics.training_last_success.set(line["time"])

    def apply(self, settings: Settings) -> None:
        """Put a changed configuration in force: for the next training, and for when it comes.

        Raises:
            ConfigError: [retrain] names no schedule; nothing has changed.

        """
        schedule = Schedule(settings.retrain)
        before, after = self._settings.retrain, settings.retrain
        if (before.cron, before.interval_hours) != (after.cron, after.interval_hours):
            self._begins_anew = True  # what it would have had before this moment was not missed
        self._schedule = schedule
        tell_in_force(log, self._settings, settings, "training", "retrain", "gate", "retention.versions")
        self._settings = self._candidates.settings = settings

    def close(self) -> None:
        """End a training that runs."""
        self._candidates.stop.set()

    def run_once(self, now: float, steady: float) -> None:
        """Start a training if one is due, and wait for its end.

        Args:
            now: in seconds since the epoch; may jump either way.
            steady: in seconds of a clock that never jumps.

        """
        if self._last == -math.inf:
            self._look_up(now)
        if self._due(now, steady):
            self._look_up(now)  # perhaps somebody has trained by hand
            if why := self._due(now, steady):
                self._train(why, now, steady)

    def _look_up(self, now: float) -> None:
        """Read when the last training began, or the first daemon here where there was none; and what it looked at.

        Moments that are yet to come were written by a clock that was wrong, and tell nothing.
        """
        past = [line for line in self._registry.ledger.lines() if line.get("began", line["time"]) <= now]
        trainings = [line["began"] for line in past if "began" in line and line["event"] not in ("stopped", OVERTAKEN)]
        first = [line["time"] for line in past][:1] or [now if self._last == -math.inf else self._last]
        self._last = max(self._last, *(trainings or first)[-1:])
        self._learnt |= read_learnt(self._settings)

    def _due(self, now: float, steady: float) -> str | None:
        """What asks for a training now; None for nothing."""
        if self._begins_anew:
            self._begins_anew, self._last = False, now
        self._last = min(self._last, now)  # the clock was set back since
        scheduled = self._schedule.next_after(self._last)
        self._metrics.training_next_run.set(scheduled or 0.0)
        if steady < self._not_before:
            return None
        if scheduled is not None and scheduled <= now:
            return "scheduled"
        wanted, quiet = self._settings.retrain.after_corrections, self._settings.retrain.quiet_seconds
        is_quiet = steady - self._corrections.last_new >= quiet
        return "corrections" if wanted and is_quiet and self._count_new(steady) >= wanted else None

    def _count_new(self, steady: float) -> int:
        """How many labels no training has looked at; counted only where either has changed since."""
        now = self._corrections.labels, self._learnt, self._failed if steady < self._failed_until else _NONE
        if any(one is not other for one, other in zip(now, self._counted, strict=True)):
            self._counted, self._new = now, len(now[0] - now[1] - now[2])
        return self._new

    def _train(self, why: str, now: float, steady: float) -> None:
        """One training. Whatever goes wrong with it is its own end, not the daemon's."""
        if not self._registry.names():  # a candidate would meet nobody, and take the place of what answers
            log.error("retraining (%s): %s: expected the version that is live. Received: none", why, self._registry.folder)
            self._not_before = steady + PAUSE_SECONDS
            return
        labels, is_complete = self._corrections.labels, self._corrections.is_complete
        self._metrics.training_in_progress.set(1)
        try:
            run = self._candidates.run(why, now, labels=labels if is_complete else None)
        except TrainingUnderWay as error:
            log.warning("retraining (%s): %s", why, error)
            self._not_before = steady + PAUSE_SECONDS
            return
        except Exception:
            log.exception("retraining (%s) failed", why)
            run = Run("failed", "", "")
        finally:
            self._metrics.training_in_progress.set(0)
        if run.result == "stopped":
            self._not_before = steady + PAUSE_SECONDS
        elif run.result == "failed":
            self._last, self._failed, self._failed_until = now, labels, steady + FAILED_SECONDS
        else:
            self._last, self._learnt, self._failed_until = now, labels, -math.inf
        self._show(run)

    def _show(self, run: Run) -> None:
        metrics = self._metrics
        metrics.training_runs.labels(run.result).inc()
        if run.report is not None:
            metrics.gate_decisions.labels(run.result).inc()
            metrics.training_seconds.observe(run.report["training"]["seconds"])
            metrics.holdout_accuracy.labels("candidate").set(run.report["holdout"]["accuracy"])
            if run.report["champion_holdout_accuracy"] is not None:
                metrics.holdout_accuracy.labels("champion").set(run.report["champion_holdout_accuracy"])
        if run.result == PROMOTED:
            metrics.training_last_success.set_to_current_time()


def show_progress(metrics: Metrics, progress: dict[str, float]) -> None:
    """Show how a training that runs is getting on, from its progress.json."""
    metrics.training_epoch.set(progress["epoch"])
    for split, prefix in (("training", ""), ("validation", "val_")):
        metrics.training_loss.labels(split).set(progress[f"{prefix}loss"])
        metrics.training_accuracy.labels(split).set(progress[f"{prefix}accuracy"])
