"""The figures of `make bench` as bars: what README shows."""

from __future__ import annotations

import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Figures = dict[str, list[dict[str, float]]]

LIMIT = "limit, one core"
OURS, THEIRS, PARTS = "#6ba3d6", "#9aa3ad", ("#b7791f", "#d6a24a", "#ecd3a4")
SINGLE = {
    "single drops": "digitd",
    "single drops across swaps": "digitd, models swapped",
    "single drops while training": "digitd, training",
    "one bare predict_on_batch": "bare predict_on_batch",
}


def draw(figures: Figures, path: Path) -> None:
    """Draw the medians of all rounds.

    Args:
        figures: by name, one dictionary a round, as `benchmarks.speed` measures them.
        path: where to write; its ending says in which format.

    """
    bursts = {name: name.removeprefix("burst of ").replace("PNGs", "at once") for name in figures if name.endswith("PNGs")}
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    rate, cpu, single = figure.subplots(3, 1, height_ratios=(len(bursts) + 2, len(bursts) + 1, len(SINGLE)))

    rates = {f"digitd, {label}": _median(figures, name, "files/s") for name, label in bursts.items()}
    others = {name: _median(figures, name, "files/s") for name in figures if name.startswith("tutorial")}
    _bars(rate, rates | others, [OURS] * len(rates) + [THEIRS] * len(others))
    rate.set_xscale("log")
    rate.set_title("small PNGs a second (logarithmic)", loc="left")

    costs = {f"digitd, {label}": _median(figures, name, "us of CPU a file") for name, label in bursts.items()}
    parts = {part: _median(figures, LIMIT, f"us {part}") for part in ("decoding", "predicting", "of files")}
    _bars(cpu, costs | {"the work alone, in one process": sum(parts.values())}, [OURS] * len(costs) + [THEIRS])
    at = 0.0
    for (part, value), colour in zip(parts.items(), PARTS, strict=True):
        cpu.barh(len(costs), value, left=at, color=colour)
        cpu.text(at + value / 2, len(costs), part.removeprefix("of "), ha="center", va="center", fontsize="small")
        at += value
    cpu.set_title("CPU a small PNG, µs", loc="left")

    waits = {label: _median(figures, name, "p50 ms") for name, label in SINGLE.items()}
    _bars(single, waits, [OURS] * (len(waits) - 1) + [THEIRS], "center")
    for row, name in enumerate(SINGLE):
        late = _median(figures, name, "p99 ms")
        single.plot([waits[SINGLE[name]], late], [row, row], color="black", linewidth=1)
        single.plot(late, row, "|", color="black", markersize=10)
    single.set_title("a single drop until its answer, ms: half of them (bar), 99 of 100 (line)", loc="left")
    figure.savefig(path, dpi=110)


def _median(figures: Figures, name: str, key: str) -> float:
    return statistics.median(values[key] for values in figures[name])


def _bars(axes: Axes, values: dict[str, float], colours: list[str], place: str = "edge") -> None:
    """A bar a line, the first on top, with its value written at its edge or in its center."""
    bars = axes.barh(list(values), list(values.values()), color=colours)
    texts = [f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in values.values()]
    axes.bar_label(bars, texts, label_type=place, padding=4 if place == "edge" else 0)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
