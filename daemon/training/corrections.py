"""What people have corrected: images in corrections/<digit>/ and corrections/none/, each a label for what it shows.

By its normalised pixels each correction belongs for ever to one part: about one in five to the gate, one in ten to
validation, the rest to training. So no answer is ever tested on what it was taught, in whatever format the picture came.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np

from daemon.config import InboxSettings
from daemon.files import printable
from daemon.folders import Folder
from daemon.reading.chunks import decode_all
from daemon.training.dataset import NO_DIGIT, Split

NAMES = (*(str(digit) for digit in range(10)), "none")  # of the folders below corrections/, by label; "none" is NO_DIGIT's
MOST_LISTED = 200_000  # files and folders of one label: each takes 0.5 KB, and people can make more than memory holds
ALIKE = 8.0  # grey levels, root mean square
Label = tuple[int, str]  # a digit or NO_DIGIT, and the SHA-256 of the file that shows it


@dataclass(frozen=True)
class Corrections:
    """All usable corrections, parted by their normalised pixels.

    Attributes:
        train, validation: two of the parts.
        gate, gate_none: the third: what shows a digit, and what shows none.
        left_out: what is not used, and why, in words: what is no image or cannot be read, an image that is labelled as two
            digits, one to learn from that looks like one of the gate's or of a hold-out, and what is too much.

    """

    train: Split
    validation: Split
    gate: Split
    gate_none: Split
    left_out: list[str]

    def __len__(self) -> int:
        return sum(map(len, (self.train, self.validation, self.gate, self.gate_none)))


def part_of(sha256: str) -> str:
    """Which part a correction belongs to: "gate" (1 in 5), "validation" (1 in 10) or "train".

    Args:
        sha256: of its normalised pixels.

    """
    share = int(sha256[:8], 16) % 10
    return "gate" if share < 2 else "validation" if share == 2 else "train"


def load_corrections(
    folder: Path, limits: InboxSettings, holdouts: Iterable[np.ndarray] = (), most: int | None = None
) -> Corrections:
    """Decode corrections, by the same code and under the same limits as the inbox.

    Args:
        folder: corrections/.
        limits: how large an image may be, and how long it may take.
        holdouts: other images that are not to be learnt from, each (n, 28, 28) uint8.
        most: how many are used; where there are more, the newest, and of rare labels as many as there are.

    Returns:
        The parts; what cannot be used is named in them, never fatal.

    """
    left_out: list[str] = []
    decoded = decode_all(folder, list_usable(folder, left_out.append, most), limits)
    left_out += [f"{printable(item.drop.name)}: {item.reason}: {item.detail}" for item in decoded.refused]
    left_out += [f"{printable(drop.name)}: {error.strerror}" for drop, error in decoded.failed]
    found: dict[str, tuple[np.ndarray, dict[int, str]]] = {}  # by digest of pixels: those, and who has which label
    for drop, pixels in zip(decoded.drops, decoded.readings.likeliest, strict=True):
        _, named = found.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), (pixels, {}))
        named[label_of(drop.name)] = drop.name
    parts: dict[str, list[tuple[np.ndarray, int, str]]] = {"train": [], "validation": [], "gate": []}
    for sha256, (pixels, named) in sorted(found.items()):
        if len(named) == 1:
            parts[part_of(sha256)].append((pixels, *next(iter(named.items()))))
        else:
            shown, names = " and as ".join(NAMES[label] for label in sorted(named)), sorted(map(printable, named.values()))
            left_out.append(f"one image is labelled as {shown}: {', '.join(names)}")
    gate = _as_split(parts["gate"])
    held = np.concatenate([gate.x, *holdouts])
    for part in ("train", "validation"):
        alike = are_alike(_as_split(parts[part]).x, held)
        left_out += [
            f"{printable(name)}: it looks like an image that is held back"
            for (_, _, name), is_alike in zip(parts[part], alike, strict=True)
            if is_alike
        ]
        parts[part] = [item for item, is_alike in zip(parts[part], alike, strict=True) if not is_alike]
    digits = gate.y != NO_DIGIT
    held_back = Split(gate.x[digits], gate.y[digits]), Split(gate.x[~digits], gate.y[~digits])
    return Corrections(_as_split(parts["train"]), _as_split(parts["validation"]), *held_back, left_out)


def are_alike(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of (n, 28, 28) images are one of (m, 28, 28) others in another encoding: (n,) bool.

    A JPEG of quality 75 differs from its PNG by 5.5 grey levels (root mean square) at 28x28, and by less where the picture
    is larger; the two most similar of MNIST's 10,000 test digits differ by 9.8.
    """
    alike = np.zeros(len(images), bool)
    if len(images) and len(others):
        far = ALIKE**2 * 28 * 28
        # Means of 4x4 pixels are never further apart than the pixels, and tell most from each other with a 16th of the work.
        near = _nearest(_coarse(images), _coarse(others)) <= 1.001 * far  # for what is rounded
        alike[near] = _nearest(_flat(images[near]), _flat(others)) <= far
    return alike


def _coarse(images: np.ndarray) -> np.ndarray:
    return 4 * _flat(images).reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(len(images), 7 * 7)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), 28 * 28).astype(np.float32)


