"""How much ink there is at each pixel of a page, whatever light falls on it: dark on light, or light on dark. No state.

The numbers below were fitted on the drawn pages of `benchmarks/devset.py`, STEEPEST on scans by ten people, nine learnt from
and one watched, as `benchmarks/hands.py` shows them shadowed.
"""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.shadows import DARKEST_PAPER
from daemon.reading.small import paper_is_light

BACKGROUND_SIDE = 64  # pixels, about; the size at which paper and shadows are looked for
REACH_SHARE = 0.11  # of the longer side; half the width of a square that no stroke fills
EVEN_SHARE = 0.1  # of the places where ink and paper meet: so near to a half, their share tells nothing of which is which
NARROW_SHARE = 0.75  # of the most contrast; where what is narrow has less, an edge has the most
FLAT = 12  # grey levels; where the border of the background varies less, the paper has one grey all over
STEEPEST = 0.85  # of the light that the square saw, at least, is left at the border

LEVELS = np.arange(256, dtype=np.uint8)  # all grey levels


def find_inks(grey: np.ndarray) -> list[np.ndarray]:
    """How much darker (or lighter, where ink is light) than its background each pixel is: (height, width) uint8.

    Returns:
        One, or two where ink seems to be light but may be dark, with light from one side: the darker first.

    """
    factor = max(1, round(max(grey.shape) / BACKGROUND_SIDE))
    small = grey
    if factor > 1:
        size = -(-grey.shape[1] // factor), -(-grey.shape[0] // factor)
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    width = 2 * max(2, round(max(small.shape) * REACH_SHARE)) + 1
    square = np.ones((width, width), np.uint8)
    lightest, darkest = cv2.dilate(small, square), cv2.erode(small, square)
    is_light = _ink_is_light(small, lightest, darkest, square)
    background = cv2.dilate(darkest, square) if is_light else cv2.erode(lightest, square)
    border = _border(background)
    if int(border.max()) - int(border.min()) < FLAT:
        even = np.full_like(LEVELS, np.median(border))
        return [cv2.LUT(grey, _ink_on(even, LEVELS, is_light))]
    size = grey.shape[1], grey.shape[0]
    papers = [(background, is_light)]
    if is_light:
        papers.insert(0, (cv2.erode(lightest, square), False))
    return [
        _ink_on(cv2.resize(_slope_on(paper, width // 2, light), size, interpolation=cv2.INTER_LINEAR), grey, light)
        for paper, light in papers
    ]


def _slope_on(paper: np.ndarray, reach: int, is_light: bool) -> np.ndarray:
    """Have a background, (height, width) uint8, go on sloping to its border, where no square that found it fits any more.

    In light from one side, paper along the dark border is darker than any that such a square saw, and is no ink.

    Args:
        paper: the background.
        reach: half the width of the square.
        is_light: whether ink is; then what is lighter, along the other border, is none.

    """
    height, width = paper.shape
    halves = (paper[: -(-height // 2)], paper[height // 2 :]), (paper[:, : -(-width // 2)], paper[:, width // 2 :])
    changes = []
    for length, (first, last) in zip(paper.shape, halves, strict=True):
        slope = (cv2.mean(last)[0] - cv2.mean(first)[0]) * 2 / length
        beyond = abs(slope) * np.maximum(reach - np.arange(length, dtype=np.float32), 0)  # where the numbers begin
        changes.append(beyond[::-1] if (slope > 0) == is_light else beyond)
    change = np.add.outer(*changes)
    if is_light:
        return cv2.min(cv2.add(paper, change, dtype=cv2.CV_8U), cv2.convertScaleAbs(paper, alpha=1 / STEEPEST))
    return cv2.max(cv2.subtract(paper, change, dtype=cv2.CV_8U), cv2.convertScaleAbs(paper, alpha=STEEPEST))


def _ink_on(paper: np.ndarray, grey: np.ndarray, is_light: bool) -> np.ndarray:
    """How much ink makes this paper so grey; arrays of one shape, uint8."""
    if is_light:
        return cv2.subtract(grey, paper)
    # The missing share of the paper's light, so that a shadow does not weaken the ink in it.
    return cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, DARKEST_PAPER), scale=255)


def _ink_is_light(grey: np.ndarray, lightest: np.ndarray, darkest: np.ndarray, square: np.ndarray) -> bool:
    """Whether there is less light than dark where the two meet.

    If that is even, a shadow's edge may have more contrast than the ink, but unlike ink it is not narrow: then by what is
    narrow and stands out most, as a share of the light there. Else by where paper should be.
    """
    contrast = cv2.subtract(lightest, darkest)
    middle = cv2.addWeighted(lightest, 0.5, darkest, 0.5, 0)
    busy = contrast > contrast.max() // 2
    dark = int(np.count_nonzero(busy & (grey < middle))) / max(int(np.count_nonzero(busy)), 1)  # hatching may even out
    if abs(dark - 0.5) > EVEN_SHARE:
        return dark > 0.5
    paper = cv2.erode(lightest, square)
    narrow = [cv2.subtract(grey, cv2.dilate(darkest, square)), cv2.subtract(paper, grey)]
    if max(int(one.max()) for one in narrow) < NARROW_SHARE * int(contrast.max()):
        margin = len(square) // 2  # along the border nothing tells an edge from a line
        inner = slice(margin, -margin), slice(margin, -margin)
        light, dark = (float((one[inner] / np.maximum(paper[inner], DARKEST_PAPER)).max(initial=0)) for one in narrow)
        return light > dark
    return not paper_is_light(grey)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
