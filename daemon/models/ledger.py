"""models/ledger.jsonl: a line for all that was decided about versions; it tells what was live at any moment, and why.

It is read at each start and training. So once it is large, it is put aside whole, as `ledger-<day>.jsonl`, and the lines
that decisions still rest on begin a new one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from daemon.clock import timestamp
from daemon.files import append_line, locked, read_lines, write_durably

ROTATED_BYTES = 1 << 20  # 700 trainings: two years of nights
KEPT_LINES = 500  # the newest, whatever they say
LONGEST_NAME = 20  # of a version: Python makes no number of 4,300 digits
LAST_MOMENT = 1e11  # in the year 5138
WORDS = ("sha256", "fingerprint", "holdout_sha256", "dataset_sha256")  # facts that decisions rest on, where there are any
SHARES = ("holdout_accuracy", "best_accuracy", "best_held")
EVENTS = (  # docs/glossary.md says what each means
    "begun",
    "made",
    "vetted",
    "promoted",
    "refused",
    "insufficient_evidence",
    "overtaken",
    "failed",
    "stopped",
    "current",
    "live",
    "swap_failed",
)


class Ledger:
    """The lines of one file.

    Args:
        path: the .jsonl; made with the first line.

    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(self, event: str, version: str, reason: str, **facts: Any) -> None:
        """Add a line.

        Args:
            event: one of EVENTS.
            version: which version it is about.
            reason: one sentence.
            facts: anything else that JSON can hold.

        """
        now = time.time()
        line = {"at": timestamp(now), "time": now, "event": event, "version": version, "reason": reason, **facts}
        with self._locked():
            append_line(self._path, json.dumps(line))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its lines, oldest first; what is none, such as a person may write, is passed over."""
        yield from _lines(self._path)

    def live_at(self, moment: float) -> str | None:
        """The version that was answering at a moment, in seconds since the epoch; None before the first."""
        live: list[tuple[float, str]] = []
        for path in (*self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"), self._path):
            live += [(line["time"], line["version"]) for line in _lines(path) if line["event"] == "live"]
        return max(((time, name) for time, name in live if time <= moment), default=(0.0, None))[1]

    def rotate(self, names: Collection[str]) -> Path | None:
        """Put it aside once it is large, and go on with the lines that are still needed; for one process at a time.

        Needed are the newest, those of versions that are there, those of the highest number that was ever given, and the
        last verdict on each hold-out, which knows the best accuracy before it.

        Args:
            names: of the versions that are there.

        Returns:
            Where all lines are, if it was put aside now.

        """
        if not self._path.exists() or self._path.stat().st_size < ROTATED_BYTES:
            return None
        aside = self._path.with_name(f"{self._path.stem}-{timestamp(time.time())[:10]}{self._path.suffix}")
        if aside.exists():
            return None  # twice in a day: tomorrow
        with self._locked():
            lines = list(self.lines())
            highest = max((line["version"] for line in lines), key=_number)
            last = {(line["holdout_sha256"], line.get("dataset_sha256")): line for line in lines if "holdout_sha256" in line}
            verdicts = {id(line) for line in last.values()}
            needed = [
                line
                for number, line in enumerate(lines, -len(lines))
                if number >= -KEPT_LINES or line["version"] in {highest, *names} or id(line) in verdicts
            ]
            os.link(self._path, aside)
            write_durably(self._path, "".join(f"{json.dumps(line)}\n" for line in needed).encode())
        return aside

    def _locked(self) -> AbstractContextManager[None]:
        """Keep others from adding lines: over NFS, lines that two hosts append would be one."""
        return locked(self._path.with_name(".ledger.lock"))


def _number(version: str) -> int:
    return int(version[1:]) if version[:1] == "v" and version[1:].isdecimal() and len(version) < LONGEST_NAME else 0


def _is_moment(value: object) -> bool:
    """Whether it is one in seconds since the epoch that a calendar has: of others no number of ours can be made."""
    return isinstance(value, int | float) and 0 <= value < LAST_MOMENT


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(path):
        is_ours = _is_moment(line.get("time")) and _is_moment(line.get("began", 0.0))
        words = [line.get("event"), line.get("version"), *(line[key] for key in WORDS if key in line)]
        shares = [line[key] for key in SHARES if key in line]
        if is_ours and all(isinstance(word, str) for word in words) and all(map(_is_share, shares)):
            yield line
