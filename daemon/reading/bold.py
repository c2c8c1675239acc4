"""Bold digits that about fill their picture, as markers write them and as programs cut them out of pages. No state.

A page's background is what no stroke covers; here strokes are as wide as the gaps between them, so that paper would be taken
for ink and ink for paper. What still tells them apart: ink and paper have one level each, and most of the border is paper.
"""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.components import SPECK_SHARE, find_components, tell_several
from daemon.reading.drawing import draw
from daemon.reading.mnist import BLANK_CONTRAST, Reading

SAMPLE = 64  # pixels, about; the side of the sample that is looked at first
LEAST_INK, MOST_INK = 0.2, 0.9  # of the picture; with less of it, a digit is read as a page's as well
CLEAR_SHARE = 0.65  # of the border, at least, is paper
SEPARATE_SHARE = 0.8  # of the grey levels' variance lies between ink and paper, at least; shadows and textures have less
MOST_TOUCHES = 16  # stretches of ink along the four borders together; more is no digit


def read_bold(grey: np.ndarray) -> Reading | None:
    """Read a picture, (height, width) uint8, in which all ink is a bold digit; None where it is another picture."""
    step = max(1, max(grey.shape) // SAMPLE)
    if (found := _find_levels(grey[::step, ::step])) is None:
        return None
    paper, level = found
    ink = np.clip((grey.astype(np.float32) - paper) * (255 / (level - paper)), 0, 255).astype(np.uint8)
    mask = cv2.threshold(ink, 127, 255, cv2.THRESH_BINARY)[1]
    borders = mask[0], mask[-1], mask[:, 0], mask[:, -1]
    if sum(np.count_nonzero(border[1:] > border[:-1]) + int(border[0] > 0) for border in borders) > MOST_TOUCHES:
        return None
    components = find_components(mask)
    if components is None:
        return None
    areas = components.table[:, 4]
    kept = components.pick(areas >= SPECK_SHARE * areas[1:].max())
    return Reading(draw(ink, 255, components, kept), tell_several(kept))


def _find_levels(grey: np.ndarray) -> tuple[float, float] | None:
    """The grey levels of paper and ink, where there are these two, paper along the border, and much ink."""
    _, light = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    border = float(np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]]).mean()) / 255
    if max(border, 1 - border) < CLEAR_SHARE:
        return None
    dark = cv2.bitwise_not(light)
    on_paper, on_ink = (light, dark) if border > 0.5 else (dark, light)
    share = cv2.countNonZero(on_ink) / grey.size
    if not LEAST_INK < share < MOST_INK:
        return None
    paper, ink = cv2.mean(grey, on_paper)[0], cv2.mean(grey, on_ink)[0]
    deviation = float(cv2.meanStdDev(grey)[1][0, 0])
    apart = abs(ink - paper) >= BLANK_CONTRAST and share * (1 - share) * (ink - paper) ** 2 >= SEPARATE_SHARE * deviation**2
    return (paper, ink) if apart else None
