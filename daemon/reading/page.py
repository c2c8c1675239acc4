"""From a picture of a page, or of a digit cut out of one, to readings in MNIST's form, (28, 28). No state.

A page may have rules, an edge with a table beyond it, specks and shadows, and the digit lies anywhere on it, perhaps in a
frame: all that is taken off. A digit that was cut out of a form fills its picture to the border, and there the same rules
would erase strokes. Where the two ways differ, nobody can tell from the picture alone which is right: so both readings are
given, and the model, which knows what digits look like, decides.

The numbers below were fitted on the drawn pages of `benchmarks/devset.py`, and looked at on the scans of 13 writers;
MARGIN_SHARE on scans by ten people, nine learnt from and one watched, cut with margins of 0 to 6 % on each side.
"""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.broken import find_gaps
from daemon.reading.components import (
    SPECK_SHARE,
    Component,
    Components,
    choose_digit,
    find_components,
    lies_along_the_edge,
    tell_several,
)
from daemon.reading.drawing import draw
from daemon.reading.frames import Frame, find_frame, find_framed
from daemon.reading.inks import find_inks
from daemon.reading.mnist import BLANK_CONTRAST, Blank, Reading, centre, fit
from daemon.reading.rules import erase_rules
from daemon.reading.shadows import lift_shadows

# The threshold.
FAINT_CONTRAST = 16  # grey levels; ink that covers little may be fainter, for paper's grain is everywhere
FAINT_SHARE = 0.12  # of the picture
LEAST_INK_SHARE = 0.4  # of the ink's mean level; what is weaker is paper, whatever Otsu says
WEAK_SHARE = 0.4  # of the threshold; in a digit cut out of a page, ink above this that is joined to other ink is ink too

PALE_SHARE = 0.7  # of the threshold; where that of what a frame holds is higher, print and ink are equally dark
BLUR_SHARE = 0.5  # of the threshold of what lines hold; what is darker beside a line is its blurred edge
BEYOND_SHARE = 0.15  # of a frame's longer side; strokes that cross it go on for so much
SLIVERS_SHARE = 0.5  # of the digit's ink; what lies along a border and has more is no part of a neighbour
JOINED_TIMES = 1.05  # the ink of the digit chosen without; where bridging gaps adds less, nothing was broken

# A digit cut out of a page reaches all four borders of its picture, or nearly so. So do the rules of a grid and the frame of
# a form, but they meet the border at right angles, and textures meet it in many places.
CROP_SHARE = 0.02  # of the ink; where the page's reading leaves out less, there is no other
SOFT = 2  # pixels; weak ink no further from a stroke is its edge
CLEAR_SHARE = 0.8  # of the threshold; above this the paper's grain is no ink along the borders
MOST_TOUCHES = 16  # stretches of ink along the four borders together; more is no digit
MOST_TOUCHES_ALONE = 8  # likewise, where as a page the picture is blank
MARGIN_SHARE = 0.06  # of the longer side; a digit that was cut out with a margin of less may be all the ink there is
EDGE_COVER = 0.9  # of a border; where ink covers two of them, it is what lies beyond the paper
TANGENT_SHARE = 0.02  # of the four borders, on average; what covers as much is more likely a digit cut out than lines


def read_page(grey: np.ndarray) -> list[Reading]:
    """Read a picture of a page or of a cut-out digit, (height, width) uint8.

    Returns:
        Its reading as a page, and where it differs that as a digit cut out of one, perhaps with parts of others, within a
        frame, or with its gaps bridged; the likelier first.
        Where a shadow seems to lie on it, those without the shadow come before.

    Raises:
        Blank: there is no ink.

    """
    low, high, *_ = cv2.minMaxLoc(grey)
    if high - low < FAINT_CONTRAST:
        raise Blank(high - low)
    readings: list[Reading] = []
    blank = None
    inks: list[tuple[np.ndarray, float, float, float, float]] = []
    for ink in find_inks(grey):
        found = _find_threshold(ink)
        if not inks and (lifted := lift_shadows(ink, found[0])) is not None:  # the second is a guess already
            inks.append((lifted, *_find_threshold(lifted)))
        inks.append((ink, *found))
    for one in inks:
        try:
            readings += _read_ink(*one)
        except Blank as found_none:
            blank = found_none
    if blank and not readings:
        raise blank
    return readings


