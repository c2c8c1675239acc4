"""Who works on a folder, and on which host: a small file that he keeps locked for as long as he lives.

Whoever may read the file can ask about its lock, and cannot take it: a write lock needs a file that is open for writing. The
lock that keeps a second daemon away is another one, which only its owner can open.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

HOST = os.uname().nodename
FLOCK = "hhqqi0q"  # struct flock of fcntl(2), on 64 bits: type, whence, start, length, pid


def announce(path: Path, facts: dict[str, Any]) -> int:
    """Say who runs; it holds until the descriptor that this returns is closed, or the process has ended."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(facts | {"host": HOST}).encode())
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        os.fchmod(descriptor, 0o644)  # only now: a reader's own lock, taken before, would have kept this one away
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def in_words(facts: dict[str, Any]) -> str:
    """Who it is that announced this."""
    return f"pid {facts['pid']} on {facts['host']}, metrics on http://{facts['address']}/metrics"


def who_runs(path: Path) -> dict[str, Any] | None:
    """What the daemon announced that runs now; None where none does.

    Raises:
        PermissionError: this user may not look.

    """
    try:
        with path.open("rb") as file:
            question = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, question))
            if kind != fcntl.F_WRLCK:
                return None  # nor is what a full disk left of it looked at
            facts: dict[str, Any] = json.load(file)
            return facts
    except FileNotFoundError:
        return None
