"""executors.py: nobody runs the tasks any more."""

import pytest

pytest.importorskip("pyspark")

from pyspark import StatusTracker

from daemon.cluster.executors import LOST_SECONDS, TOLD_SECONDS, Executors
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

DRIVER, EXECUTOR = "the driver", "an executor"


class Tracker(StatusTracker):
    """What Spark would say."""

    def __init__(self, stages: list[int], infos: list[str]) -> None:
        self.stages, self.infos = stages, infos

    def getActiveStageIds(self) -> list[int]:  # noqa: N802  # Spark's name, as of the next
        return self.stages

    def getExecutorInfos(self) -> list[str]:  # type: ignore[override]  # noqa: N802
        return self.infos


@pytest.fixture
def readiness() -> Readiness:
    """One that is ready."""
    readiness = Readiness(Metrics())
    readiness.report("start", None)
    return readiness


def test_none_for_a_while_is_told_and_then_the_end(readiness: Readiness) -> None:
    """A standalone master that came back serves a new driver, and not this one."""
    tracker = Tracker([7], [DRIVER])
    executors = Executors(tracker, "spark://host:7077", readiness)
    assert not executors.are_lost(100.0)
    assert not readiness.is_held("executors")
    assert not executors.are_lost(100.0 + TOLD_SECONDS)
    assert "Received: none from spark://host:7077" in readiness.reasons[0]
    assert executors.are_lost(100.0 + LOST_SECONDS)


@pytest.mark.parametrize(("stages", "infos"), [([7], [DRIVER, EXECUTOR]), ([], [DRIVER])])
def test_one_that_comes_or_nothing_to_do_begins_anew(readiness: Readiness, stages: list[int], infos: list[str]) -> None:
    """Executors may go while there is nothing for them, and others come."""
    tracker = Tracker([7], [DRIVER])
    executors = Executors(tracker, "spark://host:7077", readiness)
    executors.are_lost(100.0)
    executors.are_lost(100.0 + TOLD_SECONDS)
    tracker.stages, tracker.infos = stages, infos
    assert not executors.are_lost(100.0 + LOST_SECONDS)
    assert not readiness.is_held("executors")
    tracker.stages, tracker.infos = [7], [DRIVER]
    assert not executors.are_lost(101.0 + LOST_SECONDS)
    assert not executors.are_lost(100.0 + 2 * LOST_SECONDS)


@pytest.mark.parametrize("master", ["yarn", "k8s://https://host:6443"])
def test_who_stands_in_a_queue_waits(readiness: Readiness, master: str) -> None:
    """Those who run it elsewhere lose their place when the application ends."""
    executors = Executors(Tracker([7], [DRIVER]), master, readiness)
    assert not executors.are_lost(100.0)
    assert not executors.are_lost(100.0 + 10 * LOST_SECONDS)
    assert readiness.is_held("executors")


def test_before_the_first_batch_it_only_waits(readiness: Readiness) -> None:
    """A cluster that has no room yet is told, and waited for."""
    readiness.report("start", "loading")
    executors = Executors(Tracker([7], [DRIVER]), "spark://host:7077", readiness)
    assert not executors.are_lost(100.0)
    assert not executors.are_lost(100.0 + LOST_SECONDS)
    assert readiness.is_held("executors")


def test_here_the_driver_runs_them(readiness: Readiness) -> None:
    """`local` has no executors besides."""
    executors = Executors(Tracker([7], [DRIVER]), "local[2,4]", readiness)
    executors.are_lost(100.0)
    assert not executors.are_lost(100.0 + LOST_SECONDS)
    assert not readiness.is_held("executors")
