"""What people have corrected: images in corrections/<digit>/, each a label for its bytes.

By its content hash each correction belongs for ever to one part: about one in five to the gate, one in ten to validation,
the rest to training. So no answer is ever tested on what it was taught.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.answering.naming import json_name
from daemon.clock import timestamp
from daemon.config import InboxSettings, Settings
from daemon.files import append_line, file_sha256, printable, read_lines
from daemon.reading.workers import decode_all
from daemon.telemetry.metrics import Metrics
from daemon.training.dataset import Split

log = logging.getLogger(__name__)

DIGITS = tuple(str(digit) for digit in range(10))
LIVE_WINDOW = 200  # corrections that the live accuracy is taken over
HASHED_PER_PASS = 500  # new corrections looked at in one pass; the rest waits for the next


@dataclass(frozen=True)
class Corrections:
    """All usable corrections, parted by content hash.

    Attributes:
        train, validation, gate: the parts.
        conflicts: images that were labelled as two digits, in words; left out.
        refused: files that are no image, with the reason; left out.

    """

    train: Split
    validation: Split
    gate: Split
    conflicts: list[str]
    refused: list[str]

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.gate)


def part_of(sha256: str) -> str:
    """Which part a correction belongs to: "gate" (1 in 5), "validation" (1 in 10) or "train"."""
    share = int(sha256[:8], 16) % 10
    return "gate" if share < 2 else "validation" if share == 2 else "train"


def load_corrections(folder: Path, limits: InboxSettings) -> Corrections:
    """Decode every correction, by the same code and under the same limits as the inbox.

    Args:
        folder: corrections/.
        limits: how large an image may be, and how long it may take.

    Returns:
        The parts; a file that cannot be used is named in them, never fatal.

    """
    names = [name for name, _ in list_corrections(folder)]
    decoded = decode_all(folder, names, limits)
    refused = [f"{printable(item.drop.name)}: {item.reason}: {item.detail}" for item in decoded.refused]
    refused += [f"{printable(drop.name)}: {error}" for drop, error in decoded.failed]
    labels: dict[str, dict[int, str]] = {}
    pixels = {}
    for drop, image, array in zip(decoded.drops, decoded.images, decoded.readings.likeliest, strict=True):
        labels.setdefault(image.sha256, {})[int(drop.name[0])] = drop.name
        pixels[image.sha256] = array
    conflicts = [
        f"one image is labelled as {' and as '.join(map(str, sorted(named)))}: "
        f"{', '.join(printable(name) for _, name in sorted(named.items()))}"
        for named in labels.values()
        if len(named) > 1
    ]
    parts: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "validation": [], "gate": []}
    for sha256, named in sorted(labels.items()):
        if len(named) == 1:
            parts[part_of(sha256)].append((pixels[sha256], next(iter(named))))
    return Corrections(**{part: _as_split(items) for part, items in parts.items()}, conflicts=conflicts, refused=refused)


def list_corrections(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files below corrections/0 to corrections/9: "7/a.png" and its status; hidden ones are left out."""
    pending = deque(DIGITS)
    while pending:
        below = pending.popleft()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{below}/{entry.name}")
            elif entry.is_file(follow_symlinks=False):
                try:
                    yield f"{below}/{entry.name}", entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue


def _as_split(items: list[tuple[np.ndarray, int]]) -> Split:
    if not items:
        return Split(np.empty((0, 28, 28), np.uint8), np.empty(0, np.uint8))
    return Split(np.stack([pixels for pixels, _ in items]), np.array([digit for _, digit in items], np.uint8))


