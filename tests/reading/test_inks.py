"""inks.py: how much ink there is, whatever light falls on it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from daemon.reading.inks import find_inks
from daemon.reading.normalise import normalise
from tests.reading.test_page import FIVE, SEVEN, ZERO, correlate, draw


def light_from(turn: int, sheet: np.ndarray) -> np.ndarray:
    """A sheet in light from one side, or a corner: twice as much there as opposite."""
    y, x = (np.linspace(-0.5, 0.5, side) for side in sheet.shape)
    towards = np.add.outer(y * np.sin(turn * np.pi / 4), x * np.cos(turn * np.pi / 4))
    return (sheet * (0.75 + 0.5 * towards / max(1, np.ptp(towards)))).astype(np.uint8)


@pytest.mark.parametrize(("turn", "light_on_dark"), [(turn, False) for turn in range(8)] + [(0, True), (4, True)])
def test_paper_that_gets_darker_towards_its_border_is_no_ink(turn: int, light_on_dark: bool) -> None:
    """From wherever the light comes, and whether ink is dark or light, there is none along the border."""
    sheet = np.asarray(draw(ZERO, (200, 240), 70, 10)) // 2
    ink = find_inks(light_from(turn, 255 - sheet if light_on_dark else sheet))[-1]
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assert 0.1 * ink.max() > border.max()


@pytest.mark.parametrize("pen", [6, 10])
@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_digit_cut_to_its_ink_is_read_alike_in_light_from_one_side(strokes: list[tuple[float, float]], pen: int) -> None:
    """Its strokes reach the border, and the paper between them there is none of it, from wherever the light comes."""
    cut = (np.asarray(draw(strokes, (140, 200), 0, pen)) * 0.3 + 125).astype(np.uint8)
    plain = normalise(cut)[0].pixels
    assert 8 * [True] == [correlate(plain, normalise(light_from(turn, cut))[0].pixels) > 0.95 for turn in range(8)]


@pytest.mark.parametrize("strokes", [FIVE, ZERO], ids=["5", "0"])
def test_a_small_digit_under_a_shadow_is_read_first_without_it(strokes: list[tuple[float, float]]) -> None:
    """What is too small for a page is likelier a digit under a shadow than whatever shape the shadow gives it."""
    small = draw(strokes, (96, 136), 6, 12).resize((24, 34), Image.Resampling.BOX)
    cut = (np.asarray(small) * 0.3 + 125).astype(np.uint8)
    cut_in_half = cut * np.where(np.arange(24) < 12, 1, 0.65)
    assert correlate(normalise(cut)[0].pixels, normalise(cut_in_half.astype(np.uint8))[0].pixels) > 0.8
