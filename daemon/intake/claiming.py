"""Files move from the inbox into a folder of claims, and back; who claims, one daemon or many tasks, makes no difference."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from daemon.config import LOCK, PRESENCE, STREAM, TEMPORARY, InboxSettings
from daemon.drops import Drop
from daemon.files import OWN_FAULTS, machine_fault
from daemon.folders import DEEPEST_FOLDER, MOST_LEVELS, Folder, rename, rename_to_free_name
from daemon.intake.admission import when_dropped

OURS = {LOCK, PRESENCE, STREAM, TEMPORARY}  # names that the daemon itself uses in work/ and results/
EVERYWHERE = "/"  # a whole folder, as `paths_below` takes it
MOST_SWEEPING = 0.05  # of the time goes into complete sweeps at most, however many folders have gathered


class BeingWritten(Exception):
    """Somebody has the file open for writing; it stays in the inbox."""


class FolderClaimed(Exception):
    """A folder had taken the file's place: it was claimed instead, and is to be given back."""


class Intake(Protocol):
    """Where a pipeline's drops come from; `daemon.intake.inbox.Inbox` is one, and says more of each."""

    def apply(self, settings: InboxSettings) -> None:
        """Put in force what may change while images walk."""

    def take(self, limit: int) -> list[Drop]:
        """Claim up to `limit` files."""

    def due_in(self) -> float:
        """Seconds until `take` is to be called without an event."""

    def waiting(self) -> int:
        """How many files are known that are not claimed yet."""

    def put_back(self, drop: Drop) -> bool:
        """Give a file back that is perhaps still being written; whether that could be done."""

    def answered(self, drops: list[Drop]) -> None:
        """Say that these have their JSON."""

    def release(self, name: str) -> None:
        """Say that a file has left work/."""

    def survey(self) -> None:
        """Bring the gauges of the backlog up to date."""


def claim(inbox: Folder, work: Folder, name: str) -> Drop:
    """Rename one file into a folder of claims, if nobody is writing it.

    Raises:
        BeingWritten, FolderClaimed: see there.
        FileNotFoundError: it was taken away, or renamed, or is so deep that nobody would find it in work/ after a crash.
        OSError: the file or the machine did not allow it; `machine_fault` tells which.

    """
    if "/" in name and (refusal := _too_deep(f"{name.rpartition('/')[0]}/")):
        raise FileNotFoundError(errno.ENOENT, refusal.strerror, name)
    with _opened_anew_after_a_fault(inbox, work):
        received = when_dropped(inbox, name)
        if received is None:
            raise BeingWritten
        rename(inbox, name, work, name)
    if stat.S_ISDIR(work.status(name).st_mode):
        raise FolderClaimed
    return Drop(name, received)


def put_back(work: Folder, inbox: Folder, name: str) -> bool:
    """Move a claimed file back to the inbox.

    Returns:
        False where it could not be done: the name was dropped anew, its folder closed, or the file system cannot tell.

    """
    try:
        with _opened_anew_after_a_fault(work, inbox):
            return rename_to_free_name(work, name, inbox, name)
    except OSError as error:
        if fault := machine_fault(error, Path(work.path), Path(inbox.path)):
            raise fault from error
        return False


@contextmanager
def _opened_anew_after_a_fault(*folders: Folder) -> Iterator[None]:
    """What is held open may be dead for good: over NFS, of what another host removed; after FUSE's server had gone, all."""
    try:
        yield
    except OSError as error:
        if error.errno not in {*OWN_FAULTS, errno.ENOENT}:
            with suppress(OSError):  # or after the next fault
                for folder in folders:
                    folder.renew()
        raise


def left_claims(work: Folder) -> Iterator[Drop]:
    """What a crash left in a folder of claims: perhaps already answered; the work is done again."""
    for name in paths_below(work, EVERYWHERE):
        if not name.endswith("/"):
            yield Drop(name, work.status(name).st_ctime)


def strays(work: Folder) -> Iterator[str]:
    """The folders of others in a folder of claims: a crash came before they were given back."""
    for path in paths_below(work, EVERYWHERE):
        name = path.rstrip("/")
        if name != path:
            try:
                os.close(work.open_folder(name, os.O_PATH))
            except NotADirectoryError:
                yield name


