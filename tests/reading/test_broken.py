"""broken.py: gaps in strokes."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.reading.normalise import normalise
from tests.reading.test_page import FIVE, SEVEN, ZERO, correlate, draw


def interrupt(picture: np.ndarray, every: int, gap: int) -> np.ndarray:
    """The picture without some of its slanting stripes."""
    rows, columns = np.indices(picture.shape)
    return np.where((rows + columns // 3) % every < gap, 250, picture).astype(np.uint8)


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_broken_stroke_is_read_whole_and_undoubted(strokes: list[tuple[float, float]]) -> None:
    """What a dry pen wrote in many pieces is first read as one digit, like that of a good pen."""
    whole = np.asarray(draw(strokes, (160, 200), 40, 9))
    broken = normalise(interrupt(whole, 24, 7))[0]
    assert broken.doubt is None
    assert correlate(normalise(whole)[0].pixels, broken.pixels) > 0.9


def test_an_unbroken_stroke_is_not_read_again() -> None:
    """A digit of one piece, or of few, has no reading with bridged gaps; nor are specks its pieces."""
    page = np.asarray(draw(FIVE, (160, 200), 40, 9)).copy()
    page[10:190:30, 10:190:30] = 20
    assert len(normalise(page)) == 1


def test_a_broken_digit_beside_a_whole_one_is_a_second_one() -> None:
    """Where bridging the gaps makes two digits, the one that was whole is not accepted as the only one."""
    whole, broken = (np.asarray(draw(strokes, (120, 200), 30, 9)) for strokes in (FIVE, SEVEN))
    two = np.hstack([whole, interrupt(broken, 36, 7)])
    assert {"several_digits"} == {reading.doubt for reading in normalise(two)}
