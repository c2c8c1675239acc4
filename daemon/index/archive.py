"""archive/: what retention moved out, a tar a day, which `tar` reads: `tar -C ROOT -xf 2026-11-25.tar` puts it all back.

A day's file appears, and changes, only whole and durable. It is not compressed: pictures are already, a tar takes a third of
what small files take in folders, and one answer can be read from it without reading the others.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from daemon.files import replacing

PROCESSED, RESULTS, REJECTED = "processed", "results", "rejected"  # folders in the tar, whatever [paths] calls them
DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"  # what a day's archive is called; others may be beside it
BLOCK = 1 << 20  # bytes that are read at once


class Damaged(OSError):
    """An archive that cannot be read to its end; the message names it.

    Attributes:
        path: of the tar.

    """

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: expected a whole tar. Received: {reason}. Put a copy in its place, or move it away.")
        self.path = path


class Day:
    """The archive of one day, opened to be read.

    A day may have millions of members: each takes 24 bytes of memory here, under a digest of its name.

    Args:
        path: of the tar; a missing one holds nothing.

    Raises:
        Damaged: it is no whole tar.
        OSError: it cannot be read.

    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        self.end = 0  # where the next member goes
        self._names = self._offsets = self._sizes = np.empty(0, np.uint64)
        with suppress(FileNotFoundError):
            self._file = path.open("rb")
        if self._file is None:
            return
        names, offsets, sizes = array("Q"), array("Q"), array("Q")
        try:
            for member in self._headers():
                names.append(_digest(member.name))
                offsets.append(member.offset_data)
                sizes.append(member.size)
                self.end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if os.pread(self._file.fileno(), tarfile.BLOCKSIZE, self.end) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError(f"something else than an end at byte {self.end}")  # which tarfile takes for the end
        except BaseException as error:
            self._file.close()
            if not isinstance(error, tarfile.TarError):
                raise
            raise Damaged(path, error) from error
        order = np.argsort(np.array(names, np.uint64), kind="stable")
        self._names, self._offsets, self._sizes = (np.array(column, np.uint64)[order] for column in (names, offsets, sizes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[str]:
        """The names of its members, in their order."""
        return (member.name for member in self._headers())

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def size(self, name: str) -> int | None:
        """Of a member's content, in bytes; None where there is none."""
        found = self._find(name)
        return None if found is None else int(self._sizes[found])

    def read(self, name: str) -> Iterator[bytes]:
        """The content of a member, in pieces; nothing where there is none."""
        if self._file is None or (found := self._find(name)) is None:
            return
        offset, left = int(self._offsets[found]), int(self._sizes[found])
        while left > 0 and (piece := os.pread(self._file.fileno(), min(left, BLOCK), offset)):
            offset, left = offset + len(piece), left - len(piece)
            yield piece

    def _find(self, name: str) -> int | None:
        """Where a member is in the columns; the last of its name, as `tar` has it."""
        digest = np.uint64(_digest(name))
        place = int(np.searchsorted(self._names, digest, side="right")) - 1
        return place if place >= 0 and self._names[place] == digest else None

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        if self._file is None:
            return
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or all headers are kept: 1 KB each
                yield member


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def days(folder: Path | None) -> list[Path]:
    """The archives in a folder, oldest first."""
    return sorted(folder.glob(f"{DAY}.tar")) if folder else []


def identity(path: Path) -> str:
    """What another file in its place differs in; nothing where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left of a day's archive that was being written; all else in the folder is somebody's."""
    for left in folder.glob(f".{DAY}.*.tar"):
        left.unlink()


class _Padded:
    """A file that may shrink while it is read, as who dropped it may have it open still: zeros follow, as with tar(1)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size).ljust(size, tarfile.NUL)


def extend(path: Path, day: Day, files: Iterable[tuple[str, BinaryIO]]) -> int:
    """Add files to a day's archive: until all are in it, durably, it stays as it was.

    Args:
        path: of the tar.
        day: what it holds now.
        files: (name, content), none of which it holds.

    Returns:
        How many were added; the file is not touched where there are none.

    Raises:
        OSError: the machine failed; nothing has changed.

    """
    path.parent.mkdir(exist_ok=True)  # not what is above it: a disk that is to be mounted there may be missing
    files = iter(files)
    first = next(files, None)
    if first is None:
        return 0
    count = 0
    with replacing(path) as temporary:
        if day.end:
            shutil.copyfile(path, temporary)
        with temporary.open("r+b" if day.end else "wb") as target:
            target.seek(day.end)
            with tarfile.open(fileobj=target, mode="w:", format=tarfile.GNU_FORMAT) as tar:
                next_file: tuple[str, BinaryIO] | None = first
                while next_file is not None:
                    name, content = next_file
                    with content:
                        status = os.fstat(content.fileno())
                        member = tarfile.TarInfo(name)
                        member.size, member.mtime, member.mode = status.st_size, int(status.st_mtime), 0o644
                        tar.addfile(member, _Padded(content))  # type: ignore[arg-type]  # all that it asks for
                    tar.members = []  # type: ignore[attr-defined]
                    count += 1
                    next_file = next(files, None)
            target.truncate()
    return count
