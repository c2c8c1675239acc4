"""What the daemon makes of new corrections at once: each is compared with the answer that its bytes were given."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from contextlib import suppress

import numpy as np

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.files import append_line, printable, read_lines
from daemon.folders import Folder
from daemon.index.schema import storable
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from daemon.training.corrections import NAMES, Label, last_change, make_folders, read_label
from daemon.training.dataset import NO_DIGIT
from daemon.training.given_answers import NOT_FOUND, agreement, as_digit, find_answers
from daemon.training.labels import Labels
from daemon.training.seen import AT_ONCE, CHANGED, FILE, Place, compare, file_of, joined, look_into, recall, status_of

log = logging.getLogger(__name__)

LIVE_WINDOW = 200  # corrections that the live accuracy is taken over
NOTICED_PER_PASS = 500  # new corrections taken in at once; the rest waits for the next pass
LOOKING_SHARE = 0.05  # of the time, at most, at names
LOOKING_THOROUGHLY_SHARE = 0.01  # at each file, which may have been written over
REST_SECONDS = 0.002  # about as long as what was done before it
MOST_TOLD = 1000  # faults that are remembered, so that each is told once
SETTLED_SECONDS = 2.0  # a folder that changed later may change again within the same tick of its file system's clock
NO_FILES = np.empty(0, FILE)


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
        self._due = self._thorough_due = float("-inf")
        self._stop = threading.Event()
        self._rested = 0.0  # seconds of this pass
        self._recalled: dict[str, np.ndarray] = {}  # of a folder that was not looked into yet: what the index knows
        self._places: dict[str, Place] = {}  # by name, as of the last pass
        self._waiting: dict[str, int] = {}  # the status, at the last pass, of what is not read at that status
        self._unnoticed: dict[str, Label] = {}  # what the last pass could not write into the journal
        self._latest: dict[bytes, int] = {}  # by sha256: the latest label, of all that was ever noticed
        self._earlier: set[Label] = set()  # noticed, and not the latest of their image
        self._agreed: dict[str, bool] = {}  # by sha256: whether the answer said so too, oldest first
        self._told: set[str] = set()  # faults that were logged
        self.labels = Labels()
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

        Raises:
            OSError: the journal cannot be written, or the folder not be opened; the next pass tries again.

        """
        if steady < self._due:
            return 0
        self._folder.renew()
        began, self._rested = time.monotonic(), 0.0
        is_first = not self._places
        if is_first:
            self._recalled = self._recall(now)
        is_thorough = steady >= self._thorough_due and not is_first
        new = self._unnoticed or self._without_known(self._look(now, is_thorough))
        if new:
            self._unnoticed = new  # until the disk takes it
            self._notice(new, now)
            self._unnoticed, self.last_new = {}, steady
            self._show()
        took, rescan = time.monotonic() - began - self._rested, self._settings.inbox.rescan_seconds
        pause = rescan if is_first or is_thorough else max(rescan, took / LOOKING_SHARE)  # what is rare holds no label up
        self._due = steady + (0.0 if len(new) >= NOTICED_PER_PASS else pause)
        if is_thorough:
            self._thorough_due = steady + max(rescan, took / LOOKING_THOROUGHLY_SHARE)
        return len(new)

    def _recall(self, now: float) -> dict[str, np.ndarray]:
        """Remember what was noticed before the daemon started.

        Returns:
            By folder: the files that the index says were noticed.

        """
        for number, line in enumerate(read_lines(self._journal)):
            if line.keys() >= {"sha256", "digit", "predicted"}:
                with suppress(ValueError, TypeError):  # somebody wrote into it
                    digit = NO_DIGIT if line["digit"] is None else range(NO_DIGIT).index(line["digit"])
                    self._remember((digit, line["sha256"]), agreement(digit, line["predicted"], line.get("review_reason")))
            if not number % AT_ONCE:
                self._rest()
        self._show()
        return recall(self._settings.index, now, self._latest)

    def _look(self, now: float, is_thorough: bool) -> dict[str, Label]:
        """Look into the folders in which something may have changed; into all, and at each file, where that is thorough.

        Returns:
            What is new: by name, the label.

        """
        places, new, pending, listed = self._places, dict[str, Label](), deque(NAMES), Counter[str]()
        before, self._waiting, self._places = self._waiting, {}, {}
        self.is_complete = True
        while pending:
            below = pending.popleft()
            place, changed = places.get(below), last_change(self._folder, below)
            if place is None or is_thorough or not place.is_settled or place.changed != changed:
                known = place.files if place else self._recalled.pop(below, NO_FILES)
                listing = look_into(self._folder, below, self._tell, listed, self._rest if is_thorough else None)
                files, is_complete = self._read(below, *compare(known, listing), before, new)
                self.is_complete &= is_complete
                is_settled = is_complete and now >= changed / 1e9 + SETTLED_SECONDS
                place = Place(changed, is_settled, listing.folders, files)
            else:
                listed[below.partition("/")[0]] += len(place.files) + len(place.folders)
            self._places[below] = place
            pending += place.folders
        was, are = ([place.files for place in each.values()] for each in (places, self._places))
        if [*map(id, was)] != [*map(id, are)]:
            self.labels = Labels(np.concatenate([files["label"] for files in are]))
        return new

    def _read(
        self,
        below: str,
        same: np.ndarray,
        others: dict[str, np.ndarray | None],
        before: dict[str, int],
        new: dict[str, Label],
    ) -> tuple[np.ndarray, bool]:
        """Read those of the others that did not change since the last pass.

        Returns:
            What is known of the folder's files now, and whether that is all.

        """
        files, is_complete = [same], True
        for name, known in sorted(others.items()):
            path = f"{below}/{name}"
            if len(new) >= NOTICED_PER_PASS or self._stop.is_set():
                self._waiting[path] = before.get(path, -1)
                is_complete = False
            else:
                try:
                    status = self._folder.status(path)
                    self._waiting[path] = status_of(status)
                    if before.get(path) == self._waiting[path]:
                        label = read_label(self._folder, path, self._settings.inbox.max_bytes)
                        del self._waiting[path]
                        if self._latest.get(bytes.fromhex(label[1])) != label[0]:
                            new[path] = label
                        files.append(file_of(name, status, label))
                        continue
                    is_complete = False
                except OSError as error:
                    self._tell(f"{printable(path)}: {error.strerror}")
            if known is not None:
                known["inode"] = CHANGED
                files.append(known)
        return (joined(files) if others else same), is_complete

    def _rest(self) -> None:
        """Let threads that answer go on: what is asked of 100,000 files would hold them up for a second or two."""
        self._stop.wait(REST_SECONDS)
        self._rested += REST_SECONDS

    def _without_known(self, new: dict[str, Label]) -> dict[str, Label]:
        """Leave out the elder of two labels that conflict, which after a restart is seen again."""
        return {
            name: label
            for name, label in new.items()
            if label not in self._earlier or (self._latest[bytes.fromhex(label[1])], label[1]) not in self.labels
        }

    def _notice(self, new: dict[str, Label], now: float) -> None:
        answers = find_answers(self._settings.index, self._index.is_current, self._results, new, self._stop)
        lines = []
        for name, (label, sha256) in new.items():
            line = {"noticed_at": timestamp(now), "file": printable(name), "sha256": sha256, "digit": as_digit(label)}
            lines.append(line | answers.get(name, NOT_FOUND).as_dict())
        self._journal.parent.mkdir(exist_ok=True)  # somebody may have taken it away
        append_line(self._journal, "\n".join(map(json.dumps, lines)))  # one sync for all
        for name, (label, sha256) in new.items():
            answer = answers.get(name, NOT_FOUND)
            agrees = agreement(label, answer.digit, answer.review_reason)
            self._remember((label, sha256), agrees)
            self._index.label((bytes.fromhex(sha256), as_digit(label), storable(name), now))
            self._metrics.corrections.labels({None: "unknown", True: "yes", False: "no"}[agrees]).inc()
            if others := [other for other in range(len(NAMES)) if other != label and (other, sha256) in self.labels]:
                log.warning(
                    "correction %s conflicts: the same image is labelled %s too; it will not be learnt from until one of "
                    "the two is removed",
                    printable(name),
                    ", ".join(NAMES[other] for other in others),
                )
            log.info("correction %s: the answer was %s", printable(name), answer)

    def _remember(self, label: Label, agrees: bool | None) -> None:
        digit, sha256 = label
        digest = bytes.fromhex(sha256)
        before = self._latest.get(digest, digit)
        if before != digit:
            self._earlier.add((before, sha256))
            self._earlier.discard(label)
        self._latest[digest] = digit
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
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told.add(text)
            log.warning("correction %s", text)
