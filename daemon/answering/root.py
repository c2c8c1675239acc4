"""A root is laid out, taken and checked, by the one daemon or stream that works on it."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack

from daemon.answering.publish import prepare
from daemon.answering.retirement import Folders
from daemon.config import FOLDERS, LOCK, ONE_FILE_SYSTEM, PRESENCE, Settings
from daemon.files import take_lock
from daemon.folders import try_renames
from daemon.telemetry.presence import who_runs


class StartError(Exception):
    """The daemon cannot start; the message says what was expected and what to do."""


def take_root(settings: Settings, stack: ExitStack) -> Folders:
    """See to it that nobody else works on this root until `stack` is closed, and that all its folders are there.

    Raises:
        StartError: somebody does, or the folders cannot be used.

    """
    try:
        for name in FOLDERS:
            settings.folder(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"[paths] {name}: expected a folder that can be written. Received: {error}") from error
    _lock(settings, stack)
    _check_one_file_system(settings)
    folders = Folders(*(settings.folder(name) for name in ("work", "results", "processed", "rejected")))
    for folder in (folders.results, folders.rejected):
        prepare(folder)
    return folders


def _lock(settings: Settings, stack: ExitStack) -> None:
    work = settings.folder("work")
    lock = take_lock(work / LOCK)
    if lock is None:
        raise StartError(
            f"{settings.root}: expected no other daemon on this root. Received: one is running, "
            f"{who_runs(work / PRESENCE) or 'only just started'}."
        )
    stack.callback(os.close, lock)


def _check_one_file_system(settings: Settings) -> None:
    """Claiming, giving back and retiring are renames, which cross neither file systems nor mounts."""
    for name in ONE_FILE_SYSTEM:
        try:
            try_renames(settings.folder("work"), settings.folder(name))
        except OSError as error:
            if error.errno != errno.EXDEV:
                continue  # the intake meets it again, says so, and goes on when it has passed
            raise StartError(
                f"[paths]: expected {', '.join(ONE_FILE_SYSTEM)} on one file system and in one mount, because files move "
                f"between them by rename. Received: work and {name} are not. Mount the folder above them instead."
            ) from error
