"""colour.py: ink that is nearly as light as its paper is found in the colour that shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from daemon.reading.colour import strongest
from daemon.reading.decode import load_content

PAPER, YELLOW, BLACK = (246, 243, 234), (240, 220, 90), (20, 20, 20)


def seven(ink: tuple[int, int, int], paper: tuple[int, int, int] = PAPER) -> np.ndarray:
    """A 7 of 150 x 120 pixels in this ink."""
    rgb = np.full((150, 120, 3), paper, np.uint8)
    rgb[30:40, 30:90] = ink
    for row in range(40, 120):
        column = 85 - (row - 40) // 2
        rgb[row, column - 5 : column + 5] = ink
    return rgb


def encode(rgb: np.ndarray, kind: str) -> bytes:
    """The file that this picture makes in a format."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, kind, quality=90)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_yellow_ink_is_read_as_black_ink_is(kind: str) -> None:
    """What is written in yellow comes into the same form as what is written in black."""
    yellow, black = (load_content(encode(seven(ink), kind), 10**6) for ink in (YELLOW, BLACK))
    one, other = (image.readings[0].pixels.astype(float).ravel() for image in (yellow, black))
    assert np.corrcoef(one, other)[0, 1] > 0.97


def test_black_ink_is_seen_in_its_light() -> None:
    """Where ink stands out in the light, no colour takes its place."""
    rgb = seven(BLACK)
    assert np.array_equal(np.asarray(Image.fromarray(rgb).convert("L")), strongest(rgb))


def test_blue_ink_on_yellow_paper_is_dark_on_light() -> None:
    """The colour that is taken is one in which the ink is told from this paper, and not just the darkest."""
    image = load_content(encode(seven((40, 60, 200), (250, 230, 90)), "PNG"), 10**6)
    black = load_content(encode(seven(BLACK), "PNG"), 10**6)
    one, other = (found.readings[0].pixels.astype(float).ravel() for found in (image, black))
    assert np.corrcoef(one, other)[0, 1] > 0.97
