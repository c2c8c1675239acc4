"""Lets the daemon into folders whose mode or owner keeps it out, such as those that came by `cp -r`, `cp -a`, `mv` or `tar`.

The default ACL of the inbox lets it into every folder that is made there. But a mode of 0755 masks what that gives, and what
was moved has none of it. To change this takes CAP_DAC_READ_SEARCH and CAP_FOWNER, which nothing that reads images should
have. So it is a program of its own, digitd-open.service, which the daemon wakes. It looks at folders only, follows no link,
and lets in nobody but the user that it runs as.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence

from daemon.files import printable
from daemon.folders import DEEPEST_FOLDER, MOST_LEVELS, Folder

ACL = "system.posix_acl_access"  # a version, then entries; see linux/posix_acl_xattr.h and acl(5)
ACL_VERSION, ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # an entry: tag, permissions, user or group
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20  # 0x08 is a named group
NOBODY = 0xFFFFFFFF  # of entries that name none
ALL = 0o7


def let_in(acl: bytes | None, mode: int, user: int) -> bytes:
    """An access control list by which a user may do everything, and all others what they may by another.

    Args:
        acl: the other one, as the kernel gives it; None where there is none, and the mode says all.
        mode: of the folder.
        user: its number.

    """
    entries: dict[tuple[int, int], int] = {}  # (tag, user or group): permissions
    if acl is None:
        for tag, shift in ((USER_OBJ, 6), (GROUP_OBJ, 3), (OTHER, 0)):
            entries[tag, NOBODY] = mode >> shift & ALL
    else:
        entries = {(tag, who): given for tag, given, who in ACL_ENTRY.iter_unpack(acl[ACL_VERSION.size :])}
    mask = entries.get((MASK, NOBODY), ALL)
    for tag, who in entries:
        if tag not in (USER_OBJ, OTHER):
            entries[tag, who] &= mask  # the mask grows; what it kept back stays back
    entries |= {(USER, user): ALL, (MASK, NOBODY): ALL}
    return ACL_VERSION.pack(2) + b"".join(ACL_ENTRY.pack(tag, given, who) for (tag, who), given in sorted(entries.items()))


def open_folders(path: str) -> int:
    """Let this user into every folder below one, but for what is mounted there: nothing is taken from that.

    Returns:
        How many were closed to it.

    """
    opened = 0
    with Folder(path, mounts=False) as top:
        levels = [_folders_in(top, "")]  # not their names, for memory holds only so many
        while levels:
            name = next(levels[-1], None)
            if name is None:
                levels.pop()
            else:
                try:
                    opened += _let_into(top, name)
                except OSError as error:
                    _complain(top, name, error)
                else:
                    levels.append(_folders_in(top, name))
    return opened


def _folders_in(top: Folder, name: str) -> Iterator[str]:
    if len(os.fsencode(name)) > DEEPEST_FOLDER or name.count("/") >= MOST_LEVELS:
        return
    try:
        for entry in top.entries(name):
            if entry.is_dir(follow_symlinks=False):
                yield f"{name}/{entry.name}" if name else entry.name
    except OSError as error:
        _complain(top, name, error)


def _complain(top: Folder, name: str, error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EXDEV):  # one that has gone, or become something else; a mount
        print(f"{printable(f'{top.path}/{name}')}: {error.strerror}", file=sys.stderr)


def _let_into(top: Folder, name: str) -> bool:
    descriptor = top.open_folder(name)
    try:
        status = os.fstat(descriptor)
        try:
            acl: bytes | None = os.getxattr(descriptor, ACL)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            acl = None
        wanted = let_in(acl, status.st_mode, os.geteuid())
        is_sticky = bool(status.st_mode & stat.S_ISVTX)
        if status.st_uid == os.geteuid() or (acl == wanted and not is_sticky):
            return False
        if is_sticky:  # then only owners move anything out of it
            os.fchmod(descriptor, status.st_mode & 0o777)  # without the set-group-ID bit, which the sandbox lets nobody set
        os.setxattr(descriptor, ACL, wanted)
        return True
    finally:
        os.close(descriptor)


def main(paths: Sequence[str]) -> None:
    """Open the folders below each path."""
    for path in paths:
        if opened := open_folders(path):
            print(f"{path}: {opened} sub-folders had kept digitd out", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
