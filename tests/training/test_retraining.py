"""retraining.py: when a training is started, without any process and with every moment handed in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.config import ConfigError, Settings
from daemon.index.writer import Index
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import Registry
from daemon.telemetry.metrics import Metrics
from daemon.training.candidates import Candidates, Run
from daemon.training.correction_watch import CorrectionWatch
from daemon.training.labels import write_learnt
from daemon.training.retraining import FAILED_SECONDS, PAUSE_SECONDS, Retraining
from daemon.training.seen import read_labels
from tests.conftest import Digits
from tests.training.test_corrections import put

NOON = datetime(2026, 11, 23, 12).timestamp()  # noqa: DTZ001 -- a Monday, by the local clock that cron goes by
NIGHT = NOON + 15 * 3600  # 03:00, the default schedule's next
DAY = 86_400.0


class Trainings(Candidates):
    """Trainings that end as they are told to, and are only written down."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        super().__init__(settings, registry)
        self.registry = registry
        self.began: list[tuple[str, float]] = []
        self.result: str | Exception = "refused"

    def run(self, why: str, began: float, **_: Any) -> Run:
        """What the real one writes down, without the training."""
        self.began.append((why, began))
        if isinstance(self.result, Exception):
            raise self.result
        if self.result != "nothing_to_learn":
            self.registry.ledger.record(self.result, "v0002", "so it was told", why=why, began=began)
        if self.result not in ("stopped", "failed"):
            write_learnt(self.settings, read_labels(self.settings, time.time()))
        return Run(self.result, "v0002", "so it was told")


class Daemon:
    """What of the daemon decides about trainings; time goes by as it is told."""

    def __init__(self, settings: Settings, now: float = NOON) -> None:
        self.settings, self.now, self.steady = settings, now, 0.0
        self.registry = Registry(settings.folder("models"))
        self.registry.ledger.record("live", "v0001", "the daemon started", time=now)
        self.trainings = Trainings(settings, self.registry)
        self.metrics = Metrics()
        self.corrections = CorrectionWatch(settings, self.metrics, Index(settings.index, self.metrics))
        self.retraining = Retraining(settings, self.registry, self.corrections, self.trainings, self.metrics)

    def wait(self, seconds: float = 0.0) -> list[str]:
        """Let time go by, then make two passes; what started trainings in them."""
        self.steady += seconds
        return self.set_clock(self.now + seconds)

    def set_clock(self, now: float) -> list[str]:
        """Make two passes at another time, as after a suspend, or after somebody set the clock."""
        self.now = now
        started = len(self.trainings.began)
        for _ in range(2):
            self.steady += 6
            self.now += 6
            self.corrections.run_once(self.now, self.steady)
            self.retraining.run_once(self.now, self.steady)
        return [why for why, _ in self.trainings.began[started:]]

    def restart(self, result: str | Exception = "refused") -> Daemon:
        """The daemon that comes after this one."""
        daemon = Daemon(self.settings, self.now)
        daemon.trainings.result = result
        return daemon


@pytest.fixture
def daemon(settings: Settings) -> Daemon:
    """One that was started for the first time, at noon."""
    return Daemon(settings)


@pytest.fixture
def correct(settings: Settings, digits: Digits) -> Callable[[int], None]:
    """Labels so many images more."""
    labelled = 0

    def label(count: int) -> None:
        nonlocal labelled
        for number in range(labelled, labelled + count):
            put(settings.folder("corrections"), digits.labels[number], f"{number}.png", digits.png(number))
        labelled += count

    return label


def test_while_all_versions_are_gone_nobody_takes_the_place_of_what_answers(daemon: Daemon, tmp_path: Path) -> None:
    """As while their disk is not mounted: the first version of an empty folder is promoted unjudged. It is made up for."""
    assert daemon.wait() == []
    gone = daemon.registry.folder.rename(tmp_path / "gone")
    daemon.registry.folder.mkdir()
    assert daemon.wait(16 * 3600) == []
    shutil.rmtree(daemon.registry.folder)
    gone.rename(daemon.registry.folder)
    assert daemon.wait(PAUSE_SECONDS) == ["scheduled"]


def test_it_trains_when_the_clock_says_so(daemon: Daemon) -> None:
    """Once a night, at three; the metric says when the next one is."""
    assert daemon.wait(14 * 3600) == []
    assert daemon.metrics.registry.get_sample_value("digitd_training_next_run_timestamp_seconds") == NIGHT
    assert daemon.wait(3600) == ["scheduled"]
    assert daemon.wait(20 * 3600) == []
    assert daemon.metrics.registry.get_sample_value("digitd_training_next_run_timestamp_seconds") == NIGHT + DAY
    assert daemon.wait(4 * 3600) == ["scheduled"]


def test_a_machine_that_is_off_at_night_trains_in_the_morning(daemon: Daemon) -> None:
    """What fell into the time without a daemon is made up for, also before there ever was a training, and only once."""
    assert daemon.wait(3600) == []
    morning = Daemon(daemon.settings, NOON + 20 * 3600)
    assert morning.wait() == ["scheduled"]
    assert morning.restart().wait() == []
    late = Daemon(daemon.settings, NOON + 5 * DAY)
    assert late.wait() == ["scheduled"]


