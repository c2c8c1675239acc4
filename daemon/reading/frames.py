"""The frame of a form around a digit, or the line below it: straight, and as thick all along. No state.

Rules that run from border to border are erased from every page (`rules`). These end within the picture, at each other or
before its border, and a digit may touch or cross them; but they join the outermost corners of all ink.

The numbers below were fitted on scans of nine writers, in frames and on lines as forms have them, and without.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from daemon.reading.components import LEAST_SIZE, Component, Components, Doubt, choose_digit, find_components

STEEPEST = 0.35  # pixels down for each along
LEAST_LENGTH, LEAST_LENGTH_SHARE = 32, 0.75  # pixels, and of the width of all ink
THICKEST, THICKEST_SHARE = 3, 0.14  # pixels, and of its length; what is thicker than both is no line
BEND, BEND_SHARE = 1, 0.03  # pixels, and of its length, that a line may be off a straight one, together
GLANCES = 0.5, 0.25, 0.75, 0.375, 0.625  # of its length: where along a line to look first
MOST_MISSES = 1  # of those places may be without ink
COVERED_SHARE = 0.9  # of its length, at least, is ink or within two thicknesses of it: a line may be dotted
CLEAR_SHARE = 0.85  # of its length, at least, has paper outside
PLAIN_SHARE = 0.5  # of its inked length, at least, is of one thickness
LEAST_DIGIT_SHARE = 0.3, 0.1  # of the height of all; what is left and is lower is no digit; the second for a whole frame
OVERHANG_SHARE = 0.06  # of its length; one line, or the two of a corner, go on by so much beyond the digit
LEAST_LINE_SHARE = 0.8  # of the digit's height; a shorter line below it is its foot


class Line(NamedTuple):
    """A nearly level line.

    Attributes:
        columns, rows: (length,) intp, all columns that it spans, and in each the outermost row of its ink.
        thickness: in pixels.
        inward: 1 where the frame's inside is below it, -1 where it is above.

    """

    columns: np.ndarray
    rows: np.ndarray
    thickness: int
    inward: int


class Frame(NamedTuple):
    """Lines around a digit or below it.

    Attributes:
        lines: and whether each is upright.
        mask: (height, width) uint8, 1 where they are, but for where a stroke crosses them.
        left, top, height: of all ink, in pixels.

    """

    lines: list[tuple[Line, bool]]
    mask: np.ndarray
    left: int
    top: int
    height: int

    @property
    def is_whole(self) -> bool:
        """Whether three sides are seen, which no digit has."""
        return len(self.lines) > 2

    def holds(self, digit: list[Component]) -> bool:
        """Whether these components may be a digit in it; else the lines may be strokes of one."""
        least = LEAST_DIGIT_SHARE[len(self.lines) == 4] * self.height
        if not digit or max(one.bottom for one in digit) - min(one.top for one in digit) < least:
            return False
        if self.is_whole:
            return True
        if not all(_goes_beyond(line, digit, upright, (self.left, self.top)) for line, upright in self.lines):
            return False
        return len(self.lines) == 2 or len(self.lines[0][0].columns) >= LEAST_LINE_SHARE * max(one.height for one in digit)


def find_frame(page: Components, chosen: list[Component]) -> Frame | None:
    """Find a frame, part of one, or a line below everything; None where there is none.

    Args:
        page, chosen: the components of a picture's ink, and those that may be a digit in a frame; none for all.

    """
    chosen = chosen or page.pick(page.table[:, 2:4].max(axis=1) >= LEAST_SIZE)
    if not chosen:
        return None
    top, bottom = min(one.top for one in chosen), max(one.bottom for one in chosen)
    left, right = min(one.left for one in chosen), max(one.right for one in chosen)
    within = Components(page.labels[top:bottom, left:right], page.table).mask(chosen)
    lines = _find_lines(within)
    if not lines:
        return None
    erased = within.copy()
    for line, upright in lines:
        _erase(erased.T if upright else erased, line)
    mask = np.zeros(page.labels.shape, np.uint8)
    mask[top:bottom, left:right] = within - erased
    return Frame(lines, mask, left, top, bottom - top)


def find_framed(
    page: Components, chosen: list[Component], frame: Frame
) -> tuple[Components, list[Component], Doubt | None] | None:
    """Find the digit within a frame, or above a line.

    Args:
        page, chosen: as `find_frame` had them.
        frame: what it found.

    Returns:
        The components without the frame's lines, which of them are the digit, and what speaks against there being one; None
        where there is no digit.

    """
    chosen = chosen or page.pick(page.table[:, 2:4].max(axis=1) >= LEAST_SIZE)
    components = find_components((page.mask(chosen) - frame.mask) * np.uint8(255))
    if components is None:
        return None
    digit, doubt = choose_digit(components)
    return (components, digit, doubt) if frame.holds(digit) else None


def _find_lines(mask: np.ndarray) -> list[tuple[Line, bool]]:
    """The lines, and whether each is upright; none where they are neither a frame's corner nor one below everything."""
    inked = np.flatnonzero(mask.any(axis=1))
    ink = mask[inked].view(bool)
    first, last = ink.argmax(axis=1), mask.shape[1] - 1 - ink[:, ::-1].argmax(axis=1)
    # (row, column) of the ink that is furthest to the upper left, upper right, lower left, lower right
    corners = [
        (int(inked[place]), int(columns[place]))
        for columns, place in (
            (first, (first + inked).argmin()),
            (last, (last - inked).argmax()),
            (first, (first - inked).argmin()),
            (last, (last + inked).argmax()),
        )
    ]
    top, bottom = _find_line(mask, corners[0], corners[1], 1), _find_line(mask, corners[2], corners[3], -1)
    if not (top or bottom):
        return []
    turned = [(column, row) for row, column in corners]
    sides = (_find_line(mask.T, turned[0], turned[2], 1), _find_line(mask.T, turned[1], turned[3], -1))
    if any(sides):
        return [(line, False) for line in (top, bottom) if line] + [(line, True) for line in sides if line]
    if bottom and (not top or abs(int(top.rows[0] - bottom.rows[0])) <= 2 * bottom.thickness):
        return [(bottom, False)]
    return []


