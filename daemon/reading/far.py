"""A digit far away: the only ink on a large sheet, but too small there to be told from a speck. No state."""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.components import Component, choose_digit, find_components
from daemon.reading.inks import find_inks

LEAST_CONTRAST = 60  # grey levels; paper's grain has less
INK_SHARE = 0.4  # of the most ink; so little of it on a sheet has no threshold of Otsu's
LEAST_SHARE = 0.02  # of the longer side; what is smaller is a speck
RIVAL_SHARE = 0.2  # of the ink; where more lies elsewhere, nobody knows what to look at
AROUND_SHARE = 0.8  # of its size, on each side, is looked at as well


def find_far(grey: np.ndarray) -> tuple[float, float, float, float] | None:
    """Find where to look more closely on a reduced picture, (height, width) uint8.

    Returns:
        Left, top, right and bottom as shares of its width and height; None where there is a digit to see as it is, or
        nothing, or too much.

    """
    low, high, *_ = cv2.minMaxLoc(grey)
    if high - low < LEAST_CONTRAST:
        return None
    ink = find_inks(grey)[0]
    level = cv2.minMaxLoc(ink)[1]
    if level < LEAST_CONTRAST:
        return None
    components = find_components(cv2.threshold(ink, INK_SHARE * level, 255, cv2.THRESH_BINARY)[1])
    if components is None or choose_digit(components)[0]:
        return None
    height, width = grey.shape
    inner = [one for one in components.pick(components.table[:, 4] > 1) if one.borders((height, width)) < 2]
    if not inner:
        return None
    main = max(inner, key=lambda one: one.area)
    reach = max(2.0, AROUND_SHARE * main.size)
    box = main.left - reach, main.top - reach, main.right + reach, main.bottom + reach
    near = [one for one in inner if _is_within(one, box)]
    if sum(one.area for one in inner) > (1 + RIVAL_SHARE) * sum(one.area for one in near):
        return None
    if max(one.bottom for one in near) - min(one.top for one in near) < LEAST_SHARE * max(height, width):
        return None
    return max(box[0], 0) / width, max(box[1], 0) / height, min(box[2] / width, 1), min(box[3] / height, 1)


def _is_within(one: Component, box: tuple[float, float, float, float]) -> bool:
    return box[0] <= one.left and box[1] <= one.top and one.right <= box[2] and one.bottom <= box[3]
