"""synthetic.py and strokes.py: drawn digits, and drawn things that are none."""

import numpy as np
import pytest

from daemon.reading.mnist import SIDE
from daemon.training.dataset import NO_DIGIT
from daemon.training.strokes import DIGITS, LETTERS, draw
from daemon.training.synthetic import draw_digits, draw_no_digits


def test_each_digit_is_drawn_as_often() -> None:
    """A hundred are nearly ten of each, in MNIST's form; the same seed draws the same."""
    drawn, again = draw_digits(100, 1), draw_digits(100, 1)
    assert (SIDE, SIDE) == drawn.x.shape[1:]
    assert min(np.bincount(drawn.y, minlength=10)) >= 8
    assert np.array_equal(drawn.x, again.x)


def test_what_is_no_digit_says_so() -> None:
    """Everything drawn besides digits has one label."""
    drawn = draw_no_digits(50, 1)
    assert 45 <= len(drawn) <= 50
    assert {NO_DIGIT} == set(drawn.y.tolist())


def test_nothing_is_drawn_of_nothing() -> None:
    """Both can be switched off."""
    assert 0 == len(draw_digits(0, 1)) == len(draw_no_digits(0, 1))


@pytest.mark.parametrize("strokes", [way for ways in DIGITS for *_, way in ways] + list(LETTERS))
def test_every_way_can_be_written(strokes: str) -> None:
    """Ink, with paper on all sides of it."""
    picture = np.asarray(draw(strokes, 0.7, 60, np.random.default_rng(1)))
    assert picture.max() == 255
    assert not np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).any()
