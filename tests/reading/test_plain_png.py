"""Small grey PNGs: decoded as Pillow decodes them, or left to Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from daemon.reading import plain_png
from tests.conftest import Digits, encode
from tests.faults.harness import chunk
from tests.hostile.files import png_of


@pytest.mark.parametrize("compress_level", [0, 1, 6, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (28, 28), (63, 64)])
def test_reads_what_was_saved(shape: tuple[int, int], compress_level: int) -> None:
    """Smooth and noisy pictures, for which encoders choose other filters, come out as they went in."""
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))
    for values in (smooth, random.integers(0, 256, shape), smooth + random.integers(0, 3, shape)):
        pixels = values.astype(np.uint8)
        data = encode(pixels, compress_level=compress_level)
        if len(data) <= plain_png.MOST_BYTES:
            assert np.array_equal(pixels, plain_png.read(data))


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind: int, digits: Digits) -> None:
    """None, Sub, Up, Average and Paeth."""
    rows = np.concatenate([np.full((28, 1), kind, np.uint8), digits.images[0]], axis=1)  # filtered bytes: some picture
    data = png_of(28, 28, rows.tobytes())
    assert np.array_equal(plain_png.read(data), np.asarray(Image.open(io.BytesIO(data))))


def test_several_chunks_of_pixels(digits: Digits) -> None:
    """Where an encoder cut its stream does not matter."""
    rows = np.concatenate([np.zeros((28, 1), np.uint8), digits.images[0]], axis=1)
    whole = png_of(28, 28, rows.tobytes())
    stream = whole[41:-16]
    parts = [chunk(b"IDAT", stream[start : start + 50]) for start in range(0, len(stream), 50)]
    assert np.array_equal(digits.images[0], plain_png.read(whole[:33] + b"".join(parts) + chunk(b"IEND", b"")))


def test_a_wrong_stream_is_left_to_pillow() -> None:
    """Right check sums over an unknown filter, or over no stream, a damaged one, or one with something behind it."""
    assert plain_png.read(png_of(28, 28, bytes([7] * 29 * 28))) is None
    assert plain_png.read(png_of(28, 28, b"")[:33] + chunk(b"IEND", b"")) is None
    whole = png_of(28, 28, bytes(29 * 28))
    header, stream = whole[:33], whole[41:-16]
    assert plain_png.read(header + chunk(b"IDAT", stream) + chunk(b"IEND", b"")) is not None
    for wrong in (stream[:-1], stream[:-1] + b"!", stream + b"!"):
        assert plain_png.read(header + chunk(b"IDAT", wrong) + chunk(b"IEND", b"")) is None


@pytest.mark.parametrize("rows", [27, 29])
def test_rows_that_are_missing_or_too_many(rows: int) -> None:
    """They are left to Pillow, which takes missing ones for black."""
    assert plain_png.read(png_of(28, 28, b"".join(b"\0" + bytes([200] * 28) for _ in range(rows)))) is None


def test_damage_is_left_to_pillow(digits: Digits) -> None:
    """Any byte changed, anywhere, and any part missing at the end."""
    whole = digits.png(0)
    assert plain_png.read(whole) is not None
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        assert plain_png.read(bytes(damaged)) is None
        assert plain_png.read(whole[:place]) is None
