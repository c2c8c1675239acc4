"""The names of results, rejections and originals: content-addressed when taken.

The JSON of `a.png` is `a.png.json`, or `a~<8 of its sha256>.png.json` where that name holds the JSON of different bytes. So
doing the same work again after a crash writes the same names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import orjson

from daemon.files import printable

NAME_MAX = 255  # bytes, of one name on Linux file systems
MAX_JSON = 1 << 16  # bytes; ours are under 2,000
FOREIGN = ("", "")  # holder of a name that is no JSON of ours: equal to no drop


def json_name(name: str, sha256: str | None, folder: Path) -> str:
    """The name for a drop's JSON in `folder`: plain, or content-addressed where the plain one is taken."""
    place = below(folder, name)
    plain = with_ending(place, "", ".json")
    holder = _holder(f"{folder}/{plain}")
    if holder in (None, (printable(name), sha256)):
        return plain
    return with_ending(place, f"~{(sha256 or hashlib.sha256(os.fsencode(name)).hexdigest())[:8]}", ".json")


def with_ending(name: str, tag: str, ending: str) -> str:
    """`dir/a.png` -> `dir/a<tag>.png<ending>`; too long a name is cut and tagged with a digest of itself."""
    folder, slash, base = name.rpartition("/")
    stem, extension = os.path.splitext(base)
    whole = f"{stem}{tag}{extension}{ending}"
    if len(os.fsencode(whole)) > NAME_MAX:
        tag = f"{tag}~{hashlib.sha256(os.fsencode(base)).hexdigest()[:8]}"
        extension = extension if len(os.fsencode(extension)) <= 16 else ""
        room = NAME_MAX - len(os.fsencode(f"{tag}{extension}{ending}"))
        whole = f"{os.fsencode(stem)[:room].decode('utf-8', 'ignore')}{tag}{extension}{ending}"
    return f"{folder}{slash}{whole}"


def below(folder: Path, name: str) -> str:
    """The name itself, or `a~b` for `a/b` where a file is in the sub-folder's place."""
    place = name
    while place := place.rpartition("/")[0]:
        if os.path.lexists(f"{folder}/{place}"):
            return name if os.path.isdir(f"{folder}/{place}") else name.replace("/", "~")
    return name


def file_identity(path: str) -> str:
    """A digest of which file this is, for one whose content was not read; a rename does not change it."""
    try:
        status = os.lstat(path)
        which = f"{status.st_ino} {status.st_mtime_ns}"
    except FileNotFoundError:  # somebody took it away: there is nothing to tell it from
        which = path
    return hashlib.sha256(os.fsencode(which)).hexdigest()


def _holder(path: str) -> tuple[str, str | None] | None:
    """Whose JSON is at `path`: (file, sha256). None where nobody's, or where a power cut left no content."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES):  # a symlink, a socket, somebody's own
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
