"""What the daemon makes of new corrections at once: each is compared with the answer that its bytes were given."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import threading
import time
from contextlib import closing

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.files import append_line, printable, read_lines
from daemon.folders import Folder
from daemon.index.schema import NoIndex, open_to_read, storable
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from daemon.training.corrections import NAMES, Label, last_change, list_corrections, make_folders, read_label
from daemon.training.dataset import NO_DIGIT
from daemon.training.given_answers import NOT_FOUND, agreement, as_digit, find_answers

log = logging.getLogger(__name__)

LIVE_WINDOW = 200  # corrections that the live accuracy is taken over
NOTICED_PER_PASS = 500  # new corrections taken in at once; the rest waits for the next pass
LOOKING_SHARE = 0.05  # of the time, at most
LOOKING_AGAIN_SHARE = 0.01  # where no name has come or gone: a file may have been written over
SETTLED_SECONDS = 2.0  # a folder that changed later may change again within the same tick of its file system's clock


class CorrectionWatch:
    """Notices new corrections, and shows how often the daemon had been right.

    Args:
        settings: where corrections, results and the journal of what was noticed are, and how often to look.
        metrics: counts agreement, shows the live accuracy.
        index: asked for the answers, and told the labels.

    Attributes:
        labels: those that are there, as of the last pass; replaced, never changed.
        is_complete: whether they are all.
        last_new: when the last new one was noticed, by the steady clock.

    """

    def __init__(self, settings: Settings, metrics: Metrics, index: Index) -> None:
        self._settings, self._metrics, self._index = settings, metrics, index
        self._folder, self._results = Folder(settings.folder("corrections"), make=True), settings.folder("results")
        make_folders(self._folder)
        self._journal = settings.folder("logs") / "corrections.jsonl"
        self._due = self._again_due = float("-inf")
        self._stop = threading.Event()
        self._folders: dict[str, int] = {}  # when each had last changed when it was looked into
        self._waiting: dict[str, int] = {}  # the status, at the last pass, of what is not read at that status
        self._read: dict[str, tuple[int, Label]] = {}  # at which status what was read
        self._latest: dict[str, int] = {}  # by sha256: the latest label, of all that was ever noticed
        self._earlier: set[Label] = set()  # noticed, and not the latest of their image
        self._agreed: dict[str, bool] = {}  # by sha256: whether the answer said so too, oldest first
        self._told: set[str] = set()  # faults that were logged
        self.labels: frozenset[Label] = frozenset()
        self.is_complete = False
        self.last_new = float("-inf")

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
        self._folder.renew()
        if steady < self._again_due and self.is_complete and not self._has_changed(now):
            return 0
        began = time.monotonic()
        recalled = {} if self._folders else self._recall()
        new = self._look(recalled)
        if new := self._without_known(new):
            self._notice(new, now)
            self.last_new = steady
            self._show()
        took = time.monotonic() - began
        rest = 0.0 if len(new) >= NOTICED_PER_PASS else max(self._settings.inbox.rescan_seconds, took / LOOKING_SHARE)
        self._due = steady + rest
        self._again_due = steady + max(self._settings.inbox.rescan_seconds, took / LOOKING_AGAIN_SHARE)
        return len(new)

    def _has_changed(self, now: float) -> bool:
        """Whether a name may have come or gone since the last look."""
        return any(
            last_change(self._folder, below) != changed or now < changed / 1e9 + SETTLED_SECONDS
            for below, changed in self._folders.items()
        )

    def _recall(self) -> dict[str, tuple[float, Label]]:
        """Remember what was noticed before the daemon started.

        Returns:
            By name: when which label was noticed there. What has not changed since need not be read again.

        """
        for line in read_lines(self._journal):
            if line.keys() >= {"sha256", "digit", "predicted"}:
                digit = NO_DIGIT if line["digit"] is None else line["digit"]
                agrees = agreement(digit, line["predicted"], line.get("review_reason"))
                self._remember((digit, sys.intern(line["sha256"])), agrees)
        self._show()
        try:
            with closing(open_to_read(self._settings.index)) as index:
                return {
                    os.fsdecode(file): (noticed_at, (NO_DIGIT if digit is None else digit, sys.intern(sha256.hex())))
                    for sha256, digit, file, noticed_at in index.execute("SELECT * FROM labels")
                }
        except (NoIndex, OSError, sqlite3.Error):
            return {}

    def _look(self, recalled: dict[str, tuple[float, Label]]) -> dict[str, Label]:
        """Read what did not change since the last pass and was not read since it did; what of that is a new label."""
        before, self._waiting, self._folders = self._waiting, {}, {}
        was, self._read = self._read, {}
        new: dict[str, Label] = {}
        self.is_complete, is_same = True, True
        for name, status in list_corrections(self._folder, self._tell, self._folders):
            key = status.st_mtime_ns << 64 | status.st_size
            if known := was.get(name):
                self._read[name] = known
                if known[0] == key:
                    continue
            at, label = recalled.get(name, (0.0, None))
            if label is None or status.st_ctime >= at or name.partition("/")[0] != NAMES[label[0]]:
                if before.get(name) != key or len(new) >= NOTICED_PER_PASS or self._stop.is_set():
                    self._waiting[name] = key
                    self.is_complete = False
                    continue
                try:
                    label = read_label(self._folder, name, self._settings.inbox.max_bytes)
                except OSError as error:
                    self._tell(f"{printable(name)}: {error.strerror}")
                    self._waiting[name] = key
                    continue
            self._read[name] = key, label
            is_same = False
            if self._latest.get(label[1]) != label[0]:
                new[name] = label
        if not is_same or len(self._read) != len(was):
            self.labels = frozenset(label for _, label in self._read.values())
        return new

    def _without_known(self, new: dict[str, Label]) -> dict[str, Label]:
        """Leave out the elder of two labels that conflict, which after a restart is seen again."""
        return {
            name: label
            for name, label in new.items()
            if label not in self._earlier or (self._latest[label[1]], label[1]) not in self.labels
        }

    def _notice(self, new: dict[str, Label], now: float) -> None:
        answers = find_answers(self._settings.index, self._index.is_current, self._results, new, self._stop)
        labelled: dict[str, set[int]] = {sha256: set() for _, sha256 in new.values()}
        for label, sha256 in self.labels:
            if sha256 in labelled:
                labelled[sha256].add(label)
        lines = []
        for name, (label, sha256) in new.items():
            line = {"noticed_at": timestamp(now), "file": printable(name), "sha256": sha256, "digit": as_digit(label)}
            lines.append(line | answers.get(name, NOT_FOUND).as_dict())
        append_line(self._journal, "\n".join(map(json.dumps, lines)))  # one sync for all
        for name, (label, sha256) in new.items():
            answer = answers.get(name, NOT_FOUND)
            agrees = agreement(label, answer.digit, answer.review_reason)
            self._remember((label, sha256), agrees)
            self._index.label((bytes.fromhex(sha256), as_digit(label), storable(name), now))
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
        before = self._latest.get(sha256, digit)
        if before != digit:
            self._earlier.add((before, sha256))
            self._earlier.discard(label)
        self._latest[sha256] = digit
        self._agreed.pop(sha256, None)
        if agrees is not None:
            self._agreed[sha256] = agrees
            if len(self._agreed) > 2 * LIVE_WINDOW:
                del self._agreed[next(iter(self._agreed))]

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
