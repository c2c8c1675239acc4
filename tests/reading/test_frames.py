"""frames.py: the frame of a form around a digit, and the line below one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from daemon.reading.mnist import Blank
from daemon.reading.normalise import normalise, normalise_all
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


def _pencil(picture: Image.Image) -> Image.Image:
    """The same, a third as dark."""
    return picture.point(lambda level: 250 - (250 - level) // 3)


def _rule_beside(page: ImageDraw.ImageDraw) -> None:
    page.line([(24, 0), (24, 180)], fill=0, width=3)


def _three_sides(page: ImageDraw.ImageDraw) -> None:
    page.line([(BOX[2], BOX[1]), BOX[:2], (BOX[0], BOX[3]), BOX[2:]], fill=0, width=5)


def _thick_frame(page: ImageDraw.ImageDraw) -> None:
    page.rectangle(BOX, outline=0, width=6)


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
@pytest.mark.parametrize("form", [_rule_beside, _three_sides, _thick_frame], ids=lambda form: form.__name__.strip("_"))
def test_what_is_too_pale_to_be_seen_beside_print_is_read(
    strokes: list[tuple[float, float]], form: Callable[[ImageDraw.ImageDraw], None]
) -> None:
    """Where all that is dark enough is a form's lines, what they hold is still a digit."""
    alone = _pencil(draw(strokes, (140, 180), 40, 5))
    printed = alone.copy()
    form(ImageDraw.Draw(printed))
    expected, readings = normalise(np.asarray(alone))[0].pixels, normalise(np.asarray(printed))
    assert max(correlate(expected, reading.pixels) for reading in readings) > 0.9


@pytest.mark.parametrize("blur", [0, 2])
@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_pale_stroke_that_crosses_a_frame_goes_on_beyond_it(strokes: list[tuple[float, float]], blur: int) -> None:
    """A pencil's digit that begins above its frame is read whole, and no more of the frame, sharp or blurred."""
    alone = _pencil(draw(strokes, (280, 360), 80, 9))
    crossed = alone.copy()
    ImageDraw.Draw(crossed).rectangle((50, 98, 230, 310), outline=0, width=5)
    expected, reading = (
        normalise(np.asarray(page.filter(ImageFilter.GaussianBlur(blur))))[0].pixels for page in (alone, crossed)
    )
    assert correlate(expected, reading) > 0.95


@pytest.mark.parametrize(("form", "count"), [(_rule_beside, 0), (_thick_frame, 1)], ids=["rule", "frame"])
def test_a_form_that_nobody_filled_in_holds_nothing(form: Callable[[ImageDraw.ImageDraw], None], count: int) -> None:
    """Neither the blurred edges of print nor the grain of its paper are pale ink; a frame alone is read as it is."""
    page = Image.new("L", (140, 180), 250)
    form(ImageDraw.Draw(page))
    grain = np.random.default_rng(1).normal(0, 2, (180, 140))
    blurred = np.asarray(page.filter(ImageFilter.GaussianBlur(0.7)))
    (readings,) = normalise_all([np.clip(blurred + grain, 0, 255).astype(np.uint8)])
    assert count == (0 if isinstance(readings, Blank) else len(readings))


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
