"""Lines and bands over time or epochs, as the geometry of an SVG: a template draws them, the style sheet colours them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

WIDTH, HEIGHT = 340, 150  # of the picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 22  # beside what is drawn: for the numbers
TICKS = 4  # steps of the scale, at most about
Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend; "" for none.
        path: of an SVG.
        dots: where a value has no neighbour, so that no line shows it.

    """

    name: str
    path: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: of what.
        summary: what it says, in words.
        lines: at most three.
        rows, columns: where the scales' lines are, and their numbers.

    """

    title: str
    summary: str
    lines: list[Line]
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str,
    summary: str,
    lines: Mapping[str, Values],
    columns: Sequence[str],
    as_text: Callable[[float], str],
    from_zero: bool = True,
) -> Chart:
    """Draw lines over the same columns.

    Args:
        title: of what.
        summary: what it says, in words.
        lines: their values by name; None where there is none.
        columns: what stands below each value; "" for nothing.
        as_text: how a number of the scale is written.
        from_zero: whether the scale begins at 0.

    """
    known = [value for values in lines.values() for value in values if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    steps = scale(0.0 if from_zero else low, high)
    bottom, span = steps[0], (steps[-1] - steps[0]) or 1.0

    def x(index: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (index / (len(columns) - 1) if len(columns) > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - bottom) / span, 1)

    return Chart(
        title,
        summary,
        [_line(name, values, x, y) for name, values in lines.items()],
        [(y(step), as_text(step)) for step in steps],
        [(x(index), text) for index, text in enumerate(columns) if text],
    )


def _line(name: str, values: Values, x: Callable[[int], float], y: Callable[[float], float]) -> Line:
    path, dots, run = [], [], []
    for index, value in [*enumerate(values), (len(values), None)]:
        if value is not None and math.isfinite(value):
            run.append((x(index), y(value)))
            continue
        if len(run) == 1:
            dots += run
        elif run:
            path.append("M" + "L".join(f"{a} {b}" for a, b in run))
        run = []
    return Line(name, "".join(path), dots)


def scale(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Span:
    """What was so from one moment to another, in seconds since the epoch; `ended` is None where it is so still."""

    name: str
    began: float
    ended: float | None


@dataclass(frozen=True)
class Band:
    """Spans one after the other.

    Attributes:
        parts: each span, where it begins, how wide it is, and which of the two shades it has.
        columns: where the scale's lines are, and their dates.

    """

    width: int
    height: int = 64
    parts: list[tuple[Span, float, float, int]] = field(default_factory=list)
    columns: list[tuple[float, str]] = field(default_factory=list)


def band(spans: list[Span], now: float, width: int) -> Band:
    """Draw spans from the first one's beginning to now."""
    drawn = Band(width)
    if not spans:
        return drawn
    began = spans[0].began
    whole = max(now - began, 1.0)

    def x(moment: float) -> float:
        return round(drawn.width * (moment - began) / whole, 1)

    for number, span in enumerate(spans):
        start, end = x(span.began), x(span.ended or now)
        drawn.parts.append((span, start, max(1.0, round(end - start, 1)), number % 2))
    days = whole / 86400
    form = "%H:%M:%S" if days < 0.02 else "%H:%M" if days < 1 else "%d %b" if days < 300 else "%b %Y"
    marks = width // 120
    for step in range(1, marks):
        moment = began + whole * step / marks
        drawn.columns.append((x(moment), datetime.fromtimestamp(moment).astimezone().strftime(form)))
    return drawn
