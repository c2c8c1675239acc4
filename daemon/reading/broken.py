"""Gaps in strokes, as a dry pen, a pencil on rough paper, or dots leave them. No state.

A gap lies between two pieces; what else is narrow, such as the inside of a loop, stays open. The numbers below were fitted
on scans by ten people, nine learnt from and one watched, as pens that fail would have written them, and on two scans by the
nine beside or above each other.
"""

from __future__ import annotations

import cv2
import numpy as np

from daemon.reading.components import Components, lies_along_the_edge
from daemon.reading.drawing import stroke_width

FEWEST, MOST = 4, 100  # pieces; fewer are a digit's strokes, or two digits', more are a texture
LEAST_AREA, LEAST_SHARE = 4, 0.004  # pixels, and of the largest piece's; what has less is a speck
MAIN_SHARE = 0.95  # of the ink; where the two largest pieces have more, they are what is to be read
WIDEST = 3.0  # times a stroke's width; a gap is narrower
BOLD_SHARE = 0.12  # of the size of all; between wider strokes there is no telling gaps from loops


def find_gaps(page: Components) -> np.ndarray | None:
    """Find the gaps between the pieces of a picture's ink: (height, width) uint8, 1 there; None where nothing is broken."""
    areas = page.table[:, 4]
    rows = areas >= max(LEAST_AREA, LEAST_SHARE * int(areas[1:].max(initial=0)))
    if not FEWEST <= np.count_nonzero(rows[1:]) <= MOST:
        return None
    shape = page.labels.shape
    pieces = [one for one in page.pick(rows) if not one.borders(shape) or not lies_along_the_edge(one, page.labels)]
    inked = sorted(one.area for one in pieces)
    if len(pieces) < FEWEST or sum(inked[-2:]) > MAIN_SHARE * sum(inked):
        return None
    top, bottom = min(one.top for one in pieces), max(one.bottom for one in pieces)
    left, right = min(one.left for one in pieces), max(one.right for one in pieces)
    labels = page.labels[top:bottom, left:right]
    mask = Components(labels, page.table).mask(pieces)
    width = stroke_width(mask)
    if width > BOLD_SHARE * max(mask.shape):
        return None
    reach = round(WIDEST * width / 2)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    around = cv2.copyMakeBorder(mask, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    closed = cv2.morphologyEx(around, cv2.MORPH_CLOSE, disc)[reach:-reach, reach:-reach]
    count, narrow = cv2.connectedComponents(cv2.subtract(closed, mask), connectivity=4, ltype=cv2.CV_32S)
    own = labels * mask
    meetings = []
    for here, beside in (
        (narrow[1:], own[:-1]),
        (narrow[:-1], own[1:]),
        (narrow[:, 1:], own[:, :-1]),
        (narrow[:, :-1], own[:, 1:]),
    ):
        met = (here > 0) & (beside > 0)
        meetings.append(here[met].astype(np.int64) * len(areas) + beside[met])
    pieces_met = np.bincount(np.unique(np.concatenate(meetings)) // len(areas), minlength=count)
    gaps = np.zeros(shape, np.uint8)
    gaps[top:bottom, left:right] = (pieces_met > 1)[narrow]
    return gaps if gaps.any() else None