def take_over(work: Folder, inbox: Folder) -> None:
    """Move into work/ itself what the tasks of a stream claimed before it was killed; no stream runs now.

    Where a newer drop of that name is there, it goes back to the inbox, as folders of others do; where it is there too, or
    those who drop have put something else in the place of its folder, it waits for the next start.
    """
    try:
        claims = Folder(f"{work.path}/{STREAM}", own=True)
    except FileNotFoundError:
        return
    with claims:
        tasks = [name for name in paths_below(claims, "") if name.endswith("/")]
        for task in tasks:
            try:
                descriptor = claims.open_folder(task.rstrip("/"), os.O_PATH)
            except NotADirectoryError:
                continue  # a link, or somebody else's
            try:
                with Folder(f"/proc/self/fd/{descriptor}", own=True) as folder:  # as deep as what it was claimed from
                    _take_over_task(work, inbox, folder)
            finally:
                os.close(descriptor)
        remove_empty(claims, tasks)


def _take_over_task(work: Folder, inbox: Folder, claims: Folder) -> None:
    left = list(paths_below(claims, EVERYWHERE))
    for name in left:
        if not name.endswith("/") and not _move_into(work, claims, name):
            _move_into(inbox, claims, name)
    for name in list(strays(claims)):
        _move_into(inbox, claims, name)
    remove_empty(claims, left)


def _move_into(target: Folder, claims: Folder, name: str) -> bool:
    try:
        if rename_to_free_name(claims, name, target, name):
            return True
        if target.holds(name):
            return False
        rename(claims, name, target, name)  # there is no folder for it yet, or the file system cannot tell
    except OSError as error:
        if fault := machine_fault(error, Path(claims.path), Path(target.path)):
            raise fault from error
        return False
    return True


def remove_empty(top: Folder, names: list[str]) -> bool:
    """Remove those of the folders, named as `paths_below` does, that are empty; whether the machine let it be done."""
    faults = set()
    for name in reversed(names):
        if name.endswith("/"):
            try:
                top.rmdir(name.rstrip("/"))
            except OSError as error:  # somebody put a file of his own there, or took the folder away
                faults.add(error.errno)
    return not faults & {errno.EIO, errno.EROFS, errno.ENOSPC}


def ignoring(patterns: list[str]) -> Callable[[str], object]:
    """What tells whether a name is left alone: `[inbox] ignore` in one expression."""
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)").match


def paths_below(
    top: Folder,
    place: str,
    ignored: Callable[[str], object] = lambda _name: None,
    closed: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Iterator[str]:
    """The paths alone, as `entries_below` gives them."""
    return (path for path, _ in entries_below(top, place, ignored, closed))


def entries_below(
    top: Folder,
    place: str,
    ignored: Callable[[str], object] = lambda _name: None,
    closed: Callable[[str, OSError], None] = lambda _folder, _error: None,
) -> Iterator[tuple[str, int]]:
    """The paths of all files and, with a slash at the end, folders in a place, and their inodes.

    A folder comes before what is in it, just before it is looked into: so whoever takes no more of these has no more done.
    Without recursion: how deep folders nest is up to those who drop.

    Args:
        top: the folder that the paths are below.
        place: a sub-folder, "" for `top` itself; with a slash at its end all below it too.
        ignored: whether a name is passed over.
        closed: told which sub-folder cannot be looked into, and why.

    """
    start = place.strip("/")
    if start and any(part in OURS or ignored(part) for part in start.split("/")):
        return
    levels = [_list(top, start and f"{start}/", ignored, closed)]  # not their names, for memory holds only so many
    while levels:
        for name, inode in levels[-1]:
            yield name, inode
            if name.endswith("/") and place.endswith("/"):
                levels.append(_list(top, name, ignored, closed))
                break
        else:
            levels.pop()


def _too_deep(folder: str) -> OSError | None:
    """Why nobody looks into a folder, with a slash at its end; None where somebody does."""
    if len(os.fsencode(folder)) > DEEPEST_FOLDER:
        return OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if folder.count("/") > MOST_LEVELS:
        return OSError(errno.EMLINK, f"it is nested in more than {MOST_LEVELS} others")
    return None


def _list(
    top: Folder, folder: str, ignored: Callable[[str], object], closed: Callable[[str, OSError], None]
) -> Iterator[tuple[str, int]]:
    if refusal := _too_deep(folder):
        closed(folder, refusal)
        return
    try:
        for entry in top.entries(folder.rstrip("/")):
            if entry.name not in OURS and not ignored(entry.name):
                yield f"{folder}{entry.name}{'/' if entry.is_dir(follow_symlinks=False) else ''}", entry.inode()
    except OSError as error:
        if not folder:
            raise
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # it has gone
            closed(folder, error)
