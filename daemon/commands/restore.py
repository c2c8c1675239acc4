"""`digitd restore`: fetch an answer and its original, wherever they are by now, the archives included."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from daemon.config import WRITTEN, Settings
from daemon.files import printable
from daemon.folders import Folder
from daemon.index.archive import BLOCK, Day
from daemon.index.queries import Wanted, find
from daemon.index.retention import Part, parts
from daemon.index.schema import NOT_KEPT, ORIGINAL, reading
from daemon.processes import as_owner


def restore(settings: Settings, name: str, target: Path) -> int:
    """Copy what the name stands for into a folder; nothing that is there is replaced.

    Args:
        name: of the image, as in `digitd find`: whole, or a pattern with * and ?.
        target: where the copies go, under their names below processed/, results/ or rejected/.

    Returns:
        0, or 1 where something is nowhere, or could not be written.

    Raises:
        NoIndex: there is nothing to ask.

    """
    folders = [settings.folder(name) for name in WRITTEN]
    with as_owner(*folders), reading(settings.index) as connection:
        pattern = any(character in name for character in "*?[")
        rows = [row for row in find(connection, Wanted(name)) if pattern or os.fsdecode(row["name"]) == name]
    failed = not rows
    if not rows:
        print(f"Expected the name of an image that was answered. Received: {name!r}; see `digitd find`.", file=sys.stderr)
    for row in rows:
        for part in parts(row):
            try:
                content = _content(settings, row, part)
                with as_owner(*folders):  # what opens the file; what is written is the caller's own
                    first = next(content, b"")
                _copy(first, content, target, part.path)
            except (OSError, ValueError) as error:
                why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
                print(f"{printable(part.path)}: {why}", file=sys.stderr)
                failed = True
            else:
                print(printable(str(target / part.path)))
    return int(failed)


def _content(settings: Settings, row: sqlite3.Row, part: Part) -> Iterator[bytes]:
    if part.bit == ORIGINAL and row["reason"] == NOT_KEPT:
        raise FileNotFoundError("it was not kept, for it was no regular file")
    if row["gone"] & part.bit:
        if not row["archive"] or settings.archive is None:
            raise FileNotFoundError("it was deleted")
        with Day(settings.archive / row["archive"]) as day:
            if part.member not in day:
                raise FileNotFoundError(f"{row['archive']} does not hold it: somebody had taken it away")
            yield from day.read(part.member)
        return
    with Folder(settings.folder(part.key)) as folder, open(folder.open(part.path, os.O_RDONLY), "rb") as file:  # noqa: PTH123
        while piece := file.read(BLOCK):
            yield piece


def _copy(first: bytes, content: Iterator[bytes], target: Path, name: str) -> None:
    """Write a new file. What the index calls it leads nowhere else."""
    with Folder(target, make=True) as folder:
        folder.make_parents(name)
        try:
            descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise FileExistsError(f"expected a free name in {(target / name).parent}. Received: one that is taken") from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(first)
                file.writelines(content)
        except BaseException:
            folder.unlink(name)
            raise
