"""Labels by the hundred thousand: 33 bytes each, where a frozenset of them takes 280."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from daemon.config import Settings
from daemon.files import write_durably
from daemon.training.corrections import NAMES, Label

BYTES = 33
ROW = np.dtype(f"S{BYTES}")


def pack(label: Label) -> bytes:
    """The digit, or NO_DIGIT, and the digest."""
    return bytes([label[0]]) + bytes.fromhex(label[1])


def unpack(row: bytes) -> Label:
    """What `pack` packed; NumPy leaves out zeros at the end."""
    return row[0] if row else 0, row[1:].ljust(BYTES - 1, b"\0").hex()


class Labels(Set[Label]):
    """A set of labels that never changes.

    Args:
        labels: some, or an array of packed ones, which becomes the set's own.

    """

    def __init__(self, labels: Iterable[Label] | np.ndarray = ()) -> None:
        rows = labels if isinstance(labels, np.ndarray) else np.fromiter(map(pack, labels), ROW)
        rows.sort()  # in place: np.unique would leave the process three times as large
        is_again = rows[1:] == rows[:-1]
        self._rows = np.delete(rows, np.flatnonzero(is_again)) if is_again.any() else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Label]:
        return map(unpack, self._rows)

    def __contains__(self, label: object) -> bool:
        if not isinstance(label, tuple):
            return False
        row = np.array(pack(label), ROW)
        at = int(np.searchsorted(self._rows, row))
        return at < len(self._rows) and bool(self._rows[at] == row)

    def __sub__(self, other: Set[Any]) -> Labels:
        others = _rows_of(other)
        if not len(others):
            return self
        nearest = others[np.searchsorted(others, self._rows).clip(max=len(others) - 1)]
        return Labels(self._rows[nearest != self._rows])

    def __or__(self, other: Set[Any]) -> Labels:
        return Labels(np.concatenate([self._rows, _rows_of(other)]))


def _rows_of(labels: Set[Label]) -> np.ndarray:
    return (labels if isinstance(labels, Labels) else Labels(labels))._rows  # noqa: SLF001 -- of this class


def write_learnt(settings: Settings, labels: Iterable[Label]) -> None:
    """Remember what the last training that ended looked at: logs/learnt.txt, a line "7 <sha256>" for each label."""
    text = "".join(f"{NAMES[label]} {sha256}\n" for label, sha256 in sorted(set(labels)))
    write_durably(settings.folder("logs") / "learnt.txt", text.encode())


def read_learnt(settings: Settings) -> Labels:
    """What the last training that ended looked at; nothing where that was never written."""
    return Labels(np.fromiter(_packed_lines(settings.folder("logs") / "learnt.txt"), ROW))


def _packed_lines(path: Path) -> Iterator[bytes]:
    with suppress(FileNotFoundError), path.open(encoding="ascii", errors="replace") as lines:
        for name, _, sha256 in (line.strip().partition(" ") for line in lines):
            if name in NAMES and len(sha256) == 2 * (BYTES - 1):
                with suppress(ValueError):  # somebody wrote into it
                    yield pack((NAMES.index(name), sha256))
