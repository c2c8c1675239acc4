"""The last hour of a daemon's metrics, kept in memory: a look every few seconds, and what charts are made of."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from daemon.telemetry.asking import ask, value_of
from daemon.telemetry.samples import Samples
from daemon.web.charts import Chart, chart

LOOK_SECONDS = 5.0
MINUTES = 60
BUCKET = "digitd_image_seconds_bucket"
QUANTILES = {"half of them": 0.5, "95 of 100": 0.95}


OUTCOMES = ("accepted", "review", "rejected")


@dataclass(frozen=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at: in seconds since the epoch.
        answered: answers and rejections since the daemon's start, by outcome.
        waiting: files in the inbox and in work/.
        memory: of the main process, in bytes.
        seconds: (upper limit, how many were answered within it) since the daemon's start.

    """

    at: float
    answered: dict[str, float]
    waiting: float
    memory: float
    seconds: tuple[tuple[float, float], ...]


Steps = list[tuple[Look, Look]]  # of one minute: a look and the one after it


class LastHour:
    """Looks at a daemon, and remembers.

    Args:
        presence: where it announces itself.

    Attributes:
        status: what was found last, as `asking.read_status` gives it.
        samples: all that /metrics said then.
        looks: the last hour's, oldest first; bounded.

    """

    def __init__(self, presence: Path) -> None:
        self._presence = presence
        self.status: dict[str, Any] = {"running": False}
        self.samples: Samples = {}
        self.looks: deque[Look] = deque(maxlen=int(MINUTES * 60 / LOOK_SECONDS))

    def run_once(self) -> None:
        """Look once."""
        try:
            self.status, self.samples = ask(self._presence)
        except (PermissionError, ValueError) as error:  # what it says is none of ours
            self.status, self.samples = {"running": False, "reasons": [str(error)]}, {}
        if self.samples:
            self.looks.append(look(self.samples, time.time()))

    def charts(self, now: float) -> list[Chart]:
        """What happened in each of the last 60 minutes."""
        return draw(list(self.looks), now)


def look(samples: Samples, now: float) -> Look:
    """What is kept of a page of metrics."""
    answered = {dict(labels)["outcome"]: value for labels, value in samples.get("digitd_images_total", {}).items()}
    waiting = sum(value_of(samples, "digitd_backlog_images", folder=folder) for folder in ("inbox", "work"))
    buckets = sorted((float(dict(labels)["le"]), count) for labels, count in samples.get(BUCKET, {}).items())
    return Look(now, answered, waiting, value_of(samples, "process_resident_memory_bytes"), tuple(buckets))


def draw(looks: Sequence[Look], now: float) -> list[Chart]:
    """Charts of the 60 minutes before a moment; a minute that nobody looked at is left empty."""
    first = int(now // 60) - MINUTES + 1
    minutes: list[Steps] = [[] for _ in range(MINUTES)]
    for before, after in pairwise(looks):
        minute = int(after.at // 60) - first
        if 0 <= minute < MINUTES and after.at - before.at < 4 * LOOK_SECONDS:
            minutes[minute].append((before, after))

    def by_minute(value: Callable[[Steps], float | None]) -> list[float | None]:
        return [value(steps) if steps else None for steps in minutes]

    columns = [
        datetime.fromtimestamp((first + minute) * 60).astimezone().strftime("%H:%M") if minute % 15 == 14 else ""
        for minute in range(MINUTES)
    ]
    answered = {outcome: by_minute(partial(_answered, outcome=outcome)) for outcome in OUTCOMES}
    total = by_minute(lambda steps: sum(_answered(steps, outcome) for outcome in OUTCOMES))
    seconds = {name: by_minute(partial(_quantile, share=share)) for name, share in QUANTILES.items()}
    waiting = by_minute(lambda steps: max(after.waiting for _, after in steps))
    memory = by_minute(lambda steps: steps[-1][1].memory / 1e6)
    drawn: list[tuple[str, list[float | None], dict[str, list[float | None]], Callable[[float], str]]] = [
        ("Answers a minute", total, answered, _count),
        ("Time to the answer", seconds["95 of 100"], seconds, _seconds),
        ("Files that wait", waiting, {"": waiting}, _count),
        ("Memory of the main process", memory, {"": memory}, _megabytes),
    ]
    return [
        chart(title, _summary(title, summed, as_text), lines, columns, as_text) for title, summed, lines, as_text in drawn
    ]


def _answered(steps: Steps, outcome: str) -> float:
    return sum(_grown(before.answered.get(outcome, 0.0), after.answered.get(outcome, 0.0)) for before, after in steps)


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after  # it was started anew


def _quantile(steps: Steps, share: float) -> float | None:
    """As Prometheus' histogram_quantile has it: within a bucket, evenly; None where nothing was answered."""
    counts: dict[float, float] = {}
    for before, after in steps:
        earlier = dict(before.seconds)
        for limit, count in after.seconds:
            counts[limit] = counts.get(limit, 0.0) + _grown(earlier.get(limit, 0.0), count)
    limits = sorted(counts)
    if not limits or not counts[limits[-1]]:
        return None
    wanted, low, below = share * counts[limits[-1]], 0.0, 0.0
    for limit in limits:
        if counts[limit] >= wanted:
            if limit == float("inf"):
                return low
            return low + (limit - low) * (wanted - below) / ((counts[limit] - below) or 1.0)
        low, below = limit, counts[limit]
    return low


def _summary(what: str, values: Sequence[float | None], as_text: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{what} in the last hour: nothing to show yet."
    return f"{what} in the last hour: {as_text(known[-1])} in the latest minute, at most {as_text(max(known))}."


def _count(value: float) -> str:
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:g}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _megabytes(value: float) -> str:
    return f"{value:.0f} MB"
