"""What the driver tells of the stream: the tasks' counts, the model, the backlog; under the daemon's own names."""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Iterator
from importlib.metadata import version as version_of
from itertools import islice
from typing import Any

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from daemon.config import STREAM, Settings
from daemon.folders import Folder
from daemon.intake.claiming import EVERYWHERE, MOST_SWEEPING, ignoring, paths_below
from daemon.intake.sweeping import MOST_LISTED
from daemon.models.registry import Registry
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness
from daemon.telemetry.tally import Summed, from_text

log = logging.getLogger(__name__)

OBSERVED, COUNTS = "walk", "counts"  # names of the observation and of what it has


class Listener(StreamingQueryListener):
    """Hands on what Spark tells of each batch; a thread of PySpark's calls it."""

    def __init__(self) -> None:
        self.batches: queue.SimpleQueue[tuple[dict[str, Any], list[str], float]] = queue.SimpleQueue()

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802  # Spark's name, as of all below
        """Nothing is done yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """A batch is done: its offset, its tasks' counts, and how many seconds it took."""
        progress = event.progress
        row = progress.observedMetrics.get(OBSERVED)
        self.batches.put(
            (json.loads(progress.sources[0].endOffset), row[COUNTS] if row else [], progress.batchDuration / 1e3)
        )

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """There is nothing to do."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The main thread sees to it."""


class Watching:
    """Keeps the driver's metrics up to date; for the main thread.

    Args:
        settings: of the root.
        metrics: the driver's own, which gauges are kept in.
        summed: where the tasks' counts are added.
        readiness: told once the workers have their model.

    """

    def __init__(self, settings: Settings, metrics: Metrics, summed: Summed, readiness: Readiness) -> None:
        self._settings, self._metrics, self._summed, self._readiness = settings, metrics, summed, readiness
        self._registry = Registry(settings.folder("models"))
        self._version: str | None = None
        self._seen: dict[str, float] = {}  # what waits in the inbox, since when
        self._survey_due = 0.0

    def batch_done(self, offset: dict[str, Any], texts: list[str], seconds: float) -> None:
        """Take in what the tasks of a batch counted."""
        answered = rejected = 0.0
        for text in texts:
            counts = from_text(text)
            self._summed.add(counts)
            for (_, sample, labels), value in counts.items():
                if sample == "digitd_images_total":
                    rejected += value if ("outcome", "rejected") in labels else 0
                    answered += value if ("outcome", "rejected") not in labels else 0
        if answered or rejected:
            log.info(
                "batch %d: %d images answered by %s, %d files rejected, in %.1f s",
                offset["batch"], answered, offset["version"], rejected, seconds,
            )  # fmt: skip
        if offset["version"] != self._version:
            self._show(str(offset["version"]))
        self._readiness.report("start", None)

    def _show(self, name: str) -> None:
        """A batch was done with another model than the one before it."""
        version, is_first = self._registry.version(name), self._version is None
        self._version, manifest = name, version.manifest
        self._metrics.model_info.clear()
        self._metrics.model_info.labels(name, manifest.sha256, version_of("keras")).set(1)
        self._metrics.model_loaded.set_to_current_time()
        self._metrics.holdout_accuracy.labels("champion").set(manifest.holdout.accuracy)
        why = "the stream started" if is_first else "swapped"
        if not is_first:
            self._metrics.swaps.labels("swapped").inc()
        self._registry.ledger.record("live", name, why)
        log.info("model %s is live (%s): %s", name, why, version.describe())

    def survey(self, now: float) -> None:
        """Bring the gauges of the backlog up to date, now and then.

        Args:
            now: a moment of the monotonic clock.

        """
        if now < self._survey_due:
            return
        try:
            with (
                Folder(self._settings.folder("inbox"), mounts=False) as inbox,
                Folder(self._settings.folder("work"), own=True) as work,
            ):
                waiting = _files(paths_below(inbox, EVERYWHERE, ignoring(self._settings.inbox.ignore)))
                claimed = len(_files(paths_below(work, EVERYWHERE)))
            with Folder(self._settings.folder("work") / STREAM, own=True) as claims:
                claimed += sum("/" in name for name in _files(paths_below(claims, EVERYWHERE)))
        except OSError as error:
            self._readiness.fault("inbox", error)
        else:
            self._readiness.report("inbox", None)
            self._seen = {name: self._seen.get(name, now) for name in waiting}
            self._metrics.backlog.labels("inbox").set(len(waiting))
            self._metrics.backlog.labels("work").set(claimed)
            self._metrics.oldest_waiting.set(now - min(self._seen.values(), default=now))
        took = time.monotonic() - now
        self._survey_due = now + max(self._settings.inbox.rescan_seconds, took / MOST_SWEEPING)


def _files(paths: Iterator[str]) -> list[str]:
    return [path for path in islice(paths, MOST_LISTED) if not path.endswith("/")]
