"""The stream as a whole: takes the root, starts Spark and the query, waits, stops."""

from __future__ import annotations

import logging
import os
import queue
import re
import signal
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from pyspark.sql import SparkSession, functions
from pyspark.sql.streaming.query import StreamingQuery

from daemon.answering.root import StartError, take_root
from daemon.cluster.executors import LOST_SECONDS, Executors
from daemon.cluster.session import first_line, start_spark
from daemon.cluster.source import NAME, STOP, InboxSource
from daemon.cluster.watching import COUNTS, OBSERVED, Listener, Watching
from daemon.config import PRESENCE, STREAM, Settings
from daemon.models.registry import Registry
from daemon.processes import running_seconds
from daemon.systemd import notify
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.presence import announce
from daemon.telemetry.readiness import Readiness
from daemon.telemetry.tally import Summed

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
FINISH_SECONDS = 10.0  # after SIGTERM, for the batch that runs; what it does not finish is done at the next start
STOP_SECONDS = 25.0  # after SIGTERM, for everything; less than the unit's TimeoutStopSec
OURS = ("Stuck", "RegistryError", "ModelError", "OSError")  # what our code raises where a task or a sweep cannot go on
PYTHON_ERROR = re.compile(r"^(?:\w+\.)*(\w+): (.+)$", re.MULTILINE)


class Stream:
    """One stream on one root.

    Args:
        settings: the configuration.
        master: where Spark runs; "" leaves it to `spark-submit`.

    """

    def __init__(self, settings: Settings, master: str) -> None:
        self._settings, self._master = settings, master
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._query: StreamingQuery | None = None

    def run(self) -> int:
        """Start, wait for SIGTERM or SIGINT, stop; a second one ends it at once.

        Returns:
            The exit code: 0, or 1 where the query failed or nobody runs its tasks any more.

        Raises:
            StartError: somebody else has this root, or folders, address or Spark cannot be used.
            RegistryError: there is no usable model.

        """
        settings = self._settings
        with ExitStack() as stack:
            take_root(settings, stack)
            stop = settings.folder("work") / STREAM / STOP
            stop.parent.mkdir(exist_ok=True)
            stop.unlink(missing_ok=True)
            metrics = Metrics()
            metrics.watch_disk(settings.root)
            metrics.registry = summed = Summed(metrics.registry)
            readiness = Readiness(metrics)
            try:
                http = HttpServer(settings.http, metrics, self._dead, lambda: readiness.reasons)
            except OSError as error:
                raise StartError(str(error.strerror or error)) from error
            threading.Thread(target=http.run, name="http", daemon=True).start()
            presence = announce(settings.folder("work") / PRESENCE, {"pid": os.getpid(), "address": http.address})
            stack.callback(os.close, presence)
            registry = Registry(settings.folder("models"))
            registry.settle(registry.current())
            watching = Watching(settings, metrics, summed, readiness)
            spark = start_spark(settings.stream, self._master)
            stack.callback(spark.stop)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)  # only now: PySpark has one of its own
            listener = Listener()
            spark.streams.addListener(listener)
            self._query = query = self._start_query(spark)
            context = spark.sparkContext
            executors = Executors(context.statusTracker(), context.master, readiness)
            log.info("metrics on http://%s/metrics; Spark %s on %s", http.address, spark.version, context.master)
            is_ready = False
            while query.isActive:
                if not is_ready and not readiness.is_held("start"):
                    is_ready = True
                    notify("READY=1")
                    log.info("watching %s; ready after %.1f s", settings.folder("inbox"), running_seconds())
                notify("WATCHDOG=1")
                self._tell(listener, watching)
                watching.survey(time.monotonic())
                if executors.are_lost(time.monotonic()):
                    log.error("the stream failed: %s has had no executor for it for %.0f s", context.master, LOST_SECONDS)
                    return 1
                with suppress(queue.Empty):
                    self._signals.get(timeout=HEARTBEAT_SECONDS)
                    self._finish(query, stop)
                    self._tell(listener, watching)
                    log.info("stopped")
                    return 0
            log.error("the stream failed: %s", sentence(str(query.exception())))
        return 1

    def _start_query(self, spark: SparkSession) -> StreamingQuery:
        settings = self._settings
        spark.dataSource.register(InboxSource)
        rows = spark.readStream.format(NAME).options(
            settings=settings.model_dump_json(), file=str(settings.file), slots=spark.sparkContext.defaultParallelism
        )
        observed = rows.load().observe(OBSERVED, functions.collect_list(COUNTS).alias(COUNTS))
        # What the tasks do to the folders is the sink; the rows only carry counts.
        return observed.writeStream.format("noop").option("checkpointLocation", str(settings.checkpoint)).start()

    def _tell(self, listener: Listener, watching: Watching) -> None:
        for _ in range(listener.batches.qsize()):
            watching.batch_done(*listener.batches.get_nowait())

    def _finish(self, query: StreamingQuery, stop: Path) -> None:
        """Let the batch that runs come to its end; begin no other."""
        notify("STOPPING=1")
        log.info("stopping")
        threading.Thread(target=self._see_to_the_end, name="end", daemon=True).start()
        stop.touch()
        deadline = time.monotonic() + FINISH_SECONDS
        while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
            time.sleep(0.05)
        query.stop()
        stop.unlink(missing_ok=True)

    def _see_to_the_end(self) -> None:
        why = "it was told so again"
        try:
            self._signals.get(timeout=STOP_SECONDS)
        except queue.Empty:
            why = f"stopping took more than {STOP_SECONDS:.0f} s"
        log.error("ends at once, %s. The next start does what is left", why)
        os._exit(1)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.put(number)

    def _dead(self) -> list[str]:
        return [] if self._query is None or self._query.isActive else ["the query has ended"]


def sentence(text: str) -> str:
    """Why a query failed: what our own code said, where it did, or the first line of what Spark says."""
    ours = [f"{name}: {said}" for name, said in PYTHON_ERROR.findall(text) if name in OURS]
    return ours[-1] if ours else first_line(text)
