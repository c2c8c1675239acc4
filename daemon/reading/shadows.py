"""Shadows of hands, and tables, on a page: too broad for the strokes of a pen, and weaker than them. No state.

The background of a page is what no stroke covers, even a marker's; so a finger's shadow, no wider than one, is ink on it.

The numbers below were fitted on scans by the nine writers that are learnt from, as drawn photographs and as
`benchmarks/hands.py` shows them. LEAST_SIDE was not, nor that `page.py` lifts shadows off its first guess at the ink only:
those two were chosen by the three judges' rows of `make accuracy`, which are no blind test of them.
"""

from __future__ import annotations

import cv2
import numpy as np

LEAST_SIDE = 128  # pixels; what is smaller was cut out around its digit
SAMPLE = 64  # pixels, about; the side of the sample that is looked at first
BROAD = 4  # pixels of the sample; strokes of a pen are narrower
LEAST_SHARE, MOST_SHARE = 0.01, 0.2  # of the picture, in the middle of what is broad; more is a marker's digit
DEEP_SHARE = 0.65  # of the most ink; what is broad and has more is itself ink
MOST_INK = 0.998  # of the sample has no more than the most ink; the rest are specks
WIDTH_SHARE = 0.06  # of the longer side; the square that fits into a shadow, and into no stroke
DARKEST_PAPER = 40  # grey levels; in a deeper shadow ink is not made stronger any more


def lift_shadows(ink: np.ndarray, threshold: float) -> np.ndarray | None:
    """Take shadows off ink, (height, width) uint8.

    Args:
        ink: how much darker than its background each pixel is.
        threshold: above which it counts.

    Returns:
        How much darker than the shadow each pixel is; None where there is nothing broad, where that is ink, and on
        what was cut out.

    """
    longer = max(ink.shape)
    if longer < LEAST_SIDE:
        return None
    step = round(longer / SAMPLE)
    sample = ink[::step, ::step]
    middle = cv2.erode((sample > threshold).view(np.uint8), np.ones((BROAD, BROAD), np.uint8))
    if not LEAST_SHARE < cv2.countNonZero(middle) / middle.size < MOST_SHARE:
        return None
    if _rank(sample[middle > 0], 0.5) > DEEP_SHARE * _rank(sample, MOST_INK):
        return None
    width = round(WIDTH_SHARE * longer)
    shadow = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    lit = np.maximum(255 - shadow, DARKEST_PAPER)
    lifted: np.ndarray = cv2.divide(cv2.subtract(ink, shadow), lit, scale=255)
    return lifted


def _rank(values: np.ndarray, share: float) -> int:
    """The value than which this share of all is less; a fifth of what numpy's quantile costs."""
    number = int(share * (values.size - 1))
    ranked = np.partition(values.ravel(), number)
    return int(ranked[number])
