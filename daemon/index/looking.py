"""What files the folders of answers hold, and what is in them; below them no link is followed."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from daemon.config import TEMPORARY, Settings
from daemon.files import file_system_time
from daemon.folders import Folder
from daemon.index import archive
from daemon.index.archive import REJECTED, RESULTS

CORRECTIONS = "corrections"
MAX_JSON = 1 << 16  # bytes; ours are under 2,000


def past(settings: Settings) -> float | None:
    """Until when others than a daemon that begins now may have answered, or labelled: now, by the file system's clock.

    Returns:
        None where nothing is in the folders, as in a fresh root.

    """
    holds_any = any(_holds_any(settings.folder(name)) for name in (RESULTS, REJECTED, CORRECTIONS))
    if not holds_any and not archive.days(settings.archive):
        return None
    return file_system_time(settings.folder(RESULTS) / TEMPORARY)


def _holds_any(path: Path) -> bool:
    folder = open_folder(path)
    if folder is None:
        return False
    with folder:
        return next(files(folder, 0.0, others=True), None) is not None


def open_folder(path: Path) -> Folder | None:
    """A folder, held open; None where there is none."""
    try:
        return Folder(path)
    except FileNotFoundError:
        return None


def files(folder: Folder, since: float, until: float = math.inf, others: bool = False) -> Iterator[str]:
    """The files below a folder that changed in that time. Folders are not looked into in which none can have.

    Where `others` may write to it, sub-folders that cannot be looked into are theirs to hide.
    """
    pending = [""]
    while pending:
        place = pending.pop()
        try:
            status = folder.status(place.rstrip("/")) if place else Path(folder.path).stat()
            if status.st_mtime < since and status.st_nlink == 2:
                continue  # no sub-folders, and no name has come or gone
            is_any = not since and status.st_mtime <= until
            for entry in folder.entries(place.rstrip("/")):
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != TEMPORARY:
                        pending.append(f"{place}{entry.name}/")
                elif entry.is_file(follow_symlinks=False) and (is_any or _changed_in(entry, since, until)):
                    yield f"{place}{entry.name}"
        except OSError as error:
            if not others and not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            continue  # it was moved away meanwhile


def _changed_in(entry: os.DirEntry[str], since: float, until: float) -> bool:
    """Whether a file was written last in that time, without an open: a fourth of the time.

    What is from the future was written while the clock was wrong, nobody knows when.
    The clock is read for each: a filling takes minutes, and what the daemon writes meanwhile is not from the future.
    """
    try:
        changed = entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return False
    return since <= changed and not until < changed <= time.time()


def read(folder: Folder, path: str) -> bytes | None:
    """The content of a JSON; None where it is gone, and where a folder has its name by now."""
    try:
        descriptor = folder.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(descriptor, MAX_JSON)
    except IsADirectoryError:
        return None
    finally:
        os.close(descriptor)


def size_of(folder: Folder | None, name: str) -> int | None:
    """Of a file, in bytes; None where there is none."""
    try:
        return folder.status(name).st_size if folder else None
    except OSError:
        return None


def digest(folder: Folder, path: str, most: int) -> bytes | None:
    """Of a file's content; None where it cannot be read, or has come to be longer than that."""
    try:
        with folder.open_to_read(path) as file:
            content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except OSError:
        return None
    return hashlib.sha256(content).digest() if content is not None and len(content) <= most else None
