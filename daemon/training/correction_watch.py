"""What the daemon makes of new corrections at once: each is compared with the answer that its bytes were given."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.files import append_line, printable, read_lines
from daemon.folders import Folder
from daemon.index.queries import of_content
from daemon.index.schema import NoIndex, get_state, open_to_read, storable
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from daemon.training.corrections import NAMES, Label, list_corrections, make_folders, read_label
from daemon.training.dataset import NO_DIGIT

log = logging.getLogger(__name__)

LIVE_WINDOW = 200  # corrections that the live accuracy is taken over
NO_DIGITS_REASONS = ("not_a_digit", "several_digits")  # of a review: that the image shows none, or no single one
NOTICED_PER_PASS = 500  # new corrections taken in at once; the rest waits for the next pass


class CorrectionWatch:
    """Notices new corrections, and shows how often the daemon had been right.

    Args:
        settings: where corrections, results and the journal of what was noticed are, and how often to look.
        metrics: counts agreement, shows the live accuracy.
        index: asked for the answers, and told the labels.

    Attributes:
        labels: those that are there, as of the last pass; replaced, never changed.
        last_new: when the last new one was noticed, by the steady clock.

    """

    def __init__(self, settings: Settings, metrics: Metrics, index: Index) -> None:
        self._settings, self._metrics, self._index = settings, metrics, index
        self._folder, self._results = Folder(settings.folder("corrections"), make=True), settings.folder("results")
        make_folders(self._folder)
        self._journal = settings.folder("logs") / "corrections.jsonl"
        self._due = float("-inf")
        self._stop = threading.Event()
        self._status: dict[str, tuple[int, int]] = {}  # (size, mtime) at the last pass
        self._read: dict[str, tuple[tuple[int, int], Label]] = {}  # what was read, at which status
        self._latest: dict[str, int] = {}  # by sha256: the latest label, of all that was ever noticed
        self._noticed: set[Label] = set()
        self._agreed: dict[str, bool] = {}  # by sha256: whether the answer said so too, oldest first
        self._told: set[str] = set()  # faults that were logged
        self.labels: frozenset[Label] = frozenset()
        self.last_new = float("-inf")
        for line in read_lines(self._journal):
            if line.keys() >= {"sha256", "digit", "predicted"}:
                digit = NO_DIGIT if line["digit"] is None else line["digit"]
                self._remember((digit, line["sha256"]), _agrees(digit, line["predicted"], line.get("review_reason")))
        self._show()

    def apply(self, settings: Settings) -> None:
        """Put a changed configuration in force: how often to look."""
        self._settings = settings

    def close(self) -> None:
        """End a pass that is under way soon."""
        self._stop.set()

    def run_once(self, now: float, steady: float) -> int:
        """Take in the corrections that did not change since the last pass, so that none is half-written.

        Args:
            now: in seconds since the epoch.
            steady: in seconds of a clock that never jumps; nothing is done until `rescan_seconds` after the last pass.

        Returns:
            How many were new.

        """
        if steady < self._due:
            return 0
        self._due = steady + self._settings.inbox.rescan_seconds
        before, self._status = self._status, {}
        new: dict[str, Label] = {}
        self._folder.renew()
        for name, status in list_corrections(self._folder, self._tell):
            self._status[name] = key = (status.st_size, status.st_mtime_ns)
            read = self._read.get(name)
            if (read and read[0] == key) or before.get(name) != key:
                continue
            if len(new) >= NOTICED_PER_PASS or self._stop.is_set():
                continue
            try:
                label = read_label(self._folder, name, self._settings.inbox.max_bytes)
            except OSError as error:
                self._tell(f"{printable(name)}: {error.strerror}")
                continue
            self._read[name] = key, label
            if self._latest.get(label[1]) != label[0]:
                new[name] = label
        self._read = {name: read for name, read in self._read.items() if name in self._status}
        if len(new) >= NOTICED_PER_PASS:
            self._due = steady  # the rest is there already
        if new := self._without_known(new):
            self._notice(new, now)
            self.last_new = steady
            self._show()
        self.labels = frozenset(label for _, label in self._read.values())
        return len(new)

    def _without_known(self, new: dict[str, Label]) -> dict[str, Label]:
        """Leave out the elder of two labels that conflict, which after a restart is seen again."""
        present = {label for _, label in self._read.values()}
        return {
            name: label
            for name, label in new.items()
            if label not in self._noticed or (self._latest[label[1]], label[1]) not in present
        }

    def _notice(self, new: dict[str, Label], now: float) -> None:
        answers = find_answers(self._settings.index, self._index.is_current, self._results, new, self._stop)
        labelled: dict[str, set[int]] = {}
        for _, (label, sha256) in self._read.values():
            labelled.setdefault(sha256, set()).add(label)
        lines = []
        for name, (label, sha256) in new.items():
            line = {"noticed_at": timestamp(now), "file": printable(name), "sha256": sha256, "digit": _as_digit(label)}
            lines.append(line | answers.get(name, NOT_FOUND).as_dict())
        append_line(self._journal, "\n".join(map(json.dumps, lines)))  # one sync for all
        for name, (label, sha256) in new.items():
            answer = answers.get(name, NOT_FOUND)
            agrees = _agrees(label, answer.digit, answer.review_reason)
            self._remember((label, sha256), agrees)
            self._index.label((bytes.fromhex(sha256), _as_digit(label), storable(name), now))
            self._metrics.corrections.labels({None: "unknown", True: "yes", False: "no"}[agrees]).inc()
            if others := sorted(labelled[sha256] - {label}):
                log.warning(
                    "correction %s conflicts: the same image is labelled %s too; it will not be learnt from until one of "
                    "the two is removed",
                    printable(name),
                    ", ".join(NAMES[other] for other in others),
                )
            log.info("correction %s: the answer was %s", printable(name), answer)

    def _remember(self, label: Label, agrees: bool | None) -> None:
        digit, sha256 = label
        self._latest[sha256] = digit
        self._noticed.add(label)
        self._agreed.pop(sha256, None)
        if agrees is not None:
            self._agreed[sha256] = agrees

    def _show(self) -> None:
        latest = list(self._agreed.values())[-LIVE_WINDOW:]
        if latest:
            self._metrics.live_accuracy.set(sum(latest) / len(latest))
            self._metrics.live_accuracy_images.set(len(latest))

    def _tell(self, text: str) -> None:
        """Log what cannot be read, once."""
        if text not in self._told:
            self._told.add(text)
            log.warning("correction %s", text)


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


def _agrees(label: int, digit: int | None, review_reason: str | None) -> bool | None:
    """Whether an answer said what a person says; None where nobody answered. Of what is no digit, that is to doubt that."""
    if digit is None:
        return None
    return review_reason in NO_DIGITS_REASONS if label == NO_DIGIT else digit == label


def _as_digit(label: int) -> int | None:
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
    sought: dict[str, list[str]] = {}  # by the last name of a result: who may be meant
    for name in labelled.keys() - found.keys():
        plain = Path(name)
        for last_name in (f"{plain.name}.json", f"{plain.stem}~{labelled[name][1][:8]}{plain.suffix}.json"):
            sought.setdefault(last_name, []).append(name)
            sha256, answer = _read_result(results.joinpath(*plain.parts[1:-1], last_name))
            if answer and labelled[name][1] == sha256:
                found[name] = answer
    if is_whole and is_current:
        return found
    for path in _find(results, sought, stop) if sought else ():
        sha256, answer = _read_result(path)
        found |= {name: answer for name in sought[path.name] if answer and labelled[name][1] == sha256}
    return found


def _ask_index(path: Path, labelled: dict[str, Label]) -> tuple[dict[str, Answer], bool]:
    """What the index knows, and whether it knows all."""
    found: dict[str, Answer] = {}
    try:
        with closing(open_to_read(path)) as index:
            for name, (_, sha256) in labelled.items():
                for row in of_content(index, bytes.fromhex(sha256)):
                    if row["digit"] is not None:
                        found.setdefault(name, Answer(row["digit"], row["version"], row["reason"]))  # the newest comes first
            return found, get_state(index)["since"] is None
    except (NoIndex, OSError, sqlite3.Error):
        return found, False


def _find(folder: Path, names: Iterable[str], stop: threading.Event) -> list[Path]:
    """The files of these names, wherever they are below a folder."""
    found: list[Path] = []
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if stop.is_set():
                        return found
                    if entry.name in names:
                        found.append(Path(entry.path))
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return found


def _read_result(path: Path) -> tuple[str, Answer | None]:
    """The digest of what was answered, and the answer."""
    try:
        content = json.loads(path.read_bytes())
        return content["sha256"], Answer(content["digit"], content["model"]["version"], content.get("review_reason"))
    except (OSError, ValueError, KeyError, TypeError):
        return "", None