def _find_line(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], inward: int) -> Line | None:
    """The line from one corner to another, along the upper (inward 1) or lower (-1) edge of the ink."""
    length = end[1] - start[1] + 1
    if length < max(LEAST_LENGTH, LEAST_LENGTH_SHARE * mask.shape[1]) or abs(end[0] - start[0]) > STEEPEST * length:
        return None
    bend, most = BEND + round(BEND_SHARE * length), max(THICKEST, round(THICKEST_SHARE * length))
    misses = 0
    for share in GLANCES:
        row, column = round(start[0] + share * (end[0] - start[0])), start[1] + int(share * length)
        misses += not mask[max(0, row - bend) : row + bend + 1, max(0, column - bend) : column + bend + 1].any()
        if misses > MOST_MISSES:
            return None
    columns = np.arange(start[1], end[1] + 1)
    outside = np.rint(np.linspace(start[0], end[0], length)).astype(np.intp) - inward * (bend + 1)
    depths = np.arange(2 * (bend + 1 + most))[:, None]
    rows = outside + inward * depths
    seen = (mask[rows.clip(0, len(mask) - 1), columns] > 0) & (rows >= 0) & (rows < len(mask))
    if np.count_nonzero(seen[0]) > (1 - CLEAR_SHARE) * length:
        return None
    outermost = seen.argmax(axis=0)
    ended = np.cumsum(~seen & (depths > outermost), axis=0) > 0
    runs = np.count_nonzero(seen & ~ended, axis=0)
    near = (runs > 0) & (outermost <= 2 * bend + 1)
    thickness = int(np.median(runs[near])) if near.any() else 0
    plain = near & (outermost > 0) & (np.abs(runs - thickness) <= 1 + thickness // 4)
    covered = cv2.dilate(near.view(np.uint8)[None], np.ones((1, 4 * thickness + 1), np.uint8))
    if (
        not 0 < thickness <= most
        or np.count_nonzero(plain) < PLAIN_SHARE * np.count_nonzero(near)
        or np.count_nonzero(covered) < COVERED_SHARE * length
    ):
        return None
    edge = np.rint(np.interp(columns, columns[plain], outermost[plain])).astype(np.intp)
    return Line(columns, outside + inward * edge, thickness, inward)


def _erase(mask: np.ndarray, line: Line) -> None:
    """Erase a line, but for where a stroke crosses it; in place."""

    def inked(depth: int) -> np.ndarray:
        rows = line.rows + line.inward * depth
        found = (mask[rows.clip(0, len(mask) - 1), line.columns] > 0) & (rows >= 0) & (rows < len(mask))
        return cv2.dilate(found.view(np.uint8)[None], np.ones((1, 2 * line.thickness + 3), np.uint8))[0]

    crossed = inked(-3) & inked(line.thickness + 2)
    rows = line.rows + line.inward * np.arange(-2, line.thickness + 2)[:, None]
    chosen = (crossed == 0) & (rows >= 0) & (rows < len(mask))
    mask[rows[chosen], np.broadcast_to(line.columns, rows.shape)[chosen]] = 0


def _goes_beyond(line: Line, digit: list[Component], upright: bool, origin: tuple[int, int]) -> bool:
    """Whether both ends of a line go on beyond a digit; origin is where its mask begins, (x, y)."""
    low = min(one.top if upright else one.left for one in digit) - origin[upright]
    high = max(one.bottom if upright else one.right for one in digit) - origin[upright]
    least = OVERHANG_SHARE * len(line.columns)
    return bool(low - line.columns[0] >= least and line.columns[-1] + 1 - high >= least)
