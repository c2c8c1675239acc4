"""frames.py: the frame of a form around a digit, and the line below one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from daemon.reading.normalise import normalise
from tests.reading.test_page import FIVE, SEVEN, ZERO, correlate, draw

BOX = (20, 15, 118, 163)


def _frame(page: ImageDraw.ImageDraw) -> None:
    page.rectangle(BOX, outline=90, width=3)


def _corner(page: ImageDraw.ImageDraw) -> None:
    page.line([BOX[:2], (BOX[2], BOX[1]), BOX[2:]], fill=60, width=2)


def _line_below(page: ImageDraw.ImageDraw) -> None:
    page.line([(BOX[0], 144), (BOX[2], 145)], fill=60, width=2)


def _dots_below(page: ImageDraw.ImageDraw) -> None:
    for column in range(BOX[0], BOX[2], 8):
        page.line([(column, 145), (column + 3, 145)], fill=60, width=3)


def _frame_crossed(page: ImageDraw.ImageDraw) -> None:
    page.rectangle((*BOX[:3], 132), outline=90, width=3)


FRAMES = [_frame, _corner, _line_below, _dots_below, _frame_crossed]


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
@pytest.mark.parametrize("form", FRAMES, ids=lambda form: form.__name__.strip("_"))
def test_a_digit_in_a_frame_is_read_without_it(
    strokes: list[tuple[float, float]], form: Callable[[ImageDraw.ImageDraw], None]
) -> None:
    """The frame of a form, a corner of it, or a line below a digit, is not part of the digit, which may cross it."""
    alone = draw(strokes, (140, 180), 40, 5)
    framed = alone.copy()
    form(ImageDraw.Draw(framed))
    expected, readings = normalise(np.asarray(alone))[0].pixels, normalise(np.asarray(framed))
    assert max(correlate(expected, reading.pixels) for reading in readings) > 0.85


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_what_a_frame_holds_may_be_much_paler_than_it(strokes: list[tuple[float, float]]) -> None:
    """A pencil's digit, darker here and paler there, is read whole in a black frame."""
    alone = np.asarray(draw(strokes, (140, 180), 40, 5), np.float32)
    pressed = 0.45 + 0.2 * np.sin(np.arange(180) / 12)[:, None]
    pencil = Image.fromarray((250 - (250 - alone) * pressed).astype(np.uint8))
    ImageDraw.Draw(pencil).rectangle(BOX, outline=0, width=4)
    expected, reading = normalise(alone.astype(np.uint8))[0].pixels, normalise(np.asarray(pencil))[0]
    assert correlate(expected, reading.pixels) > 0.9


def test_a_frame_may_be_askew() -> None:
    """A form is read as it lay on the scanner."""
    alone = draw(FIVE, (140, 180), 40, 5)
    framed = alone.copy()
    _frame(ImageDraw.Draw(framed))
    askew = [np.asarray(page.rotate(7, Image.Resampling.BICUBIC, fillcolor=250)) for page in (alone, framed)]
    assert correlate(*(normalise(page)[0].pixels for page in askew)) > 0.9


@pytest.mark.parametrize(
    "strokes",
    [
        SEVEN,
        [(0, 0.2), (0.5, 0), (0.5, 1), (0.25, 1), (0.75, 1)],  # a 1 with a foot
        [(0, 0.15), (0.5, 0), (1, 0.2), (0, 1), (1, 1)],  # a 2
        [(0.7, 1), (0.7, 0), (0, 0.7), (1, 0.7)],  # a 4
    ],
    ids=["7", "1", "2", "4"],
)
def test_the_straight_strokes_of_a_digit_are_no_frame(strokes: list[tuple[float, float]]) -> None:
    """Bars and feet are drawn, in the only reading there is."""
    page = draw(strokes, (140, 180), 40, 5)
    ink = np.asarray(page.crop(page.point(lambda level: 250 - level).getbbox()))
    (reading,) = normalise(np.asarray(page))
    assert correlate(normalise(np.pad(ink, 90, constant_values=250))[0].pixels, reading.pixels) > 0.85
    assert np.count_nonzero(reading.pixels[:, 4:24].any(axis=0)) > 9
