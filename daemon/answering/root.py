"""A root is laid out, taken and checked, by the one daemon or stream that answers on it, and by who keeps its house."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from daemon.answering.publish import prepare
from daemon.answering.retirement import Folders
from daemon.config import FOLDERS, LOCK, ONE_FILE_SYSTEM, PRESENCE, Settings
from daemon.files import take_lock
from daemon.folders import try_renames
from daemon.telemetry.presence import HOST, announce, in_words, who_runs


class StartError(Exception):
    """The daemon cannot start; the message says what was expected and what to do."""


def take_root(settings: Settings, stack: ExitStack) -> Folders:
    """See to it that nobody else answers on this root until `stack` is closed, and that all its folders are there.

    Raises:
        StartError: somebody does, or the folders cannot be used.

    """
    _make_folders(settings)
    _lock(settings, "work", "no other daemon on this root", stack)
    _check_one_file_system(settings)
    return Folders(*(settings.folder(name) for name in ("work", "results", "processed", "rejected")))


def keep_house(settings: Settings, stack: ExitStack) -> None:
    """See to it that nobody else writes the index, and the journals in logs/, until `stack` is closed.

    Raises:
        StartError: somebody does, or the folders cannot be used.

    """
    _make_folders(settings)
    _lock(settings, "logs", "nobody else who keeps its index and journals; several daemons need a root each", stack)


def stay_known(settings: Settings, names: Sequence[str], facts: dict[str, Any], stack: ExitStack) -> None:
    """Take the locks anew that went with folders which somebody removed, and announce this daemon in the first of them.

    Raises:
        StartError: somebody else was faster.

    """
    known = settings.folder(names[0]) / PRESENCE
    with suppress(OSError):  # it is not there again yet
        for name in names:
            path = settings.folder(name) / LOCK
            if not path.exists() and (lock := take_lock(path)) is not None:
                stack.callback(os.close, lock)
        if not known.exists():
            stack.callback(os.close, announce(known, facts))
        elif (other := who_runs(known)) and other != facts | {"host": HOST}:
            raise StartError(f"{known.parent}: expected no other daemon beside this one. Received: {in_words(other)}.")


def _make_folders(settings: Settings) -> None:
    try:
        for name in FOLDERS:
            settings.folder(name).mkdir(parents=True, exist_ok=True)
            if name in ("results", "rejected"):
                prepare(settings.folder(name))
    except OSError as error:
        raise StartError(f"[paths] {name}: expected a folder that can be written. Received: {error}") from error


def _lock(settings: Settings, name: str, expected: str, stack: ExitStack) -> None:
    folder = settings.folder(name)
    try:
        lock = take_lock(folder / LOCK)
        holder = who_runs(folder / PRESENCE) or who_runs(settings.folder("work") / PRESENCE) if lock is None else None
    except OSError as error:
        raise StartError(f"[paths] {name}: expected a folder that can be written. Received: {error}") from error
    if lock is None:
        who = in_words(holder) if holder else "one that has only just started"
        raise StartError(f"{settings.root}: expected {expected}. Received: {who}.")
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
