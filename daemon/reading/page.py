"""From a picture of a page, or of a digit cut out of one, to readings in MNIST's form, (28, 28). No state.

A page may have rules, an edge with a table beyond it, specks and shadows, and the digit lies anywhere on it: all that is
taken off. A digit that was cut out of a form fills its picture to the border, and there the same rules would erase strokes.
Where the two ways differ, nobody can tell from the picture alone which is right: so both readings are given, and the model,
which knows what digits look like, decides.

The numbers below were fitted on the drawn pages of `benchmarks/devset.py`, and looked at on the scans of 13 writers.
"""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.components import SPECK_SHARE, Component, choose_digit, find_components, tell_several
from daemon.reading.drawing import draw
from daemon.reading.mnist import BLANK_CONTRAST, Blank, Reading, centre, fit
from daemon.reading.rules import erase_rules
from daemon.reading.small import paper_is_light

# Background and threshold.
BACKGROUND_SIDE = 64  # pixels, about; the size at which paper and shadows are looked for
REACH_SHARE = 0.11  # of the longer side; half the width of a square that no stroke fills
EVEN_SHARE = 0.1  # of the places where ink and paper meet: so near to a half, their share tells nothing of which is which
FLAT = 12  # grey levels; where the border of the background varies less, the paper has one grey all over
DARKEST_PAPER = 40  # grey levels; in a deeper shadow ink is not made stronger any more
LEAST_INK_SHARE = 0.4  # of the ink's mean level; what is weaker is paper, whatever Otsu says

# A digit cut out of a page reaches all four borders of its picture. So do the rules of a grid and the frame of a form, but
# they meet the border at right angles, and textures meet it in many places.
CROP_SHARE = 0.02  # of the ink; where the page's reading leaves out less, there is no other
MOST_TOUCHES = 16  # stretches of ink along the four borders together; more is no digit
MOST_TOUCHES_ALONE = 8  # likewise, where as a page the picture is blank
EDGE_COVER = 0.9  # of a border; where ink covers two of them, it is what lies beyond the paper
TANGENT_SHARE = 0.02  # of the four borders, on average; what covers as much is more likely a digit cut out than lines


def read_page(grey: np.ndarray) -> list[Reading]:
    """Read a picture of a page or of a cut-out digit, (height, width) uint8.

    Returns:
        Its reading as a page, and that as a digit cut out of one where it differs; the likelier first.

    Raises:
        Blank: there is no ink.

    """
    low, high, *_ = cv2.minMaxLoc(grey)
    if high - low < BLANK_CONTRAST:
        raise Blank(high - low)
    ink = _find_ink(grey)
    threshold, level, contrast = _find_threshold(ink)
    if contrast < BLANK_CONTRAST:
        raise Blank(contrast)
    whole = cv2.threshold(ink, threshold, 255, cv2.THRESH_BINARY)[1]
    components = find_components(erase_rules(whole))
    if components is None:
        return [Reading(centre(fit(ink)), "not_a_digit")]
    chosen, doubt = choose_digit(components)
    readings = [Reading(draw(ink, level, components, chosen), doubt)] if chosen else []
    if doubt is None and (crop := _read_crop(ink, level, whole, chosen)):
        reading, likelier = crop
        if likelier:
            return [reading, *readings]
        if readings:
            readings.append(reading)
    if not readings:
        raise Blank(contrast)
    return readings


def _find_ink(grey: np.ndarray) -> np.ndarray:
    """How much darker (or lighter, where ink is light) than its background each pixel is: (height, width) uint8."""
    factor = max(1, round(max(grey.shape) / BACKGROUND_SIDE))
    small = grey
    if factor > 1:
        size = -(-grey.shape[1] // factor), -(-grey.shape[0] // factor)
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    width = 2 * max(2, round(max(small.shape) * REACH_SHARE)) + 1
    square = np.ones((width, width), np.uint8)
    lightest, darkest = cv2.dilate(small, square), cv2.erode(small, square)
    if _ink_is_light(small, lightest, darkest):
        background = cv2.dilate(darkest, square)
        paper = _paper(background, grey.shape)
        return cv2.subtract(grey, paper)
    background = cv2.erode(lightest, square)
    paper = _paper(background, grey.shape)
    # The missing share of the paper's light, so that a shadow does not weaken the ink in it.
    return cv2.divide(cv2.subtract(paper, grey), np.maximum(paper, DARKEST_PAPER), scale=255)


def _paper(background: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(height, width) uint8: the grey level of the paper, from a small picture of it."""
    border = _border(background)
    if int(border.max()) - int(border.min()) < FLAT:
        return np.full(shape, np.uint8(np.median(border)))
    return cv2.resize(background, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _ink_is_light(grey: np.ndarray, lightest: np.ndarray, darkest: np.ndarray) -> bool:
    """Whether there is less light than dark where the two meet; if that is even, where paper should be."""
    contrast = cv2.subtract(lightest, darkest)
    middle = cv2.addWeighted(lightest, 0.5, darkest, 0.5, 0)
    busy = contrast > contrast.max() // 2
    dark = int(np.count_nonzero(busy & (grey < middle))) / int(np.count_nonzero(busy))
    if abs(dark - 0.5) > EVEN_SHARE:
        return dark > 0.5
    return not paper_is_light(grey)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _find_threshold(ink: np.ndarray) -> tuple[float, float, float]:
    """Otsu's threshold (1979, IEEE Trans. SMC 9:62-66), the mean level of the ink above it, and by how much that is more."""
    threshold, mask = cv2.threshold(ink, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    level = cv2.mean(ink, mask)[0]
    return max(threshold, LEAST_INK_SHARE * level), level, level - cv2.mean(ink, cv2.bitwise_not(mask))[0]


def _read_crop(ink: np.ndarray, level: float, mask: np.ndarray, chosen: list[Component]) -> tuple[Reading, bool] | None:
    """Read a picture in which all ink is the digit.

    Returns:
        The reading, and whether it is likelier than that of the page; None where it is out of the question, or gives no
        more than what was chosen from the page.

    """
    borders = [mask[:2].max(axis=0), mask[-2:].max(axis=0), mask[:, :2].max(axis=1), mask[:, -2:].max(axis=1)]
    touches = [np.count_nonzero(border[1:] > border[:-1]) + int(border[0] > 0) for border in borders]
    if min(touches) == 0 or sum(touches) > (MOST_TOUCHES if chosen else MOST_TOUCHES_ALONE):
        return None
    components = find_components(mask)
    if components is None:
        return None
    areas = components.table[:, 4]
    kept = components.pick(areas >= SPECK_SHARE * areas[1:].max())
    area = sum(one.area for one in kept)
    if area - sum(one.area for one in chosen) < CROP_SHARE * area:
        return None
    covers = sorted(float(border.mean()) / 255 for border in borders)
    likelier = sum(covers) > 4 * TANGENT_SHARE and covers[-2] < EDGE_COVER
    return Reading(draw(ink, level, components, kept), tell_several(kept)), likelier
