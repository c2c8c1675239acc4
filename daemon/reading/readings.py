"""What readings many images have, in columns, as they cross from process to process and into the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from daemon.reading.components import Doubt
from daemon.reading.mnist import SIDE, Reading


@dataclass(frozen=True, slots=True)
class Readings:
    """m readings of n images, each of which has one or more; an image's readings follow one another, the likeliest first.

    Attributes:
        pixels: (m, 28, 28) uint8, in MNIST's form.
        doubts: m, what speaks against each one's being one digit.
        as_sent: (m,) bool, which ones are the pixels that were sent.
        first: (n,) intp, where each image's readings begin.

    """

    pixels: np.ndarray
    doubts: list[Doubt | None]
    as_sent: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, images: Iterable[tuple[Reading, ...]]) -> Readings:
        """Put the readings of n images into columns."""
        pixels: list[np.ndarray] = []
        doubts: list[Doubt | None] = []
        as_sent: list[bool] = []
        first = []
        for readings in images:
            first.append(len(pixels))
            for reading in readings:
                pixels.append(reading.pixels)
                doubts.append(reading.doubt)
                as_sent.append(reading.as_sent)
        columns = np.array(pixels, np.uint8).reshape(-1, SIDE, SIDE), doubts, np.array(as_sent, bool)
        return cls(*columns, np.array(first, np.intp))

    @classmethod
    def joined(cls, parts: list[Readings]) -> Readings:
        """Those of several lots of images, as one."""
        offsets = np.cumsum([0] + [len(part.pixels) for part in parts[:-1]])
        return cls(
            np.concatenate([part.pixels for part in parts]),
            [doubt for part in parts for doubt in part.doubts],
            np.concatenate([part.as_sent for part in parts]),
            np.concatenate([part.first + offset for part, offset in zip(parts, offsets, strict=True)]),
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def likeliest(self) -> np.ndarray:
        """(n, 28, 28) uint8: of each image the first reading, for where no model is there to choose."""
        pixels: np.ndarray = self.pixels if len(self.pixels) == len(self.first) else self.pixels[self.first]
        return pixels
