"""A task: the daemon's own walk of its files, in a Python worker of Spark's that keeps model and decoders between tasks."""

from __future__ import annotations

import gc
import logging
import queue
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from daemon.answering.pipeline import CHUNK, Pipeline
from daemon.answering.predicting import Predicting
from daemon.answering.retirement import Folders, Retirement
from daemon.cluster.claims import Claims
from daemon.cluster.sweep import Task
from daemon.config import Settings
from daemon.files import RETRY_SECONDS
from daemon.index.schema import Record
from daemon.models.live import LiveModel, limit_threads, load
from daemon.models.registry import Registry, RegistryError
from daemon.models.version import ModelIdentity
from daemon.reading.chunks import Decoders
from daemon.systemd import log_handler
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness
from daemon.telemetry.tally import Counts, grown, read_counts

log = logging.getLogger(__name__)

PASS_SECONDS = 0.25
PATIENCE_SECONDS = 30.0  # beyond the time for one image, without any image's coming to its end; then Spark tries again


class Stuck(Exception):
    """A task came no further; the message says what keeps it."""


class _NoIndex:
    """The index is one host's; it is filled from the folders."""

    def run_once(self, now: float) -> None:
        """Nothing is ever due."""

    def add(self, records: list[Record]) -> None:
        """Nobody is told."""


class Walker:
    """What a worker keeps from task to task.

    Args:
        settings: of the root; the same in all workers.

    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.folder("models"))
        self._metrics = Metrics()
        self._complained: set[str] = set()
        self._decoders = Decoders(settings.folder("work"), settings.inbox)
        self._model: LiveModel | None = None
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # a writer who meets our lease sends it; its default is to kill us

    def close(self) -> None:
        """End the decoders."""
        self._decoders.close()

    def walk(self, task: Task, identity: ModelIdentity) -> Counts:
        """Do a task, from claiming its files to retiring them.

        Args:
            task: what to walk.
            identity: the model that answers.

        Returns:
            What the metrics have grown by.

        Raises:
            RegistryError, ModelError: that model is not to be had.
            Stuck: the machine did not allow it, for longer than passes by itself. What was claimed is where the next
                attempt finds it.

        """
        before = read_counts(self._metrics.registry)
        model = self._take_up(identity)
        folder = self._settings.folder("work") / task.folder
        if task.names or folder.exists():
            inbox = self._settings.folder("inbox")
            with closing(Claims(inbox, folder, task.names, self._metrics, self._complained)) as claims:
                self._walk(claims, folder, model)
        return grown(before, read_counts(self._metrics.registry))

    def _walk(self, claims: Claims, folder: Path, model: LiveModel) -> None:
        settings, steps = self._settings, queue.SimpleQueue[Callable[[], None]]()
        readiness = Readiness(self._metrics)  # what kept an attempt before is tried again by this one
        readiness.report("start", None)
        folders = Folders(folder, *(settings.folder(name) for name in ("results", "processed", "rejected")))
        retirement = Retirement(folders, claims, readiness, self._metrics, settings.inference.sync_seconds, _NoIndex())
        self._decoders.work = folder
        pipeline = Pipeline(
            claims,
            self._decoders,
            Predicting(lambda: model, self._metrics),
            retirement,
            folders,
            readiness,
            self._metrics,
            settings,
            steps,
            few=CHUNK,
        )
        left, deadline = claims.unfinished(), self._deadline()
        while claims.waiting() or not pipeline.idle:
            pipeline.run_once(PASS_SECONDS)
            if claims.unfinished() < left:
                left, deadline = claims.unfinished(), self._deadline()
            _check(deadline, readiness)
        retirement.flush()
        deadline = self._deadline()
        while readiness.is_held("retire"):
            _check(deadline, readiness)
            time.sleep(RETRY_SECONDS)
            retirement.flush()

    def _take_up(self, identity: ModelIdentity) -> LiveModel:
        """The model of this identity, loaded; only one that was made or vetted here is ever opened."""
        if self._model is not None and self._model.identity == identity:
            return self._model
        version = self._registry.version(identity.version)
        if version.identity != identity or not self._registry.is_proven(version):
            raise RegistryError(
                f"{version.path}: expected the version that the batch is pinned to, made or vetted here, sha256 "
                f"{identity.sha256}. Received: sha256 {version.manifest.sha256}."
            )
        gc.unfreeze()
        self._model = load(version)
        gc.collect()
        gc.freeze()  # Spark's worker collects after each task: 200 ms of CPU, mostly through TensorFlow's own objects
        return self._model

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.inbox.decode_seconds + PATIENCE_SECONDS


def _check(deadline: float, readiness: Readiness) -> None:
    if time.monotonic() > deadline:
        raise Stuck(
            f"expected an image to come to its end within {PATIENCE_SECONDS:.0f} s. Received: none. "
            + ("; ".join(readiness.reasons) or "The decoder processes do nothing, or are lost again and again.")
        )


_walkers: dict[str, Walker] = {}  # of this worker: one, unless the configuration has changed


def walker(settings: Settings) -> Walker:
    """The one of this process; made at its first task."""
    key = f"{settings.file}\0{settings.model_dump_json()}"
    if key not in _walkers:
        main = sys.modules["__main__"]  # PySpark's own, which the decoders would import as theirs
        main.__spec__ = None
        main.__dict__.pop("__file__", None)
        limit_threads(settings.inference.threads)  # before any model runs
        logging.basicConfig(level=logging.WARNING, handlers=[log_handler()])
        for other in _walkers.values():
            other.close()
        _walkers.clear()
        _walkers[key] = Walker(settings)
    return _walkers[key]
