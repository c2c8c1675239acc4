"""Folders held open, and what is below them: no component of a name is ever followed as a link.

The daemon has more rights than those who drop, and they may swap a folder for a link at any moment. So a folder is opened
once, by its configured path, and everything below it is named from there. Its descriptors, and those of its sub-folders,
stay what they were opened as, whatever happens to their names.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from typing import Self

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST_FOLDER = 1024  # bytes of a path below the inbox; with the longest root, name and tag it must fit into PATH_MAX
MOST_LEVELS = 100  # of folders in each other that are looked into: each keeps two descriptors open meanwhile
MOST_HELD = 16  # sub-folders that stay open at once

_OPENAT2 = 437  # its number on every architecture
_RESOLVE, _NO_MOUNTS = 0x08 | 0x04, 0x01  # RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS; RESOLVE_NO_XDEV
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Folder:
    """A folder held open. Names are paths below it, without "..". For one thread at a time.

    Args:
        path: of the folder itself; it alone may be, or lead through, links: they are the administrator's.
        make: whether to make it where it is missing.
        own: whether sub-folders that do not belong to its owner, or to this process, are entered no more than links are, and
            those that others may write to are closed to them before.
        mounts: whether what is mounted on sub-folders is entered; where the kernel lacks openat2(2), it always is.

    Raises:
        OSError: it cannot be opened.

    """

    def __init__(self, path: str | os.PathLike[str], make: bool = False, own: bool = False, mounts: bool = True) -> None:
        self.path, self._make, self._own = os.fspath(path), make, own
        self._resolve = _RESOLVE if mounts else _RESOLVE | _NO_MOUNTS
        self.identity = (-1, -1)  # device and inode
        self._top, self._owners = -1, {os.geteuid()}
        self._held: dict[str, int] = {}  # sub-folders; the one used last comes last
        self.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self.forget()
        if self._top >= 0:
            os.close(self._top)
            self._top, self.identity = -1, (-1, -1)

    def renew(self) -> None:
        """See to it that it is the folder that is now at its path; sub-folders are opened anew.

        Raises:
            OSError: there is none, or it cannot be opened. The next call tries again.

        """
        self.forget()
        try:
            if self._top >= 0:
                status = os.stat(self.path)
                if self.identity == (status.st_dev, status.st_ino):
                    return
                self.close()
            self._open()
        except FileNotFoundError:
            self.close()
            if not self._make:
                raise
            os.makedirs(self.path, exist_ok=True)
            self._open()

    def _open(self) -> None:
        self._top = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self._top)
        self.identity, self._owners = (status.st_dev, status.st_ino), {status.st_uid, os.geteuid()}

    def forget(self) -> None:
        """Close the sub-folders, so that they are looked up by name again."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def at(self, name: str) -> tuple[str, int]:
        """The last component of a name, and a descriptor of the folder that holds it, as `dir_fd` takes it.

        Raises:
            NotADirectoryError: a component before the last is a link or a file.
            OSError: it is missing, or cannot be entered.

        """
        parent, _, last = name.rpartition("/")
        return last, self._hold(parent) if parent else self._top

    def _hold(self, name: str) -> int:
        descriptor = self._held.pop(name, -1)
        if descriptor < 0:
            if len(self._held) >= MOST_HELD:
                os.close(self._held.pop(next(iter(self._held))))
            descriptor = self.open_folder(name, os.O_PATH)
        self._held[name] = descriptor
        return descriptor

    def status(self, name: str) -> os.stat_result:
        """What lstat(2) says."""
        last, parent = self.at(name)
        return os.stat(last, dir_fd=parent, follow_symlinks=False)

    def open_folder(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a sub-folder, of the folder itself where none is named.

        Raises:
            NotADirectoryError: it is, or is behind, a link or a file, or it is not ours where it has to be.
            OSError: it is missing, or cannot be entered.

        """
        if self._own:  # those above it first: whoever may write to one may put another folder in this one's place
            for end in (at for at, character in enumerate(name) if character == "/"):
                os.close(self._open_own(name[:end], os.O_PATH))
            return self._open_own(name, flags)
        return self._open_beneath(name, flags)

    def _open_beneath(self, name: str, flags: int) -> int:
        flags |= os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return open_beneath(self._top, name or ".", flags, self._resolve)

    def _open_own(self, name: str, flags: int) -> int:
        descriptor = self._open_beneath(name, flags)
        try:
            self._make_own(descriptor, name)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _make_own(self, descriptor: int, name: str) -> None:
        """One that was moved here may be writable by whoever did that, as by an access control list that it inherited."""
        status = os.fstat(descriptor)
        if status.st_uid not in self._owners:
            raise NotADirectoryError(errno.ENOTDIR, "this folder belongs to somebody else", name)
        if status.st_mode & 0o022:
            os.chmod(f"/proc/self/fd/{descriptor}", status.st_mode & 0o755)  # not its set-group-ID bit: a sandbox forbids it

    def holds(self, name: str) -> bool:
        """Whether anything has this name."""
        try:
            self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_shut(self, name: str) -> bool:
        """Whether the folder that has this name in it may not be entered, or not be written to."""
        try:
            _, folder = self.at(name)
        except OSError:
            return True
        return not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of what has this name, unless it is a link (ELOOP)."""
        last, parent = self.at(name)
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=parent)

    def open_to_read(self, name: str) -> BufferedReader:
        """A file, to be read; a pipe is not waited for.

        Raises:
            IsADirectoryError: it is a folder; os.fdopen would leave its descriptor open.
            OSError: as of open(2); ELOOP where it is a link.

        """
        return open(name, "rb", opener=lambda path, _: self.open(path, os.O_RDONLY | os.O_NONBLOCK))

    def unlink(self, name: str) -> None:
        """Remove a name."""
        last, parent = self.at(name)
        os.unlink(last, dir_fd=parent)

    def rmdir(self, name: str) -> None:
        """Remove an empty sub-folder."""
        self.forget()
        last, parent = self.at(name)
        os.rmdir(last, dir_fd=parent)

    def make_parents(self, name: str) -> None:
        """Make the sub-folders that a name needs."""
        end = 0
        while (end := name.find("/", end + 1)) > 0:
            with suppress(FileExistsError):
                last, parent = self.at(name[:end])
                os.mkdir(last, dir_fd=parent)

    def entries(self, name: str = "") -> Iterator[os.DirEntry[str]]:
        """What a sub-folder holds; the folder itself where none is named. Two descriptors are open until it is consumed.

        Raises:
            OSError: it cannot be listed, or is a link.

        """
        descriptor = self.open_folder(name)
        try:
            with os.scandir(descriptor) as entries:
                yield from entries
        finally:
            os.close(descriptor)


