"""stream.py: why a query failed, in a sentence."""

import pytest

pytest.importorskip("pyspark")

from daemon.cluster.stream import sentence

SPARK = """[STREAM_FAILED] Query [id = 1, runId = 2] terminated: Job aborted due to stage failure
Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2844)
"""
OURS = """org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "worker.py", line 2085, in main
daemon.cluster.walk.Stuck: expected an image to come to its end in time. Received: none. results: No space left

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
"""


@pytest.mark.parametrize(("text", "says"), [
    (SPARK, "[STREAM_FAILED] Query [id = 1, runId = 2] terminated: Job aborted due to stage failure"),
    (SPARK + OURS, "Stuck: expected an image to come to its end in time. Received: none. results: No space left"),
    ("", "''"),
])  # fmt: skip
def test_a_failure_is_told_in_a_sentence(text: str, says: str) -> None:
    """Our own, where there is one; else the first of Spark's."""
    assert says == sentence(text)
