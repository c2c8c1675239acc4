"""What the index is asked, by people who may only read it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.files import printable
from daemon.index.schema import JSON, NOT_KEPT, ORIGINAL, storable

_BY_SHA256 = """
SELECT answers.* FROM digests JOIN answers USING (id)
WHERE digest = substr(:sha256, 1, 8) AND substr(sha256, 1, :length) = :sha256
UNION ALL
SELECT * FROM answers WHERE id > (SELECT value FROM state WHERE key = 'settled') AND substr(sha256, 1, :length) = :sha256
"""  # not ordered: SQLite would then go through all answers by their time
DAY = 86400.0  # seconds
WEEK = 7 * DAY
BLOCK = 4096  # bytes of a file system; a file takes whole ones, and its JSON one more
_BYTES = """
SELECT sum((coalesce(size, 1) + :block - 1) / :block * :block + :block), min(answered_at)
FROM answers WHERE answered_at >= :since
"""
SAMPLED = 20_000  # answers; by chance, an index of ten bins is then 0.0005
_SAMPLE = "SELECT digit, confidence FROM answers WHERE answered_at >= ? AND id % ? = 0 AND digit IS NOT NULL"
_AGREEING = """
SELECT count(*), coalesce(sum(agrees), 0) FROM (
    SELECT max(answered_at), CASE WHEN labels.digit IS NULL THEN coalesce(reason, '') IN ('not_a_digit', 'several_digits')
        ELSE answers.digit = labels.digit END AS agrees
    FROM labels CROSS JOIN digests ON digest = substr(labels.sha256, 1, 8) CROSS JOIN answers ON answers.id = digests.id
    WHERE noticed_at >= ? AND answers.sha256 = labels.sha256 AND answers.digit IS NOT NULL
    GROUP BY labels.sha256
)
"""


@dataclass(frozen=True)
class Wanted:
    """Which answers; what is None is not asked for.

    Attributes:
        name: a part of it, or a pattern with * and ?.
        digit: of the answer.
        since, until: seconds since the epoch, `until` excluded.
        outcome: "accepted", "review" or "rejected".
        version: of the model.
        least, most: confidence, both included.
        is_labelled: whether a person has said what it shows.

    """

    name: str | None = None
    digit: int | None = None
    since: float | None = None
    until: float | None = None
    outcome: str | None = None
    version: str | None = None
    least: float | None = None
    most: float | None = None
    is_labelled: bool | None = None

    def condition(self) -> tuple[str, dict[str, object]]:
        """As SQL, with its parameters."""
        is_pattern = self.name is not None and any(character in self.name for character in "*?[")
        parts = {
            "name": "CAST(name AS TEXT) GLOB CAST(:name AS TEXT)"
            if is_pattern
            else "instr(CAST(name AS TEXT), CAST(:name AS TEXT))",
            "digit": "digit = :digit",
            "since": "answered_at >= :since",
            "until": "answered_at < :until",
            "outcome": "outcome = :outcome",
            "version": "version = :version",
            "least": "confidence >= :least",
            "most": "confidence <= :most",
            "is_labelled": "(sha256 IN (SELECT sha256 FROM labels)) = :is_labelled",
        }
        values = {key: getattr(self, key) for key in parts if getattr(self, key) is not None}
        if self.name is not None:
            values["name"] = storable(self.name)
        return " AND ".join(parts[key] for key in values) or "1", values


def find(
    connection: sqlite3.Connection, wanted: Wanted, limit: int = -1, newest_first: bool = True
) -> Iterator[sqlite3.Row]:
    """The answers that are wanted, by their time.

    Args:
        connection: of `reading`.
        limit: how many at most; -1 for all.

    """
    condition, values = wanted.condition()
    order = "DESC" if newest_first else "ASC"
    yield from connection.execute(
        f"SELECT * FROM answers WHERE {condition} ORDER BY answered_at {order} LIMIT :limit",  # noqa: S608 -- parts of ours
        values | {"limit": limit},
    )


def of_content(connection: sqlite3.Connection, sha256: bytes) -> list[sqlite3.Row]:
    """All answers that these bytes were given, newest first; `sha256` may be its first 8 bytes or more."""
    found = connection.execute(_BY_SHA256, {"sha256": sha256, "length": len(sha256)}).fetchall()
    return sorted(found, key=lambda row: row["answered_at"], reverse=True)


def bytes_per_day(connection: sqlite3.Connection, now: float) -> float:
    """How much disk space answers take a day, with their originals, as of the last week; as of the last day at least.

    Args:
        connection: of `reading`.
        now: in seconds since the epoch.

    """
    total, first = connection.execute(_BYTES, {"block": BLOCK, "since": now - WEEK}).fetchone()
    return float(total) / max(1.0, (now - first) / DAY) if total else 0.0


def agreeing(connection: sqlite3.Connection, since: float) -> tuple[int, int]:
    """How many answered images people labelled since a moment, and of how many the latest answer says so too.

    Args:
        connection: of `reading`.
        since: in seconds since the epoch.

    """
    labelled, agree = connection.execute(_AGREEING, (since,)).fetchone()
    return labelled, agree


def sample(connection: sqlite3.Connection, since: float) -> list[tuple[int, float]]:
    """Digit and confidence of answers since a moment: of all of them, or of some 20,000 evenly among them.

    Args:
        connection: of `reading`.
        since: in seconds since the epoch.

    """
    (count,) = connection.execute("SELECT count(*) FROM answers WHERE answered_at >= ?", (since,)).fetchone()
    return [tuple(row) for row in connection.execute(_SAMPLE, (since, count // SAMPLED + 1))]


COLUMNS = (
    "file",
    "outcome",
    "digit",
    "confidence",
    "reason",
    "version",
    "answered_at",
    "received_at",
    "bytes",
    "sha256",
    "original",
    "json",
)


def places(row: sqlite3.Row, settings: Settings) -> dict[str, str | None]:
    """Where an answer's original and JSON are, as paths below the root; None for what was deleted, or not kept."""
    name = os.fsdecode(row["name"])
    rejected = row["outcome"] == "rejected"
    found: dict[str, str | None] = {}
    for kind, bit, folder, path in (
        ("original", ORIGINAL, "rejected" if rejected else "processed", os.fsdecode(row["original"] or name)),
        ("json", JSON, "rejected" if rejected else "results", os.fsdecode(row["json"] or f"{name}.json")),
    ):
        if bit == ORIGINAL and row["reason"] == NOT_KEPT:
            found[kind] = None
        elif not row["gone"] & bit:
            found[kind] = f"{getattr(settings.paths, folder)}/{path}"
        else:
            found[kind] = f"{settings.retention.archive}/{row['archive']}:{folder}/{path}" if row["archive"] else None
    return found


def as_dict(row: sqlite3.Row, settings: Settings) -> dict[str, Any]:
    """An answer for people and programs: `COLUMNS`, called as in its JSON."""
    where = places(row, settings)
    return {
        "file": printable(os.fsdecode(row["name"])),
        "outcome": row["outcome"],
        "digit": row["digit"],
        "confidence": row["confidence"],
        "reason": row["reason"],
        "version": row["version"],
        "answered_at": timestamp(row["answered_at"]),
        "received_at": None if row["received_at"] is None else timestamp(row["received_at"]),
        "bytes": row["size"],
        "sha256": row["sha256"].hex() if row["sha256"] else None,
        "original": where["original"] and printable(where["original"]),
        "json": where["json"] and printable(where["json"]),
    }
