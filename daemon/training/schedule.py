"""When a training is due by the clock. Pure: every moment is handed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from daemon.config import ConfigError, RetrainSettings

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # crontab(5): 0 is Sunday, and so is 7
_DAY = f"[0-7]|{'|'.join(_WEEKDAYS)}"
_ITEM = re.compile(rf"(?:(?P<all>\*)|(?P<first>{_DAY})(?:-(?P<last>{_DAY}))?)(?:/(?P<step>[1-7]))?")


class Schedule:
    """What `[retrain] cron` or `interval_hours` says.

    Args:
        settings: with at most one of the two.

    Raises:
        ConfigError: cron is no crontab expression, or names no moment at all, or there is an interval as well.

    """

    def __init__(self, settings: RetrainSettings) -> None:
        self._interval = settings.interval_hours * 3600
        if self._interval and settings.cron:
            raise ConfigError(
                f'[retrain] interval_hours: expected cron = "" beside an interval. Received: cron = {settings.cron!r}.'
            )
        try:
            self._triggers = _triggers(settings.cron) if settings.cron else []
        except ValueError as error:
            raise ConfigError(
                "[retrain] cron: expected five fields as in crontab(5): minute hour day month weekday, such as "
                f"'0 3 * * *'. Received: {settings.cron!r}: {error}."
            ) from error

    def next_after(self, moment: float) -> float | None:
        """The first training after a moment, both in seconds since the epoch; None for never."""
        if self._interval:
            return moment + self._interval
        wall = datetime.fromtimestamp(moment, UTC).astimezone().replace(tzinfo=UTC, fold=0)
        while found := [time for trigger in self._triggers if (time := trigger.get_next_fire_time(wall, wall))]:
            wall = min(found)
            next_ = wall.replace(tzinfo=None).timestamp()
            if next_ > moment:  # else it is the first of two hours that are called the same, and this is the second
                return next_
        return None


def _triggers(cron: str) -> list[BaseTrigger]:
    """As crontab(5) has it: where day and weekday are both given, either will do.

    They go by what a clock on the wall shows, called UTC: given a zone, APScheduler finds moments that are over when summer
    time ends, again and again for an hour.
    """
    fields = cron.lower().split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)}")
    minute, hour, day, month, weekday = fields
    either = [(day, "*"), ("*", weekday)] if not day.startswith("*") and not weekday.startswith("*") else [(day, weekday)]
    triggers = [
        CronTrigger(minute=minute, hour=hour, day=day_, month=month, day_of_week=_weekdays(weekday_), timezone=UTC)
        for day_, weekday_ in either
    ]
    leap_year = datetime(2000, 1, 1, tzinfo=UTC)  # whatever day there is in any year is there from here on
    if not any(trigger.get_next_fire_time(None, leap_year) for trigger in triggers):
        raise ValueError("there is no such day")
    return triggers


def _weekdays(field: str) -> str:
    """Translate a crontab's weekdays, counted from Sunday, into APScheduler's, which it counts from Monday."""
    chosen: set[int] = set()
    for item in field.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!r} is no weekday")
        step = int(match["step"] or 1)
        if match["all"]:
            first, last = 0, 6
        else:
            first = _number(match["first"])
            last = _number(match["last"]) if match["last"] else 6 if match["step"] else first
            if last == 0 < first:
                last = 7  # Sunday ends the week as well
        if last < first:
            raise ValueError(f"{item!r} ends before it begins")
        chosen.update(number % 7 for number in range(first, last + 1, step))
    return ",".join(sorted(_WEEKDAYS[number] for number in chosen))


def _number(weekday: str) -> int:
    return _WEEKDAYS.index(weekday) if weekday in _WEEKDAYS else int(weekday)
