"""The names of results, rejections and originals: content-addressed when taken.

The JSON of `a.png` is `a.png.json`, or `a~<8 of its sha256>.png.json` where that name holds the JSON of different bytes. So
doing the same work again after a crash writes the same names. Eight digits can be made to collide, and any name can be
dropped beforehand: then come all 64, then their own digest, and so on, until a name is free.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

import orjson

from daemon.drops import with_ending
from daemon.files import CLOSED_TO_US, printable
from daemon.folders import Folder

MAX_JSON = 1 << 16  # bytes; ours are under 2,000
MOST_COMPARED = 1 << 28  # bytes; a larger original, perhaps one of nothing but holes, is taken for another one
FOREIGN = ("", "")  # owner of a name that is no JSON of ours: equal to no drop


def candidates(folder: Folder, name: str, digest: str) -> Iterator[str]:
    """The names that a file may have in a folder, the plain one first; there is always another one."""
    place = flattened(folder, name)
    return (with_ending(place, tag, "") for tag in tags(digest))


def tags(digest: str) -> Iterator[str]:
    """What comes behind the stem of a name where that is taken, and where that is, too; first nothing."""
    yield ""
    yield f"~{digest[:8]}"
    while True:
        yield f"~{digest}"
        digest = hashlib.sha256(digest.encode()).hexdigest()


def json_name(name: str, sha256: str | None, folder: Folder) -> str:
    """The name for a drop's JSON in `folder`: the first candidate that is free, or holds its JSON already."""
    own = (printable(name), sha256)
    digest = sha256 or hashlib.sha256(os.fsencode(name)).hexdigest()
    names = (with_ending(candidate, "", ".json") for candidate in candidates(folder, name, digest))
    return next(candidate for candidate in names if json_owner(folder, candidate) in (None, own))


def file_digest(status: os.stat_result) -> str:
    """A digest of which file this is, for one whose content was not read; a rename does not change it."""
    return hashlib.sha256(f"{status.st_ino} {status.st_mtime_ns}".encode()).hexdigest()


def json_owner(folder: Folder, name: str) -> tuple[str, str | None] | None:
    """Whose JSON has this name: (file, sha256). None where nobody's, or where a power cut left no content."""
    try:
        descriptor = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in CLOSED_TO_US:
            return FOREIGN
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return FOREIGN
        content = os.read(descriptor, MAX_JSON)
    finally:
        os.close(descriptor)
    if not content.strip(b"\0"):
        return None
    try:
        held = orjson.loads(content)
        return held["file"], held["sha256"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return FOREIGN


def may_have(folder: Folder, name: str, sha256: str | None, status: os.stat_result) -> bool:
    """Whether an original may have this name: it is free, or holds the same bytes or the same file.

    Args:
        folder, name: where it would be.
        sha256: of its content; None where that was not read.
        status: of the original.

    """
    try:
        held = folder.status(name)
    except (FileNotFoundError, NotADirectoryError):
        return True
    if os.path.samestat(held, status):
        return True
    may_be_same = sha256 is not None and held.st_size == status.st_size <= MOST_COMPARED
    return may_be_same and _sha256(folder, name) == sha256


def _sha256(folder: Folder, name: str) -> str | None:
    """Of a regular file's content; None of anything else, of what has grown too large, or where it may not be read."""
    try:
        with folder.open_to_read(name) as file:
            status = os.fstat(file.fileno())
            may_be_read = stat.S_ISREG(status.st_mode) and status.st_size <= MOST_COMPARED
            return hashlib.file_digest(file, "sha256").hexdigest() if may_be_read else None
    except OSError as error:
        if error.errno in CLOSED_TO_US:
            return None
        raise


def flattened(folder: Folder, name: str) -> str:
    """The name itself, or `a~b` for `a/b` where something else than a folder is in the sub-folder's place."""
    place = name
    while place := place.rpartition("/")[0]:
        try:
            return name if stat.S_ISDIR(folder.status(place).st_mode) else name.replace("/", "~")
        except (FileNotFoundError, NotADirectoryError):
            continue
    return name
