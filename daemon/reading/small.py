"""Pictures of few pixels, and those that were enlarged from few: a digit fills them, and there is nothing else. No state."""

from __future__ import annotations

import math

import cv2
import numpy as np

from daemon.reading.mnist import BLANK_CONTRAST, Blank, centre, fit

MOST_ENLARGED = 16  # times that a picture may have been enlarged by repeating its pixels
LEAST_SIDE = 6  # pixels of what was enlarged

# Smooth enlargement, fitted on MNIST's digits at 8x8 and 16x16 enlarged by three methods.
COARSE_SIDE = 18  # pixels; what loses little at this size was enlarged from it or less
LOST_SHARE = 0.14  # of the grey levels' deviation; what loses more holds finer detail
STEP_SHARE = 0.75  # of the range; what has no steps of this height within 2 pixels is mere shading

# Paper of one grey all over: so much of the picture is no further from the lightest or the darkest grey in it.
LEVELS, EVEN_SHARE = 25, 0.35

INK_SHARE = 64  # of 255; what has less ink is not counted to the digit
MOST_PAPER = 100  # of 255; paper is no darker


def undo_enlargement(grey: np.ndarray) -> np.ndarray:
    """Reduce a picture of equal squares, as nearest-neighbour enlargement makes them, to one pixel a square."""
    common, middle = math.gcd(*grey.shape), grey[len(grey) // 2]
    for factor in range(min(MOST_ENLARGED, min(grey.shape) // LEAST_SIDE), 1, -1):
        if common % factor or (middle[1::factor] != middle[::factor]).any():  # one row tells it of nearly all pictures
            continue
        once = grey[::factor, ::factor]
        if (grey[1::factor, ::factor] == once).all() and (np.repeat(np.repeat(once, factor, 0), factor, 1) == grey).all():
            return once
    return grey


def undo_smooth_enlargement(grey: np.ndarray) -> np.ndarray:
    """Reduce a picture that was enlarged from about 16 pixels or fewer; any other comes back as it is."""
    height, width = grey.shape
    scale = COARSE_SIDE / max(grey.shape)
    size = (max(LEAST_SIDE, round(width * scale)), max(LEAST_SIDE, round(height * scale)))
    fine = grey.astype(np.float32)
    coarse = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
    spread = float(cv2.meanStdDev(fine)[1][0, 0])
    if spread < BLANK_CONTRAST:
        return grey
    lost = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) - fine
    if float(cv2.meanStdDev(lost)[1][0, 0]) > LOST_SHARE * spread:
        return grey
    around = np.ones((5, 5), np.uint8)
    steps = cv2.morphologyEx(coarse, cv2.MORPH_GRADIENT, around)
    return coarse if float(steps.max()) > STEP_SHARE * float(np.ptp(coarse)) else grey


def has_even_paper(grey: np.ndarray) -> bool:
    """Whether a picture's paper, (height, width) uint8, has about one grey: where it has not, a shadow lies on it."""
    low, high, *_ = cv2.minMaxLoc(grey)
    alike = max(np.count_nonzero(grey >= high - LEVELS), np.count_nonzero(grey <= low + LEVELS))
    return bool(alike >= EVEN_SHARE * grey.size)


def read_small(grey: np.ndarray) -> np.ndarray:
    """Bring a picture that a digit about fills into MNIST's form: find the paper's level and scale.

    Raises:
        Blank: there is no ink.

    """
    grey = grey.astype(np.float32)
    low, high = float(grey.min()), float(grey.max())
    if high - low < BLANK_CONTRAST:
        raise Blank(high - low)
    ink = (high - grey if paper_is_light(grey) else grey - low) * (255 / (high - low))
    paper = min(float(np.median(ink[ink < 128])), MOST_PAPER)
    ink = np.clip((ink - paper) * (255 / (255 - paper)), 0, 255)
    seen = ink > INK_SHARE
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return centre(fit(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


def paper_is_light(grey: np.ndarray) -> bool:
    """Whether the paper is the lighter part of a picture that a digit about fills: corners, border and all else vote."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    corners = grey[[0, 0, -1, -1], [0, -1, 0, -1]]
    level = (float(border.mean()) + float(corners.mean()) + float(grey.mean())) / 3
    return level > (float(grey.min()) + float(grey.max())) / 2
