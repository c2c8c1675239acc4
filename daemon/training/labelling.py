"""What people say of images: copies of originals below corrections/, written, moved and taken back."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from daemon.answering.naming import flattened, may_have, tags
from daemon.drops import with_ending
from daemon.folders import Folder, rename
from daemon.reading.content import read_content
from daemon.training.corrections import list_corrections, read_label


def visible(original: str) -> str:
    """What an original is called as a label: hidden names are passed over there, and [inbox] ignore may let them in."""
    return re.sub(r"(^|/)\.", r"\1~.", original)


class Labelled(NamedTuple):
    """What was done to label an image, so that it can be undone.

    Attributes:
        name: of the label below corrections/, such as "7/a.png".
        sha256: of the image, in hexadecimal.
        before: names of the image's other labels, which are gone.
        is_new: whether there was no such label before.

    """

    name: str
    sha256: str
    before: tuple[str, ...]
    is_new: bool


class Labelling:
    """Labels images. For one thread.

    Args:
        corrections: the folder, made where it is missing.
        max_bytes: of an image.
        known: where labels of an image may be, by its SHA-256 in hexadecimal; all that there are are looked at, once,
            unless given.

    Raises:
        OSError: the folder cannot be used.

    """

    def __init__(self, corrections: Path, max_bytes: int, known: Callable[[str], Iterable[str]] | None = None) -> None:
        self._max_bytes, self._known = max_bytes, known
        self._folder = Folder(corrections, make=True)
        self._by_size: dict[int, list[str]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()

    def label(self, originals: Folder, original: str, label: str, sha256: str | None = None) -> Labelled:
        """Copy an original into corrections/<label>/, beside others of its name; another label of the image moves.

        Args:
            originals, original: where it is.
            label: what it shows, "0" to "9" or "none".
            sha256: of the image that is meant, in hexadecimal; None where that is whatever has the name.

        Raises:
            InvalidImage: it is no regular file, too large, or not to be read.
            OSError: it is not there, or is another image, or its label cannot be written.

        """
        content = read_content(original, self._max_bytes, originals)
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise FileNotFoundError(
                f"Expected the image that was answered. Received: another one that is called {original!r}."
            )
        others = [name for name in self._labels_of(content, found) if name.partition("/")[0] != label]
        place = f"{label}/{visible(original)}"
        if flattened(self._folder, place) != place:  # a label of an image that is called like its folder is in the way
            place = f"{label}/{visible(original).replace('/', '~')}"
        names = (with_ending(place, tag, "") for tag in tags(found))
        status = originals.status(original)
        name = next(name for name in names if may_have(self._folder, name, found, status))
        done = Labelled(name, found, tuple(others), not self._folder.holds(name))
        if done.is_new and others:
            rename(self._folder, others.pop(), self._folder, name)
        elif done.is_new:
            self._write(name, content)
        for other in others:
            self._folder.unlink(other)
        if done.is_new and self._by_size is not None:
            self._by_size.setdefault(len(content), []).append(name)
        return done

    def take_back(self, done: Labelled) -> None:
        """Undo a labelling: what it wrote goes, what it had moved comes back.

        Raises:
            FileNotFoundError: somebody has labelled the image since.
            InvalidImage, OSError: as of `label`.

        """
        content = read_content(done.name, self._max_bytes, self._folder)
        if hashlib.sha256(content).hexdigest() != done.sha256:
            raise FileNotFoundError(f"Expected the label {done.name!r} as it was written. Received: another image.")
        for name in done.before:
            if not self._folder.holds(name):
                self._write(name, content)
        if done.is_new:
            self._folder.unlink(done.name)

    def _labels_of(self, content: bytes, sha256: str) -> Iterator[str]:
        for name in set(self._list(len(content)) if self._known is None else self._known(sha256)):
            with suppress(OSError):  # it cannot be read, or has gone
                if read_label(self._folder, name, len(content))[1] == sha256:
                    yield name

    def _list(self, size: int) -> Iterable[str]:
        """The labels of so many bytes."""
        if self._by_size is None:
            self._by_size = {}
            for name, status in list_corrections(self._folder):
                self._by_size.setdefault(status.st_size, []).append(name)
        return self._by_size.get(size, ())

    def _write(self, name: str, content: bytes) -> None:
        """Make a label appear whole, also where the power is cut."""
        temporary = f"{name.rpartition('/')[0]}/.digitd-{secrets.token_hex(8)}"
        self._folder.make_parents(temporary)
        try:
            with os.fdopen(self._folder.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            rename(self._folder, temporary, self._folder, name)
        except BaseException:
            with suppress(OSError):
                self._folder.unlink(temporary)
            raise
