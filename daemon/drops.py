"""What walks through the house: a drop, what its image is, its prediction or its rejection. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Drop(NamedTuple):  # tuples cross to another process at a tenth of a dataclass's cost
    """One file on its walk.

    Attributes:
        name: its path below the inbox, as the operating system spells it.
        received: when it was dropped, in seconds since the epoch.

    """

    name: str
    received: float


class ImageFacts(NamedTuple):
    """What a result says about its image: the original's digest, format and size in pixels."""

    sha256: str
    format: str
    width: int
    height: int


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

    drops: list[Drop]
    images: list[ImageFacts]
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