def _read_ink(ink: np.ndarray, threshold: float, level: float, contrast: float, share: float) -> list[Reading]:
    """Read ink of which this is what `_find_threshold` gives."""
    if contrast < (FAINT_CONTRAST if share < FAINT_SHARE else BLANK_CONTRAST):
        raise Blank(contrast)
    mask = cv2.threshold(ink, threshold, 255, cv2.THRESH_BINARY)[1]
    ruled = erase_rules(mask)
    components = find_components(ruled)
    if components is None:
        return [Reading(centre(fit(ink)), "not_a_digit")]
    chosen, doubt = choose_digit(components)
    readings = [Reading(draw(ink, level, components, chosen), doubt)] if chosen else []
    frame = find_frame(components, chosen)
    pale = _read_pale(ink, threshold, cv2.subtract(mask, ruled), frame)
    if frame and (framed := _read_framed(ink, level, components, chosen, frame, readings, pale)):
        return framed
    if doubt is None and (crop := _read_crop(ink, level, threshold, components, chosen)):
        reading, likelier = crop
        if likelier:
            return [reading, *readings, *pale]
        if readings:
            readings.append(reading)
    if not (readings or pale):
        raise Blank(contrast)
    if not readings:
        return pale
    readings = _bridge_gaps(readings, ink, level, components, chosen)
    if digit := _leave_out_slivers(chosen, components.labels):
        readings.append(Reading(draw(ink, level, components, digit), doubt))
    return [*readings, *pale]


def _read_framed(
    ink: np.ndarray,
    level: float,
    page: Components,
    chosen: list[Component],
    frame: Frame,
    readings: list[Reading],
    pale: list[Reading],
) -> list[Reading]:
    """Read what a frame holds, besides the `readings` of all; none where it holds nothing."""
    found = find_framed(page, chosen, frame)
    within = [Reading(draw(ink, level, *found[:2]), found[2])] if found else []
    if frame.is_whole:
        held = pale or within
        return [*held, *readings] if held else []
    return [*readings, *within, *pale] if within else []


def _read_pale(ink: np.ndarray, threshold: float, rules: np.ndarray, frame: Frame | None) -> list[Reading]:
    """Read what a form's lines hold by a threshold of its own, where that is much lower: a pencil is paler than print.

    Args:
        ink, threshold: as found.
        rules: (height, width) uint8, 255 where rules were erased.
        frame: of a form, if there is one.

    """
    lines = cv2.bitwise_or(rules, frame.mask * np.uint8(255)) if frame else rules
    if not cv2.countNonZero(lines):
        return []
    if frame and frame.is_whole:
        left, top, width, height = cv2.boundingRect(lines)
        beyond = round(BEYOND_SHARE * max(width, height))
        part = slice(max(0, top - beyond), top + height + beyond), slice(max(0, left - beyond), left + width + beyond)
        ink, lines = ink[part], lines[part]
    wider = [lines] + [cv2.dilate(lines, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) for reach in range(1, SOFT + 1)]
    own, level, contrast, _ = _find_threshold(cv2.subtract(ink, wider[-1]))
    if own > PALE_SHARE * threshold or contrast < FAINT_CONTRAST:
        return []
    for blurred in wider[1:]:  # a line is no wider than it is dark: what is taken off it hides strokes beside it
        if np.median(ink[blurred > lines]) < BLUR_SHARE * own:
            break
        lines = blurred
    held = cv2.inpaint(ink, lines, SOFT, cv2.INPAINT_TELEA)  # a stroke that crosses a line goes on
    components = find_components(cv2.threshold(held, own, 255, cv2.THRESH_BINARY)[1])
    if components is None:
        return []
    chosen, doubt = choose_digit(components)
    if not chosen or (frame and not frame.is_whole and not frame.holds(chosen)):
        return []
    return [Reading(draw(held, level, components, chosen), doubt)]


def _leave_out_slivers(chosen: list[Component], labels: np.ndarray) -> list[Component]:
    """The chosen ones without what may be parts of a neighbour that were cut out with the digit; none where all may stay."""
    slivers = {one for one in chosen if one.borders(labels.shape) == 1 and lies_along_the_edge(one, labels)}
    digit = [one for one in chosen if one not in slivers]
    few = sum(one.area for one in slivers) < SLIVERS_SHARE * sum(one.area for one in digit)
    return digit if slivers and few else []


