"""bold.py: strokes as wide as the gaps between them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from daemon.reading.bold import read_bold
from daemon.reading.mnist import find_doubts
from daemon.reading.normalise import normalise
from tests.reading.test_page import FIVE, SEVEN, ZERO, draw, overlap


@pytest.mark.parametrize("light_on_dark", [False, True])
@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
@pytest.mark.parametrize("side", [50, 120, 240])
def test_a_marker_cut_to_its_ink_is_read_whole(strokes: list[tuple[float, float]], side: int, light_on_dark: bool) -> None:
    """Where there is as much ink as paper, neither is taken for the other."""
    picture = np.asarray(draw(strokes, (side * 3 // 4, side), side // 12, side // 6))
    alone = np.pad(picture, side, constant_values=250)
    cut = 255 - picture if light_on_dark else picture
    assert overlap(normalise(alone)[0].pixels, normalise(cut)[0].pixels) > 0.7


def test_a_page_is_no_bold_digit() -> None:
    """Little ink, a shadow, or as much ink along the border as paper: nothing is added to the page's reading."""
    page = draw(SEVEN, (200, 200), 60, 10)
    shadow = np.linspace(0, 255, 200 * 200).reshape(200, 200).astype(np.uint8)
    half = Image.new("L", (200, 200), 250)
    ImageDraw.Draw(half).rectangle((0, 0, 100, 200), fill=20)
    assert [read_bold(np.asarray(picture)) for picture in (page, shadow, half)] == [None, None, None]


def test_what_is_bold_is_read_a_second_time_as_a_pen_would_have_written_it() -> None:
    """A marker's 5 has a last reading with strokes two pixels thinner; a pen's has none."""
    marker, pen = (normalise(np.asarray(draw(FIVE, (150, 200), 40, width))) for width in (36, 10))
    assert (3, 1) == (len(marker), len(pen))
    _, widths = find_doubts(np.stack([reading.pixels for reading in marker]))
    assert 1 < widths[0] - widths[-1] < 3


def test_what_is_too_bold_for_a_digit_may_be_one_once_it_is_thinner() -> None:
    """The thinner reading is doubted for its own strokes, and for what speaks against the picture."""
    marker = normalise(np.asarray(draw(FIVE, (200, 200), 44, 48)))
    assert ("not_a_digit", None) == (marker[0].doubt, marker[-1].doubt)
    blot = normalise(np.asarray(draw(FIVE, (140, 140), 44, 64)))
    assert ("not_a_digit", "not_a_digit") == (blot[0].doubt, blot[-1].doubt)
