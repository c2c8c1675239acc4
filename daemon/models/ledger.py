"""models/ledger.jsonl: a line for all that was decided about versions; it tells what was live at any moment, and why."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.clock import timestamp
from daemon.files import append_line, locked, read_lines

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
        with locked(self._path.with_name(".ledger.lock")):  # over NFS, lines that two hosts append would be one
            append_line(self._path, json.dumps(line))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its lines, oldest first; what is none, such as a person may write, is passed over."""
        for line in read_lines(self._path):
            if isinstance(line.get("time"), int | float) and all(
                isinstance(line.get(key), str) for key in ("event", "version")
            ):
                yield line

    def live_at(self, moment: float) -> str | None:
        """The version that was answering at a moment, in seconds since the epoch; None before the first."""
        name = None
        for line in self.lines():
            if line["event"] == "live" and line["time"] <= moment:
                name = line["version"]
        return name
