"""What walks through the house: a drop, what its image is, its prediction or its rejection, and the names of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

NAME_MAX = 255  # bytes, of one name on Linux file systems
Row = TypeVar("Row", bound=NamedTuple)


class Rows(list[Row]):
    """Named tuples of one kind, which cross to another process in columns: one by one they cost ten times as much."""

    def __reduce__(self) -> tuple[Callable[..., Rows[Row]], tuple[Any, ...]]:
        return (_rows, (type(self[0]), *zip(*self, strict=True))) if self else (Rows, ())


def _rows(kind: type[Row], *columns: tuple[Any, ...]) -> Rows[Row]:
    return Rows(map(kind, *columns))


class Drop(NamedTuple):
    """One file on its walk.

    Attributes:
        name: its path below the inbox, as the operating system spells it.
        received: when it was dropped, in seconds since the epoch.

    """

    name: str
    received: float


class ImageFacts(NamedTuple):
    """What is known of an image beside its content: digest, format and size in pixels, as its result says, and in bytes."""

    sha256: str
    format: str
    width: int
    height: int
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """A batch that was predicted together, in columns of n.

    Attributes:
        drops, images: what was predicted.
        probabilities: (n, 10) float32.
        review_reasons: why a person should look at it, or None.
        version, model_sha256: of the model that gave the answers.
        claimed, predicted: when, in seconds since the epoch.

    """

    drops: Rows[Drop]
    images: Rows[ImageFacts]
    probabilities: np.ndarray
    review_reasons: list[str | None]
    version: str
    model_sha256: str
    claimed: float
    predicted: float


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that gets no prediction, and why; `reason` is one of the contract's slugs."""

    drop: Drop
    reason: str
    detail: str
    hint: str
    sha256: str | None


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
