"""MNIST's form, which every model here reads: what is in it, what is brought into it, and what in it is no digit. No state.

(28, 28) uint8, ink 255 on paper 0, the digit fitted into 20x20 keeping its aspect ratio, its centre of mass in the middle
(LeCun et al., http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from daemon.reading.components import Doubt

SIDE = 28  # of an image
BOX = 20  # what the digit is fitted into
BLANK_CONTRAST = 24  # grey levels of 255; less than this between ink and paper is a blank page

# Of a picture that is in MNIST's form already; fitted so that all of MNIST's images are.
NEARLY_PURE = 8  # grey levels off black or white that paper may be
MOST_BORDER_INK = 10  # of the border's 112 pixels; centring leaves some of MNIST's digits touching it
MOST_OFF = 1.5  # pixels, across or down, of the centre of mass off the middle; of MNIST's it is at most 1
LEAST_SPAN = 17  # pixels, of the longer side; of one in 2,000 of MNIST's it is less

# What 1,999 of 2,000 of MNIST's digits keep to.
MOST_INK = 280  # pixels with ink
LEAST_ROWS = 7  # rows with ink
MOST_STROKES = 95  # strokes met by all rows and all columns together
THICKEST = 7.5  # pixels, a stroke's mean width
BOLD = 4.4  # likewise; what is bolder may be read as if a finer pen had written it


# (784, 3): of each pixel 1, its row and its column, counted from the middle
PLACES = np.stack([np.ones(SIDE * SIDE), *(np.indices((SIDE, SIDE)).reshape(2, -1) - (SIDE - 1) / 2)], axis=1).astype(
    np.float32
)


class Reading(NamedTuple):
    """One way to see a picture as a digit.

    Attributes:
        pixels: (28, 28) uint8, in MNIST's form.
        doubt: what already speaks against its being one digit, before any model has seen it.
        as_sent: whether the picture was in MNIST's form, so that these are its own pixels.

    """

    pixels: np.ndarray
    doubt: Doubt | None = None
    as_sent: bool = False


class Blank(Exception):
    """There is no ink, or only specks; `contrast` is how far the grey levels differ from the paper, of 255."""

    def __init__(self, contrast: float) -> None:
        super().__init__(f"contrast {contrast:.0f}")
        self.contrast = contrast


def take_canonical(greys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take pictures of MNIST's size as they are, (n, 28, 28) uint8.

    Returns:
        The same with ink 255 on paper 0, and (n,) whether each is in MNIST's form: its border is nearly all paper, and the
        digit is in the middle and large enough.

    """
    border = np.concatenate([greys[:, 0], greys[:, -1], greys[:, :, 0], greys[:, :, -1]], axis=1)
    light_on_dark = (border > NEARLY_PURE).sum(axis=1) <= MOST_BORDER_INK
    dark_on_light = (border < 255 - NEARLY_PURE).sum(axis=1) <= MOST_BORDER_INK
    ink = np.where(light_on_dark[:, None, None], greys, 255 - greys)
    mass, down, across = (ink.reshape(len(ink), -1).astype(np.float32) @ PLACES).T
    in_middle = np.maximum(np.abs(down), np.abs(across)) <= MOST_OFF * mass
    span = np.maximum(_span(ink > 127, 1), _span(ink > 127, 2))
    strong = ink.max(axis=(1, 2)) >= 4 * BLANK_CONTRAST
    return ink, (light_on_dark | dark_on_light) & in_middle & (span >= LEAST_SPAN) & strong


def _span(inked: np.ndarray, axis: int) -> np.ndarray:
    """How far ink, (n, 28, 28) bool, reaches across (axis 1) or down (2): (n,) pixels from the first to the last."""
    some = np.asarray(inked.any(axis=axis))
    span: np.ndarray = SIDE - some.argmax(axis=1) - some[:, ::-1].argmax(axis=1)
    return span


def fit(ink: np.ndarray) -> np.ndarray:
    """Scale ink, (height, width) uint8 or float32, to BOX pixels on the longer side, keeping its aspect ratio."""
    scale = BOX / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    return cv2.resize(ink, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def centre(digit: np.ndarray) -> np.ndarray:
    """Put the digit's centre of mass into the middle of a 28x28 image; nothing is cut off.

    Args:
        digit: at most (28, 28) uint8 or float32, ink positive on paper 0.

    Returns:
        (28, 28) uint8; the most ink in it is 255.

    """
    height, width = digit.shape
    digit = cv2.convertScaleAbs(np.maximum(digit, 0), alpha=255 / max(cv2.minMaxLoc(digit)[1], 1.0))
    moments = cv2.moments(digit)
    row, column = moments["m01"] / moments["m00"], moments["m10"] / moments["m00"]
    top = min(max(round(SIDE / 2 - 0.5 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - 0.5 - column), 0), SIDE - width)
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + height, left : left + width] = digit
    return pixels


def find_doubts(pixels: np.ndarray) -> tuple[list[Doubt | None], np.ndarray]:
    """Whether the ink of each, (n, 28, 28), is more, thicker, flatter or more scattered than that of nearly all digits.

    Returns:
        n doubts, and (n,) the mean widths of strokes in pixels, 0 where there is no ink.

    """
    ink = pixels > 127
    across, down = ink[:, :, 1:] & ink[:, :, :-1], ink[:, 1:] & ink[:, :-1]
    inner = across[:, 1:-1, 1:] & across[:, 1:-1, :-1] & down[:, 1:, 1:-1] & down[:, :-1, 1:-1]
    area, beside, above, inside = (part.sum(axis=(1, 2)) for part in (ink, across, down, inner))
    rows = ink.any(axis=2).sum(axis=1)
    strokes = 2 * area - beside - above
    widths = 2 * area / np.maximum(area - inside, 1)  # of a strip, two pixels in each of its rows are not inside
    odd = (area > MOST_INK) | (rows < LEAST_ROWS) | (strokes > MOST_STROKES) | (widths > THICKEST)
    return ["not_a_digit" if is_odd else None for is_odd in odd.tolist()], widths


def thin(pixels: np.ndarray) -> np.ndarray:
    """Take a pixel off strokes on each side, as if a finer pen had written them: (28, 28) uint8."""
    thinned: np.ndarray = cv2.erode(pixels, np.ones((3, 3), np.uint8))
    return thinned
