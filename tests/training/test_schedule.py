"""schedule.py: when a training is due, as crontab(5) has it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from daemon.config import ConfigError, RetrainSettings
from daemon.training.schedule import Schedule

SUNDAY = datetime(2026, 11, 1)  # noqa: DTZ001 -- [retrain] cron is local time
NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def days(cron: str, count: int = 7) -> list[datetime]:
    """On which of so many days from a Sunday on it is due."""
    schedule = Schedule(RetrainSettings(cron=cron))
    moment, found = (SUNDAY - timedelta(seconds=1)).timestamp(), []
    while (next_ := schedule.next_after(moment)) is not None and next_ < (SUNDAY + timedelta(days=count)).timestamp():
        found.append(datetime.fromtimestamp(next_))  # noqa: DTZ006
        moment = next_
    return found


@pytest.mark.parametrize(
    ("weekday", "expected"),
    [
        ("0", "sun"),
        ("7", "sun"),
        ("1", "mon"),
        ("sun", "sun"),
        ("Wed", "wed"),
        ("1-5", "mon tue wed thu fri"),
        ("5-7", "sun fri sat"),
        ("0-7", "sun mon tue wed thu fri sat"),
        ("0-0", "sun"),
        ("6,0", "sun sat"),
        ("sat,sun", "sun sat"),
        ("fri-sun", "sun fri sat"),
        ("mon-fri", "mon tue wed thu fri"),
        ("*", "sun mon tue wed thu fri sat"),
        ("*/2", "sun tue thu sat"),
        ("1-5/2", "mon wed fri"),
        ("1,3-4,sat", "mon wed thu sat"),
    ],
)
def test_weekdays_are_crontabs(weekday: str, expected: str) -> None:
    """0 and 7 are Sunday; names, ranges, steps and lists mean what they mean in a crontab."""
    found = days(f"30 3 * * {weekday}")
    assert [NAMES[(moment.weekday() + 1) % 7] for moment in found] == expected.split()
    assert {(moment.hour, moment.minute) for moment in found} == {(3, 30)}


def test_a_day_and_a_weekday_are_either_of_the_two() -> None:
    """As in a crontab: on the 3rd, and on Fridays; but with a star in one of them both must hold."""
    assert [moment.day for moment in days("0 3 3 * 5", 14)] == [3, 6, 13]
    assert [moment.day for moment in days("0 3 */2 * 1", 14)] == [9]


def test_an_interval_counts_from_the_last_training() -> None:
    """Not from the start of the daemon."""
    schedule = Schedule(RetrainSettings(cron="", interval_hours=2.0))
    assert schedule.next_after(1_000.0) == 8_200.0
    assert Schedule(RetrainSettings(cron="")).next_after(1_000.0) is None


@pytest.mark.parametrize(
    "cron",
    [
        "every day",
        "0 3 * *",
        "0 3 * * 8",
        "0 3 * * 5-2",
        "0 3 * * 1-",
        "0 3 * * */0",
        "60 3 * * *",
        "0 24 * * *",
        "0 3 31 2 *",
        "0 3 * 13 *",
        "@daily",
    ],
)
def test_what_is_no_crontab_is_refused(cron: str) -> None:
    """Wrong fields, and a day that never comes, are refused with what was received."""
    with pytest.raises(ConfigError, match=r"\[retrain\] cron: expected five fields"):
        Schedule(RetrainSettings(cron=cron))


def test_an_interval_beside_a_cron_is_refused() -> None:
    """One of the two it must be."""
    with pytest.raises(ConfigError, match='expected cron = ""'):
        Schedule(RetrainSettings(interval_hours=2.0))


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    """A machine in Berlin: in 2026 summer time is from 29 March, 2:00, to 25 October, 3:00."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield ZoneInfo("Europe/Berlin")
    time.tzset()


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        ("30 2 * * *", "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"]),
        ("0 * * * *", "2026-10-25T01:30+02:00", ["2026-10-25T02:00+02:00", "2026-10-25T03:00+01:00"]),
        ("30 2 * * *", "2026-03-28T12:00+01:00", ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]),
        ("0 3 * * 0", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-04-05T03:00+02:00"]),
    ],
)
def test_no_night_is_left_out_or_comes_twice(berlin: ZoneInfo, cron: str, start: str, expected: list[str]) -> None:
    """An hour that comes twice is due in the first of the two; one that is skipped, right after it; always in the future."""
    schedule, moment = Schedule(RetrainSettings(cron=cron)), datetime.fromisoformat(start).timestamp()
    for moment_expected in expected:
        next_ = schedule.next_after(moment)
        assert next_ is not None
        assert datetime.fromtimestamp(next_, berlin).isoformat(timespec="minutes") == moment_expected
        moment = next_
