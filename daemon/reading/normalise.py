"""From grey pictures to readings in MNIST's form, cheapest way first. No state.

1. What is in MNIST's form already is left alone.
2. A picture under SMALL pixels, or one that was enlarged from such, holds a digit and nothing else: it is only scaled; but
   where a shadow seems to lie on it, it is read without that before.
3. All else is read as a page, and where that leaves ink out, also as a digit that was cut out of one; and as a bold digit,
   where much of the picture is ink. So is what may, under a shadow, only seem to have been enlarged.

What is bold is read a second time with thinner strokes: most of what a model has learnt from was written with a pen.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from daemon.reading.bold import read_bold
from daemon.reading.inks import find_inks
from daemon.reading.mnist import BOLD, SIDE, Blank, Reading, find_doubts, take_canonical, thin
from daemon.reading.page import read_page
from daemon.reading.small import has_even_paper, read_small, undo_enlargement, undo_smooth_enlargement

SMALL = 40  # pixels; a picture whose longer side is below this takes the second way
BLURRED = 160  # pixels; up to this side a picture is looked at for being an enlarged small one


def normalise_all(greys: list[np.ndarray]) -> list[tuple[Reading, ...] | Blank]:
    """Bring grey pictures into MNIST's form; those that are in it already cost a tenth together of what they cost alone.

    Args:
        greys: (height, width) uint8 each, 0 black to 255 white; ink may be dark on light or light on dark.

    Returns:
        For each in its place its readings, the most usual one first, or that it is Blank. A picture in MNIST's form has
        one reading, its own pixels.

    """
    done: dict[int, tuple[Reading, ...] | Blank] = {}
    square = [number for number, grey in enumerate(greys) if grey.shape == (SIDE, SIDE)]
    if square:
        ink, fits = take_canonical(np.stack([greys[number] for number in square]))
        doubts, _ = find_doubts(ink)
        done = {number: (Reading(ink[i], doubts[i], as_sent=True),) for i, number in enumerate(square) if fits[i]}
    others: list[tuple[int, list[Reading]]] = []
    for number, grey in enumerate(greys):
        if number not in done:
            try:
                others.append((number, _read_other(grey)))
            except Blank as blank:
                done[number] = blank
    if others:
        doubts, widths = find_doubts(np.stack([reading.pixels for _, readings in others for reading in readings]))
        start = 0
        for number, readings in others:
            own = slice(start, start + len(readings))
            found = [Reading(one.pixels, one.doubt or odd) for one, odd in zip(readings, doubts[own], strict=True)]
            if widths[start] > BOLD:
                thinned = thin(found[0].pixels)
                found.append(Reading(thinned, readings[0].doubt or find_doubts(thinned[None])[0][0]))
            done[number] = tuple(found)
            start = own.stop
    return [done[number] for number in range(len(greys))]


def normalise(grey: np.ndarray) -> tuple[Reading, ...]:
    """Bring one picture into MNIST's form, as `normalise_all` does.

    Raises:
        Blank: there is no ink.

    """
    (readings,) = normalise_all([grey])
    if isinstance(readings, Blank):
        raise readings
    return readings


def _read_other(grey: np.ndarray) -> list[Reading]:
    grey = undo_enlargement(grey)
    small = undo_smooth_enlargement(grey) if SMALL <= max(grey.shape) <= BLURRED else grey
    as_it_is = [Reading(read_small(small))] if max(small.shape) < SMALL else []
    if as_it_is and has_even_paper(grey):
        return as_it_is
    if as_it_is and small is grey:
        return _read_under_a_shadow(grey) + as_it_is
    bold = read_bold(grey)
    readings = [bold] if bold else []
    try:
        return readings + read_page(grey) + as_it_is
    except Blank:
        if not (readings or as_it_is):
            raise
        return readings + as_it_is


def _read_under_a_shadow(grey: np.ndarray) -> list[Reading]:
    """Read a picture that a digit about fills once more, as if its paper had one grey all over."""
    readings = []
    for ink in find_inks(grey):
        with suppress(Blank):
            readings.append(Reading(read_small(255 - ink)))
    return readings