class CorrectionWatch:
    """Notices new corrections, and compares each with the answer that its bytes were given.

    Args:
        folder: corrections/.
        results: where the answers are.
        journal: a .jsonl of what was noticed, so that a restart counts nothing twice.
        metrics: counts agreement, shows the live accuracy.

    """

    def __init__(self, folder: Path, results: Path, journal: Path, metrics: Metrics) -> None:
        self._folder, self._results, self._journal, self._metrics = folder, results, journal, metrics
        self._status: dict[str, tuple[int, int]] = {}  # (size, mtime) at the last pass
        self._done: dict[str, tuple[int, int]] = {}
        self._known: set[tuple[str, int]] = set()
        self._noticed: list[float] = []
        self._agreed: deque[bool] = deque(maxlen=LIVE_WINDOW)
        for line in read_lines(journal):
            self._remember(line)
        self._show()

    def run_once(self) -> int:
        """Take in the corrections that did not change since the last pass, so that none is half-written.

        Returns:
            How many were new.

        """
        before, self._status = self._status, {}
        new = 0
        for name, status in list_corrections(self._folder):
            self._status[name] = key = (status.st_size, status.st_mtime_ns)
            if self._done.get(name) == key or before.get(name) != key or new >= HASHED_PER_PASS:
                continue
            try:
                sha256 = file_sha256(self._folder / name)
            except OSError as error:
                log.warning("correction %s: %s", printable(name), error)
                continue
            self._done[name] = key
            if (sha256, int(name[0])) not in self._known:
                new += 1
                self._notice(name, sha256)
        self._done = {name: key for name, key in self._done.items() if name in self._status}
        if new:
            self._show()
        return new

    def new_since(self, moment: float) -> int:
        """How many corrections were noticed after a moment, in seconds since the epoch."""
        return sum(noticed > moment for noticed in self._noticed)

    def last_noticed(self) -> float:
        """When the newest correction was noticed; 0.0 where there is none."""
        return max(self._noticed, default=0.0)

    def _notice(self, name: str, sha256: str) -> None:
        digit, _, below = name.partition("/")
        result = find_result(self._results, below, sha256)
        predicted = result["digit"] if result else None
        line = {
            "at": time.time(),
            "noticed_at": timestamp(time.time()),
            "file": printable(name),
            "sha256": sha256,
            "digit": int(digit),
            "predicted": predicted,
            "model": result["model"]["version"] if result else None,
        }
        append_line(self._journal, json.dumps(line))
        self._remember(line)
        agrees = "unknown" if predicted is None else "yes" if predicted == int(digit) else "no"
        self._metrics.corrections.labels(agrees).inc()
        other = sorted(known for known_sha, known in self._known if known_sha == sha256 and known != int(digit))
        if other:
            log.warning(
                "correction %s conflicts: the same image is labelled %s too; it will not be learnt from",
                printable(name),
                other,
            )
        log.info("correction %s: the answer was %s", printable(name), "not found" if predicted is None else predicted)

    def _remember(self, line: dict[str, Any]) -> None:
        self._known.add((line["sha256"], line["digit"]))
        self._noticed.append(line["at"])
        if line["predicted"] is not None:
            self._agreed.append(line["predicted"] == line["digit"])

    def _show(self) -> None:
        if self._agreed:
            self._metrics.live_accuracy.set(sum(self._agreed) / len(self._agreed))
            self._metrics.live_accuracy_images.set(len(self._agreed))


def correct(settings: Settings, name: str, digit: int) -> Path:
    """Label an image that was answered, by copying its original into corrections/<digit>/.

    Args:
        name: of the result ("results/a.png.json", "a.png.json") or of the image ("a.png").
        digit: what it really is.

    Returns:
        The copy.

    Raises:
        FileNotFoundError: there is no such image in processed/ or rejected/.

    """
    for answers, originals in (("results", "processed"), ("rejected", "rejected")):
        answered = settings.folder(answers)
        below = _below(name, settings.root, answered, settings.folder(originals))
        sha256 = _content(answered / below if below.endswith(".json") else answered / f"{below}.json").get("sha256")
        plain = Path(below.removesuffix(".json"))
        for candidate in (plain, plain.with_name(f"{plain.stem}~{str(sha256)[:8]}{plain.suffix}")):
            source = settings.folder(originals) / candidate
            if source.is_file() and sha256 in (None, file_sha256(source)):
                target = settings.folder("corrections") / str(digit) / candidate
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy_whole(source, target)
                return target
    raise FileNotFoundError(
        f"Expected the name of a result, or of an image that was answered. Received: {name!r}, and there is no original "
        f"for it in {settings.folder('processed')} or {settings.folder('rejected')}."
    )


def find_result(results: Path, name: str, sha256: str) -> dict[str, Any] | None:
    """The answer that these bytes were given: under their own name, else under the same last name in any sub-folder."""
    content = _content(results / json_name(name, sha256, results))
    if content.get("sha256") == sha256:
        return content
    plain = Path(name)
    wanted = {f"{plain.name}.json", f"{plain.stem}~{sha256[:8]}{plain.suffix}.json"}
    for folder, _, names in os.walk(results):
        for found in wanted.intersection(names):
            content = _content(Path(folder) / found)
            if content.get("sha256") == sha256:
                return content
    return None


def _below(name: str, root: Path, *folders: Path) -> str:
    for path in (Path(name).absolute(), root / name):
        for folder in folders:
            if path.is_relative_to(folder):
                return str(path.relative_to(folder))
    return name


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _copy_whole(source: Path, target: Path) -> None:
    """Copy under a hidden name, then rename, so that nobody sees half an image."""
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}")
    temporary.write_bytes(source.read_bytes())
    temporary.replace(target)
