"""Printed lines, as on ruled and squared paper and on forms: thin, nearly level or upright, from border to border. No state.

The numbers below were fitted on the drawn pages of `benchmarks/devset.py`; THICKEST_ONE_IN on scans by ten people, nine
learnt from and one watched, as a program wrote them on ruled and squared paper.
"""

from __future__ import annotations

import cv2
import numpy as np

THICKEST, THICKEST_ONE_IN = 4, 30  # pixels, or one in so many of the picture's longer side; what is thicker is a stroke
STEEPEST, SLOPES = 0.08, 17  # pixels up or down for each along, and how many slopes in that range are tried
SHARE = 0.6  # of the picture's width; what covers less is no rule
END_SHARE = 0.02  # of the picture's width; a rule ends no further from the border
FEWEST = 4  # rules; so many need not reach the border: a 5 or an 8 has three bars, but paper may end before its picture
MOST_SHARE = 0.5  # of the picture's height; where rules would be more, it is a texture


def erase_rules(mask: np.ndarray) -> np.ndarray:
    """Erase rules both ways from a mask, (height, width) uint8 of 0 and 255; strokes that cross them stay."""
    return _erase_level_rules(_erase_level_rules(mask).T).T


def _erase_level_rules(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    if _cover(mask) < SHARE * width:  # told at once of nearly all pages
        return mask
    thick = max(THICKEST, round(max(height, width) / THICKEST_ONE_IN))
    if height <= 2 * thick:
        return mask
    upright = np.ones((thick, 1), np.uint8)
    strokes = cv2.morphologyEx(mask, cv2.MORPH_OPEN, upright, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    thin = cv2.subtract(mask, strokes)
    around = np.ones((round(STEEPEST * width) + thick, 1), np.uint8)  # so many rows the steepest rule takes
    if _covered(cv2.dilate(thin, around)).max() < SHARE * width:
        return mask
    rows, columns = np.nonzero(thin)
    level, counts = _find_slope(rows, columns - width / 2, width, height)
    seen = np.zeros((len(counts), width), np.uint8)
    seen[level, columns] = 255
    rules = _covered(cv2.dilate(seen, np.ones((3, 1), np.uint8))) > SHARE * width  # each column counts once
    if np.count_nonzero(rules[1:] > rules[:-1]) < FEWEST:
        end = max(1, round(END_SHARE * width))
        for ending in (columns < end, columns >= width - end):
            rules &= _spread(np.bincount(level[ending], minlength=len(counts)), thick // 2) > 0
    rules = _spread(rules, thick // 2) > 0
    if np.count_nonzero(rules) > MOST_SHARE * height:
        return mask
    hit = rules[level]
    erased = mask.copy()
    erased[rows[hit], columns[hit]] = 0
    return erased


def _cover(mask: np.ndarray) -> int:
    """How many columns have any ink."""
    return cv2.countNonZero(cv2.reduce(mask, 0, cv2.REDUCE_MAX))


def _covered(mask: np.ndarray) -> np.ndarray:
    """How many columns have ink in each row: (height,) int."""
    covered: np.ndarray = cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] // 255
    return covered


def _find_slope(rows: np.ndarray, across: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort pixels into lines of the slope at which they gather most.

    Args:
        rows, across: (n,) where each pixel is, across counted from the middle.
        width, height: of the picture.

    Returns:
        (n,) the line that each pixel lies on, and how many lie on each.

    """
    margin = int(STEEPEST * width / 2) + 2
    best = np.empty(0, np.intp), np.zeros(1, np.intp)
    for slope in np.linspace(-STEEPEST, STEEPEST, SLOPES):
        level = (rows - slope * across + margin + 0.5).astype(np.intp)
        counts = np.bincount(level, minlength=height + 2 * margin)
        if counts @ counts > best[1] @ best[1]:
            best = level, counts
    return best


def _spread(counts: np.ndarray, reach: int) -> np.ndarray:
    """The sum of each count and those up to `reach` places away."""
    spread: np.ndarray = np.convolve(counts, np.ones(2 * reach + 1, np.intp), "same")
    return spread
