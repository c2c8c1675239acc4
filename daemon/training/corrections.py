"""What people have corrected: images in corrections/<digit>/, each a label for what it shows.

By its normalised pixels each correction belongs for ever to one part: about one in five to the gate, one in ten to
validation, the rest to training. So no answer is ever tested on what it was taught, in whatever format the picture came.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.config import InboxSettings, Settings
from daemon.files import file_sha256, printable, write_durably
from daemon.reading.workers import decode_all
from daemon.training.dataset import Split

DIGITS = tuple(str(digit) for digit in range(10))
Label = tuple[int, str]  # a digit, and the SHA-256 of the file that shows it


@dataclass(frozen=True)
class Corrections:
    """All usable corrections, parted by their normalised pixels.

    Attributes:
        train, validation, gate: the parts.
        conflicts: images that were labelled as two digits, in words; left out.
        refused: files that are no image or cannot be read, with the reason; left out.

    """

    train: Split
    validation: Split
    gate: Split
    conflicts: list[str]
    refused: list[str]

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.gate)


def part_of(sha256: str) -> str:
    """Which part a correction belongs to: "gate" (1 in 5), "validation" (1 in 10) or "train".

    Args:
        sha256: of its normalised pixels.

    """
    share = int(sha256[:8], 16) % 10
    return "gate" if share < 2 else "validation" if share == 2 else "train"


def load_corrections(folder: Path, limits: InboxSettings) -> Corrections:
    """Decode every correction, by the same code and under the same limits as the inbox.

    Args:
        folder: corrections/.
        limits: how large an image may be, and how long it may take.

    Returns:
        The parts; what cannot be used is named in them, never fatal.

    """
    refused: list[str] = []
    names = [name for name, _ in list_corrections(folder, lambda error: refused.append(_in_words(error)))]
    decoded = decode_all(folder, names, limits)
    refused += [f"{printable(item.drop.name)}: {item.reason}: {item.detail}" for item in decoded.refused]
    refused += [f"{printable(drop.name)}: {error}" for drop, error in decoded.failed]
    found: dict[str, tuple[np.ndarray, dict[int, str]]] = {}
    for drop, pixels in zip(decoded.drops, decoded.readings.likeliest, strict=True):
        _, named = found.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), (pixels, {}))
        named[int(drop.name[0])] = drop.name
    conflicts = [
        f"one image is labelled as {' and as '.join(map(str, sorted(named)))}: "
        f"{', '.join(printable(name) for _, name in sorted(named.items()))}"
        for _, named in found.values()
        if len(named) > 1
    ]
    parts: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "validation": [], "gate": []}
    for sha256, (pixels, named) in sorted(found.items()):
        if len(named) == 1:
            parts[part_of(sha256)].append((pixels, next(iter(named))))
    return Corrections(**{part: _as_split(items) for part, items in parts.items()}, conflicts=conflicts, refused=refused)


def list_corrections(
    folder: Path, on_error: Callable[[OSError], None] = lambda _: None
) -> Iterator[tuple[str, os.stat_result]]:
    """The files below corrections/0 to corrections/9: "7/a.png" and its status; hidden ones are left out.

    Args:
        folder: corrections/.
        on_error: told of each folder that cannot be looked into.

    """
    pending = deque(DIGITS)
    while pending:
        below = pending.popleft()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            on_error(error)
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


def read_labels(folder: Path) -> frozenset[Label]:
    """Every label below corrections/ whose file can be read."""
    labels = set()
    for name, _ in list_corrections(folder):
        try:
            labels.add((int(name[0]), file_sha256(folder / name)))
        except OSError:
            continue  # the training names it
    return frozenset(labels)


def write_learnt(settings: Settings, labels: frozenset[Label]) -> None:
    """Remember what the last training that ended looked at: logs/learnt.txt, a line "7 <sha256>" for each label."""
    text = "".join(f"{digit} {sha256}\n" for digit, sha256 in sorted(labels))
    write_durably(settings.folder("logs") / "learnt.txt", text.encode())


def read_learnt(settings: Settings) -> frozenset[Label]:
    """What the last training that ended looked at; nothing where that was never written."""
    try:
        lines = (settings.folder("logs") / "learnt.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return frozenset()
    return frozenset((int(digit), sha256) for digit, _, sha256 in (line.partition(" ") for line in lines))


def _as_split(items: list[tuple[np.ndarray, int]]) -> Split:
    if not items:
        return Split(np.empty((0, 28, 28), np.uint8), np.empty(0, np.uint8))
    return Split(np.stack([pixels for pixels, _ in items]), np.array([digit for _, digit in items], np.uint8))


def _in_words(error: OSError) -> str:
    return f"{printable(os.fspath(error.filename))}: {error.strerror}"
