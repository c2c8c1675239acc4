"""A file's bytes, or the reason why they can be no image."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from daemon.files import CLOSED_TO_US
from daemon.folders import Folder


class InvalidImage(Exception):
    """The file cannot be a digit image.

    Attributes:
        reason: one of the contract's slugs.
        detail: one sentence saying what was found.
        hint: what a person can do.
        sha256: of the content, where it was read.

    """

    def __init__(self, reason: str, detail: str, hint: str, sha256: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.hint, self.sha256 = reason, detail, hint, sha256

    def __reduce__(self) -> tuple[type[InvalidImage], tuple[str, str, str, str | None]]:
        return type(self), (self.reason, self.detail, self.hint, self.sha256)


def read_content(path: Path | str, max_bytes: int, folder: Folder | None = None) -> bytes:
    """The bytes of a regular file; nothing else is opened for reading.

    Args:
        path: any path, or a name below `folder`.
        max_bytes: a larger file is refused unread.

    Raises:
        InvalidImage: it is no regular file, too large, or not to be read.
        OSError: the machine failed (EIO, ENOMEM, a vanished file), which says nothing about the image.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = folder.open(str(path), flags) if folder else os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise not_regular("a link" if error.errno == errno.ELOOP else "a socket") from error
        if error.errno not in CLOSED_TO_US:
            raise
        raise InvalidImage(
            "unreadable", f"The file cannot be opened: {error.strerror}.", "Make it readable for the daemon's user."
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise not_regular(_kind(status.st_mode))
        if status.st_size > max_bytes:
            raise InvalidImage(
                "too_large",
                f"Expected at most {max_bytes} bytes. Received: {status.st_size}.",
                "Scale the image down, or raise [inbox] max_bytes.",
            )
        content = part = os.read(descriptor, status.st_size + 1)
        while part and len(content) != status.st_size:  # somebody is changing it
            if len(content) > max_bytes:
                raise InvalidImage(
                    "too_large", f"The file grew over {max_bytes} bytes while it was read.", "Raise [inbox] max_bytes."
                )
            part = os.read(descriptor, len(content) + 1)
            content += part
        return content
    finally:
        os.close(descriptor)


def not_regular(kind: str) -> InvalidImage:
    """The refusal of what is no file, but "a link", say."""
    return InvalidImage("not_a_regular_file", f"Expected a regular file. Received: {kind}.", "Drop a copy of the file.")


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"


def describe(data: bytes) -> str:
    """What a file that is no image seems to be, from its first bytes."""
    if data[:5] == b"%PDF-":
        return "a PDF document"
    if data[:4] == b"%!PS":
        return "a PostScript document"
    if data[4:8] == b"ftyp":
        return "a damaged HEIC or AVIF picture, or a film"
    if data[:2] == b"\x1f\x8b":
        return "gzip-compressed data"
    if data[:2] == b"PK":
        return "a ZIP archive"
    if data.lstrip()[:1] == b"<":
        return "an HTML, SVG or XML document"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:64]):
        return "text"
    return f"data beginning with {data[:8].hex(' ')}"
