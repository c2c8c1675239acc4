"""Which files below corrections/ were read, and as what: 57 bytes a file, under a hash of its name."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daemon.config import Settings
from daemon.folders import Folder
from daemon.index.schema import NoIndex, reading
from daemon.training.corrections import NAMES, Label, list_folder, read_label, status_in
from daemon.training.dataset import NO_DIGIT
from daemon.training.labels import ROW, Labels, pack

# By the name's hash. A status below 0 is of what the index recalls: the file is the same if it last changed before. The
# inode is 0 where it is not known, and CHANGED where the file is to be read again.
FILE = np.dtype([("name", np.int64), ("inode", np.uint64), ("status", np.int64), ("label", ROW)])
CHANGED = 2**64 - 1
AT_ONCE = 100  # files that are asked for their status before other threads get their turn
RECALLED_AT_ONCE = 1000  # rows


class Place(NamedTuple):
    """A folder as it was at the last look.

    Attributes:
        changed: when a name had last come or gone.
        is_settled: whether there is nothing to look for until that changes.
        folders: those in it, from corrections/.
        files: of FILE, by the name's hash.

    """

    changed: int
    is_settled: bool
    folders: list[str]
    files: np.ndarray


class Listing(NamedTuple):
    """What is in a folder now.

    Attributes:
        folders: from corrections/.
        names: of the files.
        inodes: theirs.
        statuses, changes: theirs, as of `status_of`, and when each last changed; both empty where nobody asked.

    """

    folders: list[str]
    names: list[str]
    inodes: np.ndarray
    statuses: np.ndarray
    changes: np.ndarray


def status_of(status: os.stat_result) -> int:
    """What changes when a file is written."""
    return hash((status.st_ctime_ns, status.st_size)) & (1 << 63) - 1


def look_into(
    folder: Folder, below: str, tell: Callable[[str], None], listed: Counter[str], rest: Callable[[], None] | None
) -> Listing:
    """List a folder.

    Args:
        folder: corrections/.
        below: which sub-folder.
        tell: told of what is neither a file nor a folder, and of what may not be looked at.
        listed: as `list_folder` takes it.
        rest: called again and again while each file is asked for its status; None where none is.

    """
    folders, names = [], []
    inodes, statuses, changes = array("Q"), array("q"), array("q")
    for entry in list_folder(folder, below, tell, listed):
        if entry.is_dir(follow_symlinks=False):
            folders.append(f"{below}/{entry.name}")
            continue
        if rest is not None:
            status = status_in(below, entry, tell)
            if status is None:
                continue
            statuses.append(status_of(status))
            changes.append(status.st_ctime_ns)
            if not len(statuses) % AT_ONCE:
                rest()
        names.append(entry.name)
        inodes.append(entry.inode())
    return Listing(folders, names, np.array(inodes, np.uint64), np.array(statuses, np.int64), np.array(changes, np.int64))


def compare(files: np.ndarray, now: Listing) -> tuple[np.ndarray, dict[str, np.ndarray | None]]:
    """Part what is there now.

    Returns:
        The files that are the same, with what is known of them now; and the names of the others, each with what was known
        of a file of that name.

    """
    hashes = np.fromiter(map(hash, now.names), np.int64, len(now.names))
    if not len(files):
        return files, dict.fromkeys(now.names)
    was = files[np.searchsorted(files["name"], hashes).clip(max=len(files) - 1)]
    is_there = was["name"] == hashes
    is_same = is_there & ((was["inode"] == now.inodes) | (was["inode"] == 0))
    if len(now.statuses):
        is_same &= np.where(was["status"] < 0, now.changes < -was["status"], was["status"] == now.statuses)
    others = {now.names[at]: was[at : at + 1] if is_there[at] else None for at in np.flatnonzero(~is_same)}
    same = was[is_same]
    same["inode"] = now.inodes[is_same]
    if len(now.statuses):
        same["status"] = now.statuses[is_same]
    same.sort(order="name")
    return (files if np.array_equal(same, files) else same), others


def file_of(name: str, status: os.stat_result, label: Label) -> np.ndarray:
    """A file that was read."""
    return np.array([(hash(name), status.st_ino, status_of(status), pack(label))], FILE)


def joined(files: list[np.ndarray]) -> np.ndarray:
    """Files in the order that is looked up in."""
    return np.sort(np.concatenate(files), order="name") if files else np.empty(0, FILE)


def read_labels(settings: Settings, now: float) -> Labels:
    """All labels below corrections/ that can be read.

    A file that the index knows is asked for its status only, which takes 9 us where reading it takes 90.

    Args:
        settings: where they are, and the index.
        now: in seconds since the epoch.

    """
    path = settings.folder("corrections")
    if not path.is_dir():
        return Labels()
    recalled, found, pending, listed = recall(settings.index, now), [np.empty(0, ROW)], deque(NAMES), Counter[str]()
    with Folder(path) as folder:
        while pending:
            below = pending.popleft()
            listing = look_into(folder, below, lambda _: None, listed, rest=lambda: None)
            same, others = compare(recalled.pop(below, np.empty(0, FILE)), listing)
            found.append(same["label"])
            pending += listing.folders
            for name in others:
                with suppress(OSError):  # the training names it
                    label = read_label(folder, f"{below}/{name}", settings.inbox.max_bytes)
                    found.append(np.array([pack(label)], ROW))
    return Labels(np.concatenate(found))


def recall(index: Path, now: float, latest: dict[bytes, int] | None = None) -> dict[str, np.ndarray]:
    """What the index knows of labelled files, by folder; nothing where it cannot be read.

    Args:
        index: index.sqlite.
        now: in seconds since the epoch; a moment that is yet to come, of a clock that was wrong, does not tell whether a
            file has changed since.
        latest: by sha256: the label; of other labels nothing is recalled. All are unless it is given.

    """
    found: dict[str, list[np.ndarray]] = {}
    try:
        with reading(index) as connection:
            rows = connection.execute("SELECT sha256, digit, file, noticed_at FROM labels WHERE noticed_at <= ?", (now,))
            while some := rows.fetchmany(RECALLED_AT_ONCE):
                by_folder: dict[str, list[tuple[int, int, int, bytes]]] = {}
                for sha256, digit, file, noticed_at in some:
                    label = NO_DIGIT if digit is None else digit
                    below, _, name = os.fsdecode(file).rpartition("/")
                    is_latest = latest is None or latest.get(sha256) == label
                    if is_latest and below.partition("/")[0] == NAMES[label]:
                        by_folder.setdefault(below, []).append(
                            (hash(name), 0, -int(noticed_at * 1e9), bytes([label]) + sha256)
                        )
                for below, files in by_folder.items():
                    found.setdefault(below, []).append(np.array(files, FILE))
    except (NoIndex, OSError, sqlite3.Error):
        return {}
    return {below: joined(files) for below, files in found.items()}
