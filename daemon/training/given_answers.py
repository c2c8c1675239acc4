"""The answer that an image was given before a person labelled it, and whether the two agree."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, NamedTuple

from daemon.drops import with_ending
from daemon.folders import Folder
from daemon.index.looking import files, open_folder, read
from daemon.index.queries import of_content
from daemon.index.schema import NoIndex, get_state, reading
from daemon.training.corrections import Label
from daemon.training.dataset import NO_DIGIT

NO_DIGITS_REASONS = ("not_a_digit", "several_digits")  # of a review: that the image shows none, or no single one


class Answer(NamedTuple):
    """What the daemon read, with which version, and why a person should look; None where nobody answered."""

    digit: int | None
    version: str | None
    review_reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        return {"predicted": self.digit, "model": self.version, "review_reason": self.review_reason}

    def __str__(self) -> str:
        if self.digit is None:
            return "not found"
        return f"{self.digit}, held back as {self.review_reason}" if self.review_reason else str(self.digit)


NOT_FOUND = Answer(None, None)


def agreement(label: int, digit: int | None, review_reason: str | None) -> bool | None:
    """Whether an answer said what a person says; None where nobody answered. Of what is no digit, that is to doubt that."""
    if digit is None:
        return None
    return review_reason in NO_DIGITS_REASONS if label == NO_DIGIT else digit == label


def as_digit(label: int) -> int | None:
    """As the journal and the index have it."""
    return None if label == NO_DIGIT else label


def find_answers(
    index: Path, is_current: bool, results: Path, labelled: dict[str, Label], stop: threading.Event
) -> dict[str, Answer]:
    """The answers that labelled bytes were given, by the index, or by the results of those names, which another host may
    have written; where the index is not whole, also by a walk through results/.

    Args:
        index: index.sqlite.
        is_current: whether nothing waits to be written to it.
        results: where the answers are.
        labelled: by name below corrections/: the label, with the SHA-256 of the bytes.
        stop: ends the walk, with what was found so far.

    Returns:
        By name below corrections/, without those that nobody answered.

    """
    found, is_whole = _ask_index(index, labelled)
    folder = open_folder(results)
    if folder is None:
        return found
    with folder:
        sought: dict[str, list[str]] = {}  # by the last name of a result: who may be meant
        for name in labelled.keys() - found.keys():
            *above, last = name.split("/")[1:]
            for last_name in (f"{last}.json", with_ending(last, f"~{labelled[name][1][:8]}", ".json")):
                sought.setdefault(last_name, []).append(name)
                sha256, answer = _read_result(folder, "/".join([*above, last_name]))
                if answer and labelled[name][1] == sha256:
                    found[name] = answer
        if (is_whole and is_current) or not sought:
            return found
        for path in files(folder, 0.0, others=True):
            if stop.is_set():
                break
            if meant := sought.get(path.rpartition("/")[2]):
                sha256, answer = _read_result(folder, path)
                found |= {name: answer for name in meant if answer and labelled[name][1] == sha256}
    return found


def _ask_index(path: Path, labelled: dict[str, Label]) -> tuple[dict[str, Answer], bool]:
    """What the index knows, and whether it knows all."""
    found: dict[str, Answer] = {}
    try:
        with reading(path) as index:
            for name, (_, sha256) in labelled.items():
                for row in of_content(index, bytes.fromhex(sha256)):
                    if row["digit"] is not None:
                        found.setdefault(name, Answer(row["digit"], row["version"], row["reason"]))  # the newest comes first
            return found, get_state(index)["since"] is None
    except (NoIndex, OSError, sqlite3.Error):
        return found, False


def _read_result(folder: Folder, path: str) -> tuple[str, Answer | None]:
    """The digest of what was answered, and the answer."""
    try:
        content = json.loads(read(folder, path) or b"")
        return content["sha256"], Answer(content["digit"], content["model"]["version"], content.get("review_reason"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "", None
