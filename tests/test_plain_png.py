"""Small grey PNGs: decoded as Pillow decodes them, or left to Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon import plain_png

MNIST = Path(__file__).parent.parent / "datasets" / "mnist.npz"


@pytest.fixture
def digit() -> np.ndarray:
    """An image of MNIST's training split."""
    with np.load(MNIST) as file:
        image: np.ndarray = file["x_train"][55_000]
    return image


def as_png(pixels: np.ndarray, **arguments: int) -> bytes:
    """Save grey levels as Pillow does."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **arguments)
    return buffer.getvalue()


@pytest.mark.parametrize("compress_level", [0, 1, 6, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (28, 28), (63, 64)])
def test_reads_what_was_saved(shape: tuple[int, int], compress_level: int) -> None:
    """Smooth and noisy pictures, for which encoders choose other filters, come out as they went in."""
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(shape[1]))
    for values in (smooth, random.integers(0, 256, shape), smooth + random.integers(0, 3, shape)):
        pixels = values.astype(np.uint8)
        data = as_png(pixels, compress_level=compress_level)
        if len(data) <= plain_png.MOST_BYTES:
            assert np.array_equal(pixels, plain_png.read(data))


@pytest.mark.parametrize("kind", range(5))
def test_every_filter(kind: int, digit: np.ndarray) -> None:
    """None, Sub, Up, Average and Paeth."""
    rows = np.concatenate([np.full((28, 1), kind, np.uint8), digit], axis=1)  # filtered bytes: some picture
    data = _with_pixels(rows.tobytes())
    assert np.array_equal(plain_png.read(data), np.asarray(Image.open(io.BytesIO(data))))


def test_several_chunks_of_pixels(digit: np.ndarray) -> None:
    """Where an encoder cut its stream does not matter."""
    rows = np.concatenate([np.zeros((28, 1), np.uint8), digit], axis=1)
    assert np.array_equal(digit, plain_png.read(_with_pixels(rows.tobytes(), pieces=5)))


def test_a_wrong_stream_is_left_to_pillow() -> None:
    """Right check sums over an unknown filter, or over no stream at all."""
    assert plain_png.read(_with_pixels(bytes([7] * 29 * 28))) is None
    assert plain_png.read(as_png(np.zeros((28, 28), np.uint8))[:33] + _with_pixels(b"")[-12:]) is None


@pytest.mark.parametrize("rows", [27, 29])
def test_rows_that_are_missing_or_too_many(rows: int) -> None:
    """Pillow takes missing rows for black ones, and so does this."""
    data = _with_pixels(b"".join(b"\0" + bytes([200] * 28) for _ in range(rows)))
    assert np.array_equal(plain_png.read(data), np.asarray(Image.open(io.BytesIO(data))))


def test_damage_is_left_to_pillow(digit: np.ndarray) -> None:
    """Any byte changed, anywhere, and any part missing at the end."""
    whole = as_png(digit)
    assert plain_png.read(whole) is not None
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        assert plain_png.read(bytes(damaged)) is None
        assert plain_png.read(whole[:place]) is None


def _with_pixels(stream: bytes, pieces: int = 1) -> bytes:
    """A 28x28 PNG around a stream of filtered rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = zlib.compress(stream)
    size = -(-len(packed) // pieces)
    parts = [chunk(b"IDAT", packed[start : start + size]) for start in range(0, len(packed), size)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + chunk(b"IEND", b"")
