"""Drawing a digit in MNIST's form from the components of a picture's ink. No state."""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.components import Component, Components
from daemon.reading.mnist import BOX, centre, fit

# Ink below the first share of its mean level is paper, above the second it is full.
FAINT_SHARE, FULL_SHARE = 0.1875, 0.8125
THIN = 2.2  # pixels of BOX; thinner strokes are widened to it, as MNIST's are mostly 2 to 4 wide
WIDENED_SHARE = 0.7  # of the ink beside a pixel that widening by a whole pixel gives it


def draw(ink: np.ndarray, level: float, components: Components, chosen: list[Component]) -> np.ndarray:
    """Draw components in MNIST's form, with strokes of about its width."""
    top, bottom = min(one.top for one in chosen), max(one.bottom for one in chosen)
    left, right = min(one.left for one in chosen), max(one.right for one in chosen)
    labels = components.labels[top:bottom, left:right]
    if len(chosen) == 1:
        mask = labels == chosen[0].label
    else:
        picked = np.zeros(len(components.table), bool)
        picked[[one.label for one in chosen]] = True
        mask = picked[labels]
    mask = mask.view(np.uint8)
    soft = cv2.multiply(cv2.LUT(ink[top:bottom, left:right], _soften(level)), cv2.dilate(mask, np.ones((3, 3), np.uint8)))
    stroke = stroke_width(mask) * BOX / max(mask.shape)
    fitted = fit(soft)
    if stroke < THIN:
        fitted = _widen(fitted, min(1.0, THIN - stroke))
    return centre(fitted)


def stroke_width(mask: np.ndarray) -> float:
    """The mean width of the strokes of a mask, (height, width) uint8 of 0 and 1, in pixels."""
    # A strip of width w and length l has area w*l, and loses 2*l when a pixel is taken off on each side.
    area = cv2.countNonZero(mask)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    lost = area - cv2.countNonZero(cv2.erode(mask, cross, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)))
    return 2 * area / max(lost, 1)


def _soften(level: float) -> np.ndarray:
    """(256,) uint8: how much ink is drawn for each grey level of it."""
    share = (np.arange(256) / level - FAINT_SHARE) / (FULL_SHARE - FAINT_SHARE)
    return (255 * np.clip(share, 0, 1)).astype(np.uint8)


def _widen(ink: np.ndarray, amount: float) -> np.ndarray:
    """Widen strokes by up to a pixel on each side; amount 0 to 1."""
    padded = cv2.copyMakeBorder(ink, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    share = amount * WIDENED_SHARE
    return cv2.addWeighted(padded, 1 - share, cv2.dilate(padded, np.ones((3, 3), np.uint8)), share, 0)