def _bridge_gaps(
    readings: list[Reading], ink: np.ndarray, level: float, page: Components, chosen: list[Component]
) -> list[Reading]:
    """Read broken strokes joined as well; or doubt a single reading for what they are when joined."""
    gaps = find_gaps(page)
    joined = None if gaps is None else find_components((gaps | (page.labels > 0)) * np.uint8(255))
    if gaps is None or joined is None:
        return readings
    digit, doubt = choose_digit(joined)
    if sum(one.area for one in digit) < JOINED_TIMES * sum(one.area for one in chosen):
        return readings
    if doubt is None:
        bridged = Reading(draw(np.maximum(ink, gaps * np.uint8(level)), level, joined, digit))
        return [*readings, bridged] if readings[0].doubt is None else [bridged, *readings]
    return [readings[0]._replace(doubt=readings[0].doubt or doubt)] if len(readings) == 1 else readings


def _find_threshold(ink: np.ndarray) -> tuple[float, float, float, float]:
    """Otsu's threshold (1979, IEEE Trans. SMC 9:62-66); of the ink above it mean level, by how much that is more, share."""
    threshold, strong = cv2.threshold(ink, 0, 255, cv2.THRESH_TOZERO | cv2.THRESH_OTSU)
    all_ink, strong_ink, pixels = cv2.sumElems(ink)[0], cv2.sumElems(strong)[0], cv2.countNonZero(strong)
    level, paper = strong_ink / max(pixels, 1), (all_ink - strong_ink) / max(ink.size - pixels, 1)
    return max(threshold, LEAST_INK_SHARE * level), level, level - paper, pixels / ink.size


def _read_crop(
    ink: np.ndarray, level: float, threshold: float, page: Components, chosen: list[Component]
) -> tuple[Reading, bool] | None:
    """Read a picture in which all ink is the digit.

    Args:
        ink, level, threshold: as found.
        page, chosen: the components of the page's ink, and which of them are the digit there.

    Returns:
        The reading, and whether it is likelier than that of the page; None where it is out of the question, or gives no
        more than what was chosen from the page.

    """
    weak, most = WEAK_SHARE * threshold, MOST_TOUCHES if chosen else MOST_TOUCHES_ALONE
    borders = _borders(ink, max(SOFT, round(MARGIN_SHARE * max(ink.shape))))
    if any(darkest.max() <= weak for darkest in borders):
        return None
    touched = _borders(ink, SOFT)
    has_margin = any(darkest.max() <= weak for darkest in touched)
    if not has_margin:
        borders = touched
    covers = sorted(float(np.mean(darkest > weak)) for darkest in borders)
    if has_margin and covers[-2 if chosen else -1] > EDGE_COVER:
        return None
    if sum(_count_touches(darkest > CLEAR_SHARE * threshold) for darkest in borders) > most:
        return None
    mask = cv2.threshold(ink, weak, 255, cv2.THRESH_BINARY)[1]
    near = cv2.dilate(page.mask(chosen), np.ones((2 * SOFT + 1, 2 * SOFT + 1), np.uint8))
    if cv2.countNonZero(cv2.copyTo(mask, 1 - near)) < CROP_SHARE * cv2.countNonZero(mask):
        return None
    components = find_components(mask)
    if components is None:
        return None
    areas = components.table[:, 4]
    kept = components.pick(areas >= SPECK_SHARE * areas[1:].max())
    likelier = sum(covers) > 4 * TANGENT_SHARE and covers[-2] < EDGE_COVER and not (has_margin and chosen)
    return Reading(draw(ink, level, components, kept), tell_several(kept)), likelier


def _borders(ink: np.ndarray, deep: int) -> list[np.ndarray]:
    """The most ink in so many pixels along each place of the four borders: (width,), (width,), (height,), (height,)."""
    level = [cv2.reduce(part, 0, cv2.REDUCE_MAX)[0] for part in (ink[:deep], ink[-deep:])]
    return level + [cv2.reduce(part, 1, cv2.REDUCE_MAX)[:, 0] for part in (ink[:, :deep], ink[:, -deep:])]


def _count_touches(strong: np.ndarray) -> int:
    """How many stretches of a border have ink; strong is (n,) bool."""
    return int(np.count_nonzero(strong[1:] > strong[:-1])) + int(strong[0])
