"""`digitd index`: what the index holds; and its rebuilding from the folders."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing, suppress

from daemon.config import Settings
from daemon.index.due import check_archive
from daemon.index.filling import Superseded, fill, start_anew
from daemon.index.schema import WAIT_SECONDS, Unusable, get_state, open_to_write, reading, remove


def print_index(settings: Settings) -> int:
    """Print how large it is, and whether it is whole.

    Returns:
        0 where it is whole, else 1.

    Raises:
        NoIndex: there is nothing to ask.

    """
    with reading(settings.index) as connection:
        (answers,) = connection.execute("SELECT count(*) FROM answers").fetchone()
        (labels,) = connection.execute("SELECT count(*) FROM labels").fetchone()
        state = get_state(connection)
    print(
        f"{settings.index}: {answers:,} answers and rejections, {labels:,} labels, {settings.index.stat().st_size:,} bytes"
    )
    if state["since"] is None:
        print("it is whole")
        return 0
    done, total = state.get("done"), state.get("total")
    print(f"it is being filled from the folders: {done:,} of {total:,}" if done else "it is to be filled from the folders")
    return 1


def rebuild(settings: Settings) -> int:
    """Make it anew from the folders, and say how far it is. A daemon that runs goes on writing meanwhile.

    Returns:
        0, or 1 where it could not be done.

    """

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} of {total:,} ", end="", file=sys.stderr, flush=True)

    try:
        _check_archive(settings)
    except OSError as error:
        print(f"{error}; the index is as it was", file=sys.stderr)
        return 1
    try:
        try:
            start_anew(settings.index)
        except (Unusable, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            remove(settings.index)  # it is no index: there is nothing to begin anew in
            start_anew(settings.index)
        fill(settings.index, settings, show)
    except (OSError, sqlite3.Error) as error:
        print(f"{settings.index}: expected to be able to write it. Received: {error}", file=sys.stderr)
        return 1
    except Superseded:
        print("somebody else began to rebuild it meanwhile; `digitd index` tells how far that is", file=sys.stderr)
        return 1
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return print_index(settings)


def _check_archive(settings: Settings) -> None:
    """Forget nothing that is in archives whose disk is not mounted.

    Raises:
        OSError: the index knows of archives, and they are not there.

    """
    if settings.archive and settings.index.exists():
        with suppress(Unusable, sqlite3.Error), closing(open_to_write(settings.index, WAIT_SECONDS)) as connection:
            check_archive(settings.archive, connection)
