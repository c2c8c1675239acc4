"""What is known about the versions, their trainings, and which was live when; read from files, for the page."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Settings
from daemon.folders import Folder
from daemon.models.making import A_TRAINING
from daemon.models.manifest import Manifest, NoDigitCounts
from daemon.models.registry import Registry, RegistryError
from daemon.training.dataset import NO_DIGIT
from daemon.training.gate import VERDICTS
from daemon.training.labels import Labels, read_learnt
from daemon.web.charts import Chart, Span, chart

ENDS = (*VERDICTS, "failed", "stopped", "overtaken")  # the events with which a training is over
QUIET_SECONDS = 1800.0  # without an epoch, a training that no daemon knows of was killed
MOST_LOOKED_AT = 1000  # labels: what people take back, they take back soon
LARGEST = 1e39  # a float32 is smaller; what is no number is not
MOST_HISTORY = 1 << 20  # bytes; 12 epochs are 1,000
VERDICT_WORDS = {"promoted": "promoted", "refused": "refused", "insufficient_evidence": "not enough evidence"}
Line = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A version.

    Attributes:
        name: such as "v0003".
        manifest: what it says; None where it cannot be read.
        problem: why not.
        verdict: the ledger's line with the gate's verdict; None where it was never asked.
        is_current, is_previous: whether the links point to it.

    """

    name: str
    manifest: Manifest | None
    problem: str
    verdict: Line | None
    is_current: bool
    is_previous: bool

    @property
    def verdict_words(self) -> str:
        return VERDICT_WORDS[self.verdict["event"]] if self.verdict else "—"

    @property
    def reason(self) -> str:
        return str(self.verdict.get("reason", "")) if self.verdict else ""

    @property
    def none(self) -> NoDigitCounts | None:
        """How it does on held-back images of no digit; None where there were none."""
        found = self.manifest.corrections.none if self.manifest else None
        return found if found and found.held_back is not None else None


def look_up(registry: Registry, name: str, lines: Sequence[Line]) -> Shown:
    """One version, as it is on the disk."""
    verdict = next((line for line in reversed(lines) if line["version"] == name and line["event"] in VERDICTS), None)
    places = name == registry.current_name(), name == registry.previous_name()
    try:
        return Shown(name, registry.manifest(name), "", verdict, *places)
    except RegistryError as error:
        return Shown(name, None, str(error), verdict, *places)


def live_spans(lines: Sequence[Line]) -> list[Span]:
    """Which version was live from when to when, as daemons wrote it down; the last one is still."""
    spans: list[Span] = []
    for line in lines:
        if line["event"] != "live" or (spans and spans[-1].name == line["version"]):
            continue
        if spans:
            spans[-1] = Span(spans[-1].name, spans[-1].began, max(line["time"], spans[-1].began))
        spans.append(Span(line["version"], line["time"], None))
    return spans


@dataclass(frozen=True)
class Training:
    """One that runs.

    Attributes:
        version: what it makes.
        why: what began it.
        began: in seconds since the epoch.
        epoch, epochs: how many are done, of how many at most; None before the first.

    """

    version: str
    why: str
    began: float
    epoch: int | None
    epochs: int | None


def running(settings: Settings, lines: Sequence[Line], in_progress: bool, now: float) -> Training | None:
    """The training that runs, the daemon's or one in a terminal.

    Args:
        settings: where the logs are.
        lines: of the ledger.
        in_progress: whether the daemon says that one of its own runs.
        now: in seconds since the epoch.

    """
    begun = next((line for line in reversed(lines) if line["event"] == "begun"), None)
    if begun is None or not str(begun.get("reason")).startswith(A_TRAINING):
        return None
    if any(line["version"] == begun["version"] and line["event"] in ENDS for line in lines):
        return None
    path = logs_of(settings, begun["version"]) / "progress.json"
    try:
        changed, progress = path.stat().st_mtime, json.loads(path.read_bytes()[:MOST_HISTORY])
        epoch, epochs = int(progress["epoch"]), int(progress["epochs"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        changed, epoch, epochs = begun["time"], None, None
    if not in_progress and now - max(changed, begun["time"]) > QUIET_SECONDS:
        return None
    return Training(begun["version"], str(begun.get("reason", "")), begun["time"], epoch, epochs)


def waiting_corrections(settings: Settings, index: sqlite3.Connection) -> int:
    """How many labels no training has looked at; of the newest, those whose file is still there."""
    found = [
        ((NO_DIGIT if digit is None else digit, sha256.hex()), file)
        for sha256, digit, file in index.execute("SELECT sha256, digit, file FROM labels ORDER BY noticed_at DESC")
    ]
    new = frozenset(Labels(label for label, _ in found) - read_learnt(settings))
    waiting = [file for label, file in found if label in new]
    try:
        with Folder(settings.folder("corrections")) as folder:
            return len(waiting) - sum(not _is_file(folder, os.fsdecode(file)) for file in waiting[:MOST_LOOKED_AT])
    except OSError:
        return 0  # none can be seen


def _is_file(folder: Folder, name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(folder.status(name).st_mode)
    return False


def logs_of(settings: Settings, version: str) -> Path:
    """Where the training of a version left what it has to show."""
    return settings.folder("logs") / "training" / version


def learning_curves(settings: Settings, version: str) -> list[Chart]:
    """Loss and accuracy by epoch; none where nobody kept them."""
    try:
        with (logs_of(settings, version) / "history.csv").open(encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file.read(MOST_HISTORY).splitlines()))
    except OSError:
        return []
    columns = {name: [_number(row.get(name)) for row in rows] for name in ("loss", "val_loss", "accuracy", "val_accuracy")}
    every = max(1, -(-len(rows) // 8))
    epochs = [str(number) if number % every == 0 or number == 1 else "" for number in range(1, len(rows) + 1)]
    charts = []
    for name, as_text in (("loss", "{:g}".format), ("accuracy", lambda value: f"{value * 100:.4g} %")):
        lines = {"training": columns[name], "validation": columns[f"val_{name}"]}
        last = next((value for value in reversed(lines["validation"]) if value is not None), None)
        summary = f"{name.capitalize()} of {version} by epoch, {len(rows)} in all"
        if last is not None:
            summary += f"; on validation images {as_text(last)} at the end"
        if any(value is not None for values in lines.values() for value in values):
            charts.append(chart(name.capitalize(), f"{summary}.", lines, epochs, as_text, from_zero=False))
    return charts


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < LARGEST else None


@dataclass(frozen=True)
class Cell:
    """How many images of a digit were read as a digit, and how strongly that is to be shown, 0 to 9."""

    count: int
    share: float
    shade: int
    is_right: bool


def confusion(manifest: Manifest) -> list[list[Cell]]:
    """The confusion matrix of the hold-out, by digit; nothing where it is not known."""
    rows = manifest.holdout.confusion or []
    most_wrong = max((n for digit, row in enumerate(rows) for other, n in enumerate(row) if other != digit), default=0) or 1

    def cell(digit: int, read_as: int, count: int, whole: int) -> Cell:
        share = count / (whole or 1)
        return Cell(count, share, round(9 * (share if read_as == digit else count / most_wrong)), read_as == digit)

    return [[cell(digit, read_as, count, sum(row)) for read_as, count in enumerate(row)] for digit, row in enumerate(rows)]
