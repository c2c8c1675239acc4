"""Spark as the stream wants it: what was measured to pay, as defaults, and what `[stream] spark` says before them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from daemon.answering.root import StartError
from daemon.config import StreamSettings

# Compiling with C1 alone and collecting in one thread: of work that takes no time in the JVM, less is spent on preparing it.
LOG = Path(__file__).with_name("log4j2.properties")
JVM = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.configurationFile=file:{LOG}"
TUNED = {
    "spark.app.name": "digitd",
    "spark.driver.extraJavaOptions": JVM,
    "spark.executor.extraJavaOptions": JVM,
    "spark.executorEnv.PYTHONSAFEPATH": "1",
    "spark.sql.streaming.minBatchesToRetain": "10",  # files in the checkpoint
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    "spark.sql.adaptive.enabled": "false",  # streams do without, and say so
    "spark.sql.shuffle.partitions": "1",
    "spark.task.maxFailures": "8",  # of a cluster; local[N,F] has its own
    "spark.locality.wait": "0",  # the folders are everywhere
    "spark.ui.enabled": "false",  # it would listen on all addresses; `[stream] spark` can have it
    "spark.ui.showConsoleProgress": "false",
}


def start_spark(settings: StreamSettings, master: str) -> SparkSession:
    """Start Spark, or take up what `spark-submit` started.

    Args:
        settings: `[stream]`.
        master: where it runs; "" leaves it to `spark-submit`.

    Raises:
        StartError: it cannot start; the message says why.

    """
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise StartError(
            "digitd stream: expected Java 17 or newer, which Spark runs on. Received: no `java`. On Debian and Ubuntu: "
            "apt install openjdk-17-jre-headless."
        )
    python = Path(sys.executable).with_name("digitd-python")
    os.environ.setdefault("PYSPARK_PYTHON", str(python if python.exists() else sys.executable))
    chosen = dict(TUNED)
    if master:
        chosen["spark.master"] = master
        if master.startswith("local"):
            chosen["spark.driver.host"] = chosen["spark.driver.bindAddress"] = "127.0.0.1"
            chosen["spark.authenticate"] = "true"  # else whoever is on this machine could send the driver what it runs
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    for one in settings.spark:
        key, _, chosen[key] = one.partition("=")
    builder = SparkSession.builder
    for key, value in chosen.items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # PySpark and py4j raise what they like
        raise StartError(f"digitd stream: expected Spark to start on {master}. Received: {first_line(error)}") from error


def first_line(error: object) -> str:
    """What an error of Spark's says, without its pages of where."""
    text = str(error).strip()
    return text.splitlines()[0] if text else repr(error)