def _nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The squared distance of each of (n, d) points to the nearest of (m, d) others: (n,)."""
    a = np.pad(a, ((0, 0), (0, 1)), constant_values=1)  # |a - b|^2 = |a|^2 - 2ab + |b|^2: the last two in one product
    products = np.vstack([-2 * b.T, (b * b).sum(axis=1)])
    thousands = np.split(a, range(1000, len(a), 1000))  # at a time, for the memory's sake
    return np.concatenate([(part @ products).min(axis=1) + (part * part).sum(axis=1) - 1 for part in thousands])


def make_folders(folder: Folder) -> None:
    """Make a sub-folder for each label, for whoever may write to corrections/; where that cannot be done, people do it."""
    with suppress(OSError):
        others = Path(folder.path).stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for name in NAMES:
            if not folder.holds(name):
                folder.make_parents(f"{name}/")
                descriptor = folder.open_folder(name)
                try:
                    mode = os.fstat(descriptor).st_mode
                    if mode | others != mode:
                        os.fchmod(descriptor, stat.S_IMODE(mode) | others)
                finally:
                    os.close(descriptor)


def list_corrections(folder: Folder, tell: Callable[[str], None] = lambda _: None) -> Iterator[tuple[str, os.stat_result]]:
    """The files below corrections/<digit>/ and corrections/none/: "7/a.png" and its status.

    Args:
        folder: corrections/.
        tell: told of what cannot be looked into, and of links, which are not followed.

    """
    pending, listed = deque(NAMES), Counter[str]()
    while pending:
        below = pending.popleft()
        entries = list_folder(folder, below, tell, listed)
        found = [(f"{below}/{entry.name}", status) for entry in entries if (status := status_in(below, entry, tell))]
        for name, status in sorted(found, key=itemgetter(0)):
            if stat.S_ISDIR(status.st_mode):
                pending.append(name)
            elif stat.S_ISREG(status.st_mode):
                yield name, status


def list_folder(folder: Folder, below: str, tell: Callable[[str], None], listed: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """The files and folders in a sub-folder of corrections/; hidden ones are left out. To be consumed at once.

    Args:
        folder: corrections/.
        below: the sub-folder.
        tell: told of what is left out.
        listed: how many this walk has met of each label, by its folder; no more than MOST_LISTED.

    """
    label = below.partition("/")[0]
    try:
        for entry in folder.entries(below):
            if entry.name.startswith("."):
                continue
            if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
                if listed[label] >= MOST_LISTED:
                    tell(
                        f"{label}: expected at most {MOST_LISTED:,} files and folders. Received: more; the rest is left out"
                    )
                    return
                listed[label] += 1
                yield entry
            else:
                tell(
                    f"{printable(f'{below}/{entry.name}')}: expected a file. Received: something else, such as a link, "
                    "which is not followed"
                )
    except FileNotFoundError:
        return
    except OSError as error:
        tell(f"{printable(below)}: expected a folder that can be looked into. Received: {error.strerror}")


def status_in(below: str, entry: os.DirEntry[str], tell: Callable[[str], None]) -> os.stat_result | None:
    """The status of what a sub-folder of corrections/ holds; None where it has gone, or the folder may only be listed."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        tell(f"{printable(f'{below}/{entry.name}')}: {error.strerror}")
        return None


def last_change(folder: Folder, below: str) -> int:
    """When a name last came into a folder or went, in ns since the epoch; -1 where there is none."""
    try:
        return folder.status(below).st_mtime_ns
    except OSError:
        return -1


def label_of(name: str) -> int:
    """The digit, or NO_DIGIT, that a file below corrections/ is labelled as."""
    return NAMES.index(name.partition("/")[0])


def read_label(folder: Folder, name: str, max_bytes: int) -> Label:
    """The label that a file is.

    Raises:
        OSError: it cannot be read, or is larger than that: nobody could wait for the end of some files.

    """
    with folder.open_to_read(name) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= max_bytes else None  # room for so much is asked for before it is read
    if content is None or len(content) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return label_of(name), sys.intern(hashlib.sha256(content).hexdigest())


def list_usable(path: Path, tell: Callable[[str], None], most: int | None = None) -> list[str]:
    """The files below corrections/ that are to be used, unread; none where there is no such folder.

    Args:
        path: of corrections/.
        tell: told of what is left out, and why.
        most: how many are used; all unless given.

    """
    if not path.is_dir():
        return []
    with Folder(path) as folder:
        changed = {name: status.st_ctime for name, status in list_corrections(folder, tell)}
    chosen = changed if most is None else choose(changed, most)
    if left := len(changed) - len(chosen):
        tell(
            f"{left} of {len(changed)} corrections: more than [retrain] most_corrections, {most}; the newest are used, "
            "and of rare labels as many as there are"
        )
    return [name for name in changed if name in chosen]


def choose(changed: Mapping[str, float], most: int) -> set[str]:
    """The newest corrections, of each label the same number; what rare ones leave goes to the others.

    Args:
        changed: when each last did, by its name below corrections/.
        most: how many are chosen.

    """
    by_label: dict[str, list[str]] = {}
    for name in sorted(changed, key=lambda name: (-changed[name], name)):
        by_label.setdefault(name.partition("/")[0], []).append(name)
    chosen: set[str] = set()
    for number, names in enumerate(sorted(by_label.values(), key=len)):
        chosen.update(names[: (most - len(chosen)) // (len(by_label) - number)])
    return chosen


def _as_split(items: list[tuple[np.ndarray, int, str]]) -> Split:
    if not items:
        return Split(np.empty((0, 28, 28), np.uint8), np.empty(0, np.uint8))
    return Split(np.stack([pixels for pixels, _, _ in items]), np.array([digit for _, digit, _ in items], np.uint8))