def test_a_suspend_over_the_time_does_not_drop_the_training(daemon: Daemon) -> None:
    """The wall clock jumps over three o'clock, the other one stood still: it is due."""
    assert daemon.wait() == []
    assert daemon.set_clock(NOON + 20 * 3600) == ["scheduled"]


def test_an_interval_goes_on_over_restarts(daemon: Daemon) -> None:
    """Every 24 hours, from the last training on, however often the daemon starts."""
    every_day = daemon.settings.model_copy(
        update={"retrain": daemon.settings.retrain.model_copy(update={"cron": "", "interval_hours": 24.0})}
    )
    every_day.read_from(daemon.settings.file)
    running = Daemon(every_day)
    assert running.wait(25 * 3600) == ["scheduled"]
    for _ in range(3):
        running = running.restart()
        assert running.wait(6 * 3600) == []
    assert running.restart().wait(7 * 3600) == ["scheduled"]


def test_a_clock_that_was_wrong_for_a_moment_costs_at_most_one_training(
    daemon: Daemon, correct: Callable[[int], None]
) -> None:
    """A moment in 2040, noted for ever, keeps neither the next nights nor corrections from being learnt."""
    assert daemon.set_clock(NOON + 5_000 * DAY) == ["scheduled"]
    assert daemon.set_clock(NOON) == []
    correct(50)
    assert daemon.wait(30) == []
    assert daemon.wait(60) == ["corrections"]
    assert daemon.restart().wait(15 * 3600) == ["scheduled"]


def test_a_training_in_the_future_does_not_hide_the_ones_before_it(daemon: Daemon) -> None:
    """A machine that is off at night makes up for each, whatever a wrong clock once wrote into the ledger."""
    daemon.registry.ledger.record("refused", "v0002", "in 2040", began=NOON + 5_000 * DAY)
    assert daemon.wait() == []
    for day in (1, 2, 3):
        assert Daemon(daemon.settings, NOON + day * DAY).wait() == ["scheduled"]


def test_a_clock_that_is_set_back_does_not_hold_trainings_up(daemon: Daemon) -> None:
    """A week back: the next night is the next night of the clock that holds now."""
    assert daemon.wait(16 * 3600) == ["scheduled"]
    assert daemon.set_clock(NOON - 7 * DAY) == []
    assert daemon.set_clock(NIGHT - 7 * DAY) == ["scheduled"]


def test_enough_corrections_start_a_training_once_it_is_quiet(daemon: Daemon, correct: Callable[[int], None]) -> None:
    """50 new ones, none of them in the last minute, and not again until 50 others have come."""
    correct(49)
    assert daemon.wait(600) == []
    correct(1)
    assert daemon.wait(10) == []
    assert daemon.wait(60) == ["corrections"]
    correct(49)
    assert daemon.wait(600) == []
    correct(1)
    assert [daemon.wait(10), daemon.wait(60)] == [[], ["corrections"]]


def test_labels_that_are_moved_there_and_back_are_new_each_time(daemon: Daemon, correct: Callable[[int], None]) -> None:
    """What counts is what the last training looked at, not what any ever did."""
    folder = daemon.settings.folder("corrections")
    daemon.trainings.result = "refused"
    correct(60)
    assert [daemon.wait(10), daemon.wait(60)] == [[], ["corrections"]]
    there = [
        (path, put(folder, 9 - int(path.parent.name), f"moved-{path.name}", b"")) for path in sorted(folder.glob("?/*"))
    ]
    for path, moved in there:
        path.rename(moved)
    assert [daemon.wait(10), daemon.wait(60)] == [[], ["corrections"]]
    for path, moved in there:
        moved.rename(path)
    assert [daemon.wait(10), daemon.wait(60)] == [[], ["corrections"]]


def test_yesterdays_corrections_count_after_a_restart(daemon: Daemon, correct: Callable[[int], None]) -> None:
    """60 came, the machine was switched off before they were learnt: they are learnt when it is on again."""
    correct(60)
    assert daemon.wait(10) == []
    assert daemon.restart().wait(0) == ["corrections"]


@pytest.mark.parametrize("result", ["stopped", TrainingUnderWay("another one")])
def test_a_training_that_did_not_come_about_uses_nothing_up(
    daemon: Daemon, correct: Callable[[int], None], result: str | Exception
) -> None:
    """Stopped, or met by another: both clock and corrections ask again after a pause, and after a restart at once."""
    daemon.trainings.result = result
    correct(60)
    assert [daemon.wait(10), daemon.wait(60), daemon.wait(10)] == [[], ["corrections"], []]
    assert daemon.wait(PAUSE_SECONDS) == ["corrections"]
    assert daemon.wait(15 * 3600) == ["scheduled"]
    assert daemon.restart().wait() == ["scheduled"]


