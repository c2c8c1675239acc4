"""archive/: what retention moved out, a tar a day, which `tar` reads: `tar -C ROOT -xf 2026-11-25.tar` puts it all back.

A day's file appears, and changes, only whole and durable. It is not compressed: pictures are already, a tar takes a third of
what small files take in folders, and one answer can be read from it without reading the others.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from daemon.files import replacing

PROCESSED, RESULTS, REJECTED = "processed", "results", "rejected"  # folders in the tar, whatever [paths] calls them
DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"  # what a day's archive is called; others may be beside it
BLOCK = 1 << 20  # bytes that are read at once


class Member(NamedTuple):
    """Where a file's content is in a tar, in bytes."""

    offset: int
    size: int


class Day:
    """The archive of one day, opened to be read.

    Args:
        path: of the tar; a missing one holds nothing.

    Raises:
        tarfile.TarError, OSError: it is damaged, or cannot be read.

    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        self.members: dict[str, Member] = {}
        self.end = 0  # where the next member goes
        with suppress(FileNotFoundError):
            self._file = path.open("rb")
        if self._file is None:
            return
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for member in tar:
                    self.members[member.name] = Member(member.offset_data, member.size)
                    tar.members = []  # type: ignore[attr-defined]  # or all headers are kept: 1 KB each
                    self.end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, name: str) -> Iterator[bytes]:
        """The content of a member, in pieces; nothing where there is none."""
        if self._file is None or name not in self.members:
            return
        offset, left = self.members[name]
        while left > 0 and (piece := os.pread(self._file.fileno(), min(left, BLOCK), offset)):
            offset, left = offset + len(piece), left - len(piece)
            yield piece


def days(folder: Path | None) -> list[Path]:
    """The archives in a folder, oldest first."""
    return sorted(folder.glob(f"{DAY}.tar")) if folder else []


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left of a day's archive that was being written; all else in the folder is somebody's."""
    for left in folder.glob(f".{DAY}.*.tar"):
        left.unlink()


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
    files = iter(files)
    first = next(files, None)
    if first is None:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
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
                        tar.addfile(member, content)
                    tar.members = []  # type: ignore[attr-defined]
                    count += 1
                    next_file = next(files, None)
            target.truncate()
    return count
