"""rules.py: ruled and squared paper."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw, ImageFilter

from daemon.reading.normalise import normalise
from daemon.reading.rules import erase_rules
from tests.reading.test_page import FIVE, SEVEN, ZERO, correlate, draw


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_rules_that_a_photograph_blurs_are_no_ink(strokes: list[tuple[float, float]]) -> None:
    """Squares whose lines are nearly half as wide as the pen's strokes, a little askew, through the digit and around it."""
    alone = draw(strokes, (200, 240), 60, 12)
    ruled = alone.copy()
    pen = ImageDraw.Draw(ruled)
    for place in (25, 125, 225):
        pen.line([(-5, place - 2), (205, place + 2)], fill=110, width=5)
        pen.line([(place - 30, -5), (place - 26, 245)], fill=110, width=5)
    plain, blurred = (np.asarray(page.filter(ImageFilter.GaussianBlur(1.0))) for page in (alone, ruled))
    expected = normalise(plain)[0].pixels
    assert max(correlate(expected, reading.pixels) for reading in normalise(blurred)) > 0.95


def test_a_bar_counts_for_its_length_and_not_for_its_thickness() -> None:
    """Four bars of two fifths of the picture's width are a digit's, though in three rows they have as much ink as a rule."""
    mask = np.zeros((240, 200), np.uint8)
    for row in (40, 90, 140, 190):
        mask[row : row + 3, 60:140] = 255
    mask[235:238, 20:180] = 255
    assert np.array_equal(mask, erase_rules(mask))