@pytest.mark.parametrize("result", ["failed", "nothing_to_learn", "promoted", OSError("disk full")])
def test_a_training_that_came_to_an_end_is_not_begun_again(
    daemon: Daemon, correct: Callable[[int], None], result: str | Exception
) -> None:
    """Whatever its end, the same corrections and the same night do not start another."""
    daemon.trainings.result = result
    correct(60)
    assert [daemon.wait(10), daemon.wait(60), daemon.wait(3600)] == [[], ["corrections"], []]
    assert [daemon.wait(15 * 3600), daemon.wait(3600)] == [["scheduled"], []]


@pytest.mark.parametrize("result", ["failed", OSError("disk full")])
def test_corrections_whose_training_failed_ask_again_a_day_later(
    daemon: Daemon, correct: Callable[[int], None], result: str | Exception
) -> None:
    """Without a schedule 60 would else wait for 50 more, who may never come; after a restart they ask at once."""
    retrain = daemon.settings.retrain.model_copy(update={"cron": ""})
    daemon.settings = daemon.settings.model_copy(update={"retrain": retrain})
    daemon.retraining.apply(daemon.settings)
    daemon.trainings.result = result
    correct(60)
    assert [daemon.wait(10), daemon.wait(60), daemon.wait(FAILED_SECONDS - 60)] == [[], ["corrections"], []]
    assert [daemon.wait(60), daemon.wait(60)] == [["corrections"], []]
    correct(49)
    assert [daemon.wait(10), daemon.wait(60)] == [[], []]
    correct(1)
    assert [daemon.wait(10), daemon.wait(60)] == [[], ["corrections"]]
    assert [daemon.restart().wait(), daemon.restart().wait(10)] == [["corrections"], []]


def test_a_training_by_hand_counts(daemon: Daemon, correct: Callable[[int], None]) -> None:
    """What `digitd retrain` has learnt beside a running daemon does not start a training in it."""
    correct(60)
    assert daemon.wait(10) == []
    Trainings(daemon.settings, daemon.registry).run("by hand", daemon.now)
    assert daemon.wait(3600) == []


def test_a_wrong_schedule_changes_nothing(daemon: Daemon) -> None:
    """A reload with a cron that is none is refused as a whole, and the old schedule holds."""
    wrong = daemon.settings.retrain.model_copy(update={"cron": "soon", "after_corrections": 1})
    with pytest.raises(ConfigError, match="'soon'"):
        daemon.retraining.apply(daemon.settings.model_copy(update={"retrain": wrong}))
    assert daemon.retraining._settings is daemon.trainings.settings is daemon.settings
    assert daemon.wait(16 * 3600) == ["scheduled"]


def test_a_new_schedule_begins_now(daemon: Daemon) -> None:
    """Set to noon at four, the first training comes at noon tomorrow, and not at once."""
    assert daemon.wait(16 * 3600) == ["scheduled"]
    assert daemon.wait(12 * 3600) == []
    noon = daemon.settings.retrain.model_copy(update={"cron": "0 12 * * *"})
    daemon.retraining.apply(daemon.settings.model_copy(update={"retrain": noon}))
    assert daemon.wait() == []
    assert daemon.wait(20 * 3600) == ["scheduled"]


def test_a_new_schedule_that_comes_while_a_training_runs_begins_at_its_end(daemon: Daemon) -> None:
    """Set to half past three during one from three to four, the next training comes at half past three tomorrow."""
    later = daemon.settings.retrain.model_copy(update={"cron": "30 3 * * *"})
    train = daemon.trainings.run

    def run(why: str, began: float, **facts: Any) -> Run:
        daemon.trainings.run = train  # type: ignore[method-assign]
        daemon.retraining.apply(daemon.settings.model_copy(update={"retrain": later}))
        daemon.now += 3600
        return train(why, began, **facts)

    daemon.trainings.run = run  # type: ignore[method-assign]
    assert daemon.wait(15 * 3600) == ["scheduled"]
    assert daemon.wait(23 * 3600) == []
    assert daemon.wait(3600) == ["scheduled"]


def test_what_else_changes_about_trainings_begins_no_schedule_anew(daemon: Daemon) -> None:
    """A night that is due stays due where only the number of corrections is another one."""
    assert daemon.wait() == []
    daemon.now += 20 * 3600
    fewer = daemon.settings.retrain.model_copy(update={"after_corrections": 20})
    daemon.retraining.apply(daemon.settings.model_copy(update={"retrain": fewer}))
    assert daemon.wait() == ["scheduled"]


def test_a_first_start_in_the_future_does_not_hide_the_others(daemon: Daemon) -> None:
    """Where the clock was wrong when the first daemon started, the first start after it counts."""
    ledger = daemon.settings.folder("models") / "ledger.jsonl"
    ledger.unlink()
    daemon.registry.ledger.record("live", "v0001", "in 2040", time=NOON + 5_000 * DAY)
    assert Daemon(daemon.settings, NOON).wait() == []
    assert Daemon(daemon.settings, NOON + DAY).wait() == ["scheduled"]


def test_closing_ends_the_training(daemon: Daemon) -> None:
    """A training that runs is told to stop."""
    assert not daemon.trainings.stop.is_set()
    daemon.retraining.close()
    assert daemon.trainings.stop.is_set()
