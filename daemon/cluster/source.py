"""The inbox as a streaming data source of Spark's: an offset is a numbered sweep, pinned to a model.

Spark makes one reader in a process beside the driver, for `latestOffset` and `partitions`, and sends others to the workers,
for `read`. So a reader holds nothing that cannot be sent until it is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadLimit
from pyspark.sql.types import StructType

from daemon.cluster.pin import Pin
from daemon.cluster.sweep import Sweep, Task
from daemon.config import STREAM, Settings
from daemon.models.version import ModelIdentity
from daemon.systemd import log_handler
from daemon.telemetry.tally import to_text

NAME, SCHEMA = "digitd", "counts string"  # one row a task: what its metrics have grown by
LOOK_SECONDS, WAIT_SECONDS = 0.1, 1.0  # between two looks, and until Spark is told that there is nothing
STOP = ".stop"  # in work/.stream/: while it is there, no batch begins

Offset = dict[str, Any]  # {"batch": 17, "version": "v0003", "sha256": …}


@dataclass
class Part(InputPartition):
    """What is sent to a worker: a task, and the model that it is pinned to."""

    task: Task
    identity: ModelIdentity


class InboxSource(DataSource):
    """Its options are `settings`, as JSON, `file`, where they were read from, and `slots`, how many tasks run at once."""

    @classmethod
    def name(cls) -> str:
        return NAME

    def schema(self) -> str:
        return SCHEMA

    def streamReader(self, schema: StructType) -> Reader:  # noqa: ARG002, N802  # Spark's names
        return Reader(self.options["settings"], self.options["file"], int(self.options["slots"]))


class Reader(DataSourceStreamReader):
    """See the module.

    Args:
        settings, file, slots: the options of the source.

    """

    def __init__(self, settings: str, file: str, slots: int) -> None:
        self._given = settings, file, slots
        self._planned: tuple[int, list[Task]] = 0, []

    def __reduce__(self) -> tuple[type[Reader], tuple[str, str, int]]:
        return type(self), self._given

    @cached_property
    def _settings(self) -> Settings:
        settings, file, _ = self._given
        return Settings.model_validate_json(settings).read_from(Path(file))

    @cached_property
    def _sweep(self) -> Sweep:
        logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
        return Sweep(self._settings, self._given[2])

    @cached_property
    def _pin(self) -> Pin:
        return Pin(self._settings.folder("models"))

    def initialOffset(self) -> Offset:  # noqa: N802
        """The number before the first batch; higher than any that left claims, for the checkpoint may have been deleted."""
        return _offset(self._sweep.highest(), self._pin.identity)

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:  # noqa: ARG002, N802
        """Sweep until there is something to do; the offset of a new batch, or `start` where there is nothing for a while.

        Spark would ask again and again, which costs the driver ten times what a look costs here.
        """
        number, until = int(start["batch"]) + 1, time.monotonic() + WAIT_SECONDS
        while not (self._settings.folder("work") / STREAM / STOP).exists():
            began = time.monotonic()
            if tasks := self._sweep.next(number, began):
                self._planned = number, tasks
                return _offset(number, self._pin.follow())
            self._sweep.rest(began, time.monotonic())
            if began > until:
                break
            time.sleep(LOOK_SECONDS)
        return start

    def partitions(self, start: Offset, end: Offset) -> list[Part]:
        """The tasks of the batch that ends there; of one that an earlier driver began, what it left."""
        if start == end:
            return []
        planned, tasks = self._planned
        if planned != int(end["batch"]):
            tasks = self._sweep.left_of(int(end["batch"]))
        identity = self._pin.usable(ModelIdentity(str(end["version"]), str(end["sha256"])))
        return [Part(task, identity) for task in tasks]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Do a task, in a worker."""
        from daemon.cluster.walk import walker  # imports TensorFlow

        assert isinstance(partition, Part)  # noqa: S101  # Spark gives back what `partitions` gave
        counts = walker(self._settings).walk(partition.task, partition.identity)
        yield pa.RecordBatch.from_arrays([pa.array([to_text(counts)], pa.string())], names=["counts"])


def _offset(number: int, identity: ModelIdentity) -> Offset:
    return {"batch": number, "version": identity.version, "sha256": identity.sha256}