def rename(source: Folder, name: str, target: Folder, new_name: str) -> None:
    """Move a file between folders; whatever has the new name is replaced. Missing sub-folders are made.

    Raises:
        OSError: as of rename(2).

    """
    last, parent = source.at(name)
    try:
        new_last, new_parent = target.at(new_name)
        os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)
    except FileNotFoundError:
        if "/" not in new_name:
            raise
        target.forget()  # one of them may have been removed
        target.make_parents(new_name)
        last, parent = source.at(name)
        new_last, new_parent = target.at(new_name)
        os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)


def rename_to_free_name(source: Folder, name: str, target: Folder, new_name: str) -> bool:
    """Move a file, unless the new name is taken, has no folder yet, or the file system cannot promise not to replace.

    Returns:
        Whether it was moved.

    """
    try:
        last, parent = source.at(name)
        new_last, new_parent = target.at(new_name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if _libc.renameat2(parent, os.fsencode(last), new_parent, os.fsencode(new_last), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):  # NFS, 9p, some of FUSE: such a rename is made of two names of one file
        try:
            os.link(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent, follow_symlinks=False)
        except OSError as error:
            number = error.errno or errno.EIO
        else:
            os.unlink(last, dir_fd=parent)
            return True
        if number in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):  # no such link; of a file of another user's not either
            return False
    if number in (errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), f"{target.path}/{new_name}")


def try_renames(folder: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Move something from one folder to another, for what stat(2) says does not suffice.

    Two bind mounts of one file system have one `st_dev`, and yet rename(2) between them is EXDEV. What is moved is an empty
    folder, which a daemon that runs takes for nobody's image. Where the disk is full, nothing is tried. Who may write to the
    other folder can neither foresee its name, nor spoil anything by what he does with it there.

    Raises:
        OSError: files cannot be moved between them.

    """
    name = f".digitd-probe-{secrets.token_hex(8)}"
    with Folder(folder) as here, Folder(other) as there:
        try:
            here.make_parents(f"{name}/")
            rename(here, name, there, name)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        finally:
            for place in (here, there):
                with suppress(OSError):
                    place.rmdir(name)


def open_beneath(folder: int, name: str, flags: int, resolve: int = _RESOLVE) -> int:
    """Open what has a name below a folder, none of whose components may be a link or "..".

    Args:
        folder: its descriptor.
        name: a path from there.
        flags: as of open(2); O_NOFOLLOW and O_CLOEXEC among them.
        resolve: as of openat2(2).

    Raises:
        NotADirectoryError: a component is a link, or a file where a folder is needed.
        OSError: as of open(2).

    """
    how = struct.pack("QQQ", flags, 0, resolve)  # struct open_how of openat2(2)
    descriptor: int = _libc.syscall(_OPENAT2, folder, os.fsencode(name), how, len(how))
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):  # an old kernel, a filter of system calls, a race
        return _walk_beneath(folder, name, flags)
    raise _no_folder(number, name)


def _walk_beneath(folder: int, name: str, flags: int) -> int:
    """What openat2(2) does, one component at a time."""
    *parents, last = name.split("/")
    if ".." in (*parents, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    here = os.dup(folder)
    try:
        for part in parents:
            here, before = os.open(part, FOLDER, dir_fd=here), here
            os.close(before)
        return os.open(last, flags, dir_fd=here)
    except OSError as error:
        raise _no_folder(error.errno, name) from error
    finally:
        os.close(here)


def _no_folder(number: int | None, name: str) -> OSError:
    """To whoever names what is below it, a link is like a file: ENOTDIR, whichever call met it."""
    number = errno.ENOTDIR if number == errno.ELOOP else number or errno.EIO
    return OSError(number, os.strerror(number), name)
