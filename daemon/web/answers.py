"""Answers as they are shown: found in the index, newest first, however many there are; with what people said of them."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.drops import with_ending
from daemon.files import printable
from daemon.folders import Folder
from daemon.index.answers import parse
from daemon.index.queries import Wanted, of_content
from daemon.index.retention import Part, parts
from daemon.training.corrections import NAMES
from daemon.training.labelling import visible

MAX_JSON = 1 << 16  # bytes; ours are under 2,000
FIRST_SLICE, LARGEST_SLICE = 2_000, 50_000  # answers that are looked through at once
LOOK_SECONDS, COUNT_SECONDS = 0.15, 0.1  # how long answers are looked through before what was found is shown
OUTCOMES = ("accepted", "review", "rejected", "corrected")
REASONS = {"low_confidence": "not sure", "not_a_digit": "no digit?", "several_digits": "several digits?"}
LARGEST_ID = 1 << 62  # SQLite takes no number of more than 63 bits
PICTURES = ("blank", "animated")  # rejections that can be looked at
END = (float("inf"), LARGEST_ID)  # behind the newest answer
_HANDLE = re.compile(r"(\d{1,18})\.([0-9a-f]{16})?\.[0-9a-f]{8}", re.ASCII)

_SLICE = """
SELECT answered_at, id FROM answers
WHERE answered_at <= :at AND (answered_at < :at OR id < :id) AND answered_at >= :since
ORDER BY answered_at DESC, id DESC LIMIT 1 OFFSET :further
"""
_FOUND = """
SELECT {} FROM answers
WHERE answered_at <= :at AND (answered_at < :at OR id < :id)
    AND answered_at >= :from_at AND (answered_at > :from_at OR id >= :from_id) AND {}
"""
_NEWEST = "ORDER BY answered_at DESC, id DESC LIMIT :limit"
Place = tuple[float, int]  # of an answer among all, by time: answered_at and id


@dataclass(frozen=True)
class Filters:
    """Which answers are asked for, as an address says it; what is empty is not asked for."""

    outcome: str = ""
    digit: str = ""
    version: str = ""
    day: str = ""
    name: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Filters:
        """Those of an address; what makes no sense is passed over."""
        day = values.get("day", "")
        try:
            date.fromisoformat(day)
            _day(day)
        except (ValueError, OverflowError):  # the first and the last years have no moments
            day = ""
        outcome, digit = values.get("outcome", ""), values.get("digit", "")
        return cls(
            outcome if outcome in OUTCOMES else "",
            digit if digit in NAMES[:10] else "",
            values.get("version", "")[:64],
            day,
            values.get("name", "")[:255],
        )

    @property
    def wanted(self) -> Wanted:
        """The same, as the index is asked."""
        corrected = self.outcome == "corrected"
        since = until = None
        if self.day:
            since, until = _day(self.day)
        return Wanted(
            name=self.name or None,
            digit=int(self.digit) if self.digit else None,
            since=since,
            until=until,
            outcome=None if corrected else self.outcome or None,
            version=self.version or None,
            is_labelled=True if corrected else None,
        )


def _day(day: str) -> tuple[float, float]:
    """When a day begins and ends here, in seconds since the epoch."""
    morning = datetime.fromisoformat(day)
    return morning.timestamp(), (morning + timedelta(days=1)).timestamp()


@dataclass(frozen=True)
class Found:
    """Some answers.

    Attributes:
        rows: of the index, newest first.
        next: where to go on; None where there is nothing more.
        looked_back_to: the time was over when that moment was reached; None where there was enough of it.

    """

    rows: list[sqlite3.Row]
    next: Place | None
    looked_back_to: float | None


def look_back(index: sqlite3.Connection, wanted: Wanted, count: int, before: Place = END) -> Found:
    """The newest answers of a kind, looked for in slices, for a bounded time: what is rare needs no index of its own."""
    condition, values = wanted.condition()
    rows: list[sqlite3.Row] = []
    place: Place | None = before
    for bounds, place in _slices(index, wanted, before, LOOK_SECONDS):  # noqa: B007 -- where it ended
        found = index.execute(f"{_FOUND.format('*', condition)} {_NEWEST}", values | bounds | {"limit": count - len(rows)})
        rows += found
        if len(rows) >= count:
            return Found(rows, (rows[-1]["answered_at"], rows[-1]["id"]), None)
    return Found(rows, place, place and place[0])


def count_back(index: sqlite3.Connection, wanted: Wanted) -> tuple[int, bool]:
    """How many answers of a kind there are, or at least are, as far as could be looked back; and whether that is all."""
    condition, values = wanted.condition()
    count, place = 0, None
    for bounds, place in _slices(index, wanted, END, COUNT_SECONDS):  # noqa: B007 -- where it ended
        count += index.execute(_FOUND.format("count(*)", condition), values | bounds).fetchone()[0]
    return count, place is None


def _slices(
    index: sqlite3.Connection, wanted: Wanted, before: Place, seconds: float
) -> Iterator[tuple[dict[str, object], Place | None]]:
    """Go back in time until it is over: the bounds of a slice, and where the next one begins; None behind the last."""
    since = wanted.since or 0.0
    place = min(before, (wanted.until, 0)) if wanted.until else before
    length, deadline = FIRST_SLICE, time.monotonic() + seconds
    while True:
        bounds: dict[str, object] = {"at": place[0], "id": place[1], "since": since}
        last = index.execute(_SLICE, bounds | {"further": length - 1}).fetchone()
        from_at, from_id = last or (since, 0)
        yield bounds | {"from_at": from_at, "from_id": from_id}, (from_at, from_id) if last else None
        if last is None or time.monotonic() > deadline:
            return
        place, length = (from_at, from_id), min(LARGEST_SLICE, length * 4)


def as_place(text: str) -> Place:
    """Where a page begins, as its address says it: "1764072000.0,17"; the newest where it says nothing of the kind."""
    at, _, id_ = text.partition(",")
    try:
        place = float(at), int(id_)
    except ValueError:
        return END
    return place if 0 <= place[1] < LARGEST_ID else END


def handle(row: sqlite3.Row) -> str:
    """What a page calls an answer: its number, which finds it at once, and what finds it in an index that was made anew."""
    digest = row["sha256"].hex()[:16] if row["sha256"] else ""
    return f"{row['id']}.{digest}.{zlib.crc32(os.fsencode(row['name'])):08x}"


def read(index: sqlite3.Connection, called: str) -> sqlite3.Row | None:
    """One answer, by its handle: of the same content and name, the newest; None where there is none."""
    parsed = _HANDLE.fullmatch(called)
    if parsed is None:
        return None
    row: sqlite3.Row | None = index.execute("SELECT * FROM answers WHERE id = ?", (int(parsed[1]),)).fetchone()
    if row is not None and handle(row) == called:
        return row
    same = of_content(index, bytes.fromhex(parsed[2])) if parsed[2] else []
    return next((row for row in same if handle(row).partition(".")[2] == called.partition(".")[2]), None)


def shown(settings: Settings, index: sqlite3.Connection, rows: list[sqlite3.Row]) -> list[dict[str, Any]]:
    """Answers for a template."""
    labels = label_names(settings, index, rows)
    return [_shown(settings, row, label) for row, label in zip(rows, labels, strict=True)]


def _shown(settings: Settings, row: sqlite3.Row, label: str | None) -> dict[str, Any]:
    original, json = parts(row)
    name = printable(os.fsdecode(row["name"]))
    is_there, is_picture = not row["gone"] & original.bit, row["outcome"] != "rejected" or row["reason"] in PICTURES
    answer = {
        "id": row["id"],
        "handle": handle(row),
        "name": name,
        "digit": row["digit"],
        "confidence": row["confidence"],
        "outcome": row["outcome"],
        "reason": REASONS.get(row["reason"], (row["reason"] or "").replace("_", " ")),
        "version": row["version"],
        "at": row["answered_at"],
        "iso": timestamp(row["answered_at"]),
        "label": label.partition("/")[0] if label else None,
        "picture": f"/picture/{handle(row)}" if row["sha256"] and is_there and is_picture else None,
        "archive": row["archive"],
        "gone": not is_there,
        "detail": "",
        "hint": "",
    }
    if row["outcome"] == "rejected":
        content = {} if row["gone"] & json.bit else read_json(settings, json)
        answer |= {key: printable(str(content.get(key, ""))) for key in ("detail", "hint")}
    return answer


def read_json(settings: Settings, part: Part) -> dict[str, Any]:
    """What a JSON in results/ or rejected/ says; empty where it is gone."""
    try:
        with Folder(settings.folder(part.key)) as folder:
            descriptor = folder.open(part.path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                return parse(os.read(descriptor, MAX_JSON))
            finally:
                os.close(descriptor)
    except OSError:
        return {}


def label_names(settings: Settings, index: sqlite3.Connection, rows: list[sqlite3.Row]) -> list[str | None]:
    """The label of each answer's image: its name below corrections/, such as "7/a.png"; None where it has none.

    The folder is the truth, and it is not listed: a label is where the index says, or where `digitd correct` puts it.
    """
    looked_at: dict[str, bool] = {}  # sub-folders, and whether they are there: most are not
    try:
        with Folder(settings.folder("corrections")) as folder:
            return [next(_existing(folder, looked_at, index, row), None) for row in rows]
    except OSError:
        return [None] * len(rows)


def label_places(index: sqlite3.Connection, row: sqlite3.Row) -> Iterator[str]:
    """Where a label of an answer's image may be: where the index says, and where `digitd correct` puts it."""
    known = index.execute("SELECT file FROM labels WHERE sha256 = ?", (row["sha256"],)).fetchone()
    if known and known[0]:
        yield os.fsdecode(known[0])
    original = visible(parts(row)[0].path)
    for tag in (f"~{row['sha256'].hex()[:8]}", ""):
        tagged = with_ending(original, tag, "")
        yield from (f"{name}/{tagged}" for name in NAMES)


def _existing(folder: Folder, looked_at: dict[str, bool], index: sqlite3.Connection, row: sqlite3.Row) -> Iterator[str]:
    if row["sha256"] is None or row["size"] is None:
        return
    for place in label_places(index, row):
        parent = place.rpartition("/")[0]
        with suppress(OSError):
            if parent not in looked_at:
                looked_at[parent] = folder.holds(parent)
            if looked_at[parent]:
                status = folder.status(place)
                if stat.S_ISREG(status.st_mode) and status.st_size == row["size"]:
                    yield place


def versions(index: sqlite3.Connection) -> list[str]:
    """The versions that the newest answers name, for a choice of them."""
    found = index.execute("SELECT DISTINCT version FROM (SELECT version FROM answers ORDER BY answered_at DESC LIMIT 5000)")
    return sorted((version for (version,) in found if version), reverse=True)
