"""Mutated images through the decoder processes, under the limits that they have in the daemon."""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random

import pytest
from pebble import ProcessExpired
from PIL import Image

from daemon.config import InboxSettings
from daemon.drops import Drop
from daemon.reading.chunks import Decoded, Decoders
from daemon.reading.workers import WorkersLost
from tests.faults.harness import FULL, chances, png, resident_mb
from tests.hostile.files import animated, digit, encode, float_tiff, many_scans, picture

pytestmark = pytest.mark.timeout(3600 if FULL else 300)
IMAGES = 100_000 if FULL else 1_000
CHUNK = 256
SEED = int(os.environ.get("FAULTS_SEED", "1"))
SLUGS = {"not_an_image", "truncated", "too_many_pixels", "animated", "blank", "unsupported_format"}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where that can be."""
    shm = Path("/dev/shm")  # noqa: S108 -- a folder of our own is made in it
    folder = Path(tempfile.mkdtemp(prefix="digitd-fuzz-", dir=shm if shm.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def seeds() -> list[bytes]:
    """Good images of every format and mode, to be spoilt."""
    modes = [("PNG", mode) for mode in ("L", "1", "P", "RGB", "RGBA", "LA", "I;16")]
    modes += [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    modes += [("GIF", "L"), ("GIF", "P"), ("BMP", "L"), ("BMP", "RGB"), ("BMP", "1"), ("WEBP", "RGB"), ("WEBP", "RGBA")]
    modes += [("TIFF", mode) for mode in ("L", "1", "RGB", "RGBA", "F", "I;16", "CMYK")]
    modes += [("HEIF", "RGB"), ("HEIF", "RGBA"), ("AVIF", "RGB"), ("AVIF", "RGBA"), ("JPEG2000", "L"), ("JPEG2000", "RGB")]
    modes += [("PPM", "1"), ("PPM", "L"), ("PPM", "RGB")]
    found = [encode(picture_of(mode, side), kind) for kind, mode in modes for side in (28, 61)]
    found += [
        encode(picture(side=64), "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    ]
    found += [encode(picture(side=64), "JPEG", progressive=True), many_scans(3, 64), png(1, 200), float_tiff(float("nan"))]
    return found + [animated(kind) for kind in ("PNG", "GIF", "WEBP", "TIFF", "HEIF", "AVIF")]


def picture_of(mode: str, side: int) -> Image.Image:
    """A digit in a mode."""
    if mode == "I;16":
        return Image.fromarray(digit(side).astype("uint16") * 257)
    return picture(mode, side)


def spoil(data: bytes, chance: Random) -> bytes:
    """Change an image a little or a lot."""
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(spoilt) or 1)
        match chance.randrange(7):
            case 0:
                spoilt[at : at + 1] = bytes([chance.randrange(256)])
            case 1 if spoilt:
                spoilt[at % len(spoilt)] ^= 1 << chance.randrange(8)
            case 2:
                spoilt[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"))
            case 3:
                del spoilt[at : at + chance.randrange(64)]
            case 4:
                spoilt[at:at] = spoilt[at : at + chance.randrange(256)]
            case 5:
                del spoilt[at + chance.randrange(len(spoilt) or 1) :]
            case 6:
                spoilt[at : at + 8] = chance.randbytes(8)
    return bytes(spoilt)


def test_mutated_images_end_as_images_or_reasons(place: Path) -> None:
    """Every mutated image is decoded or refused with a reason; at worst its own decoder dies, and no other image's."""
    settings = InboxSettings(decode_seconds=5.0)
    decoders = Decoders(place, settings)
    chance, material = chances(SEED), seeds()
    ends: Counter[str] = Counter()
    keep = os.environ.get("FAULTS_KEEP")  # a folder for those that a process died on
    try:
        for start in range(0, IMAGES, CHUNK):
            drops = [Drop(str(number), 0.0) for number in range(start, min(start + CHUNK, IMAGES))]
            for drop in drops:
                (place / drop.name).write_bytes(spoil(chance.choice(material), chance))
            for drop, end in decode_to_the_end(decoders, drops):
                ends[end] += 1
                if keep and end not in SLUGS | {"decoded"}:
                    shutil.copy(place / drop.name, Path(keep) / f"{end}-{drop.name}")
                (place / drop.name).unlink()
    finally:
        decoders.close()
    print(f"\nfuzz: seed {SEED}: {dict(ends.most_common())}; the main process has {resident_mb(os.getpid()):.0f} MB")
    assert ends.total() == IMAGES
    assert set(ends) <= SLUGS | {"decoded", "too_slow", "MemoryError", ProcessExpired.__name__}


def decode_to_the_end(decoders: Decoders, drops: list[Drop]) -> Iterator[tuple[Drop, str]]:
    """What becomes of each, tried as the pipeline tries: together, and after a failure alone."""
    pending = deque([drops])
    while pending:
        drops = pending.popleft()
        done: queue.SimpleQueue[Future[Decoded]] = queue.SimpleQueue()
        decoders.decode(drops, done.put)
        future = done.get()
        error = future.exception()
        if isinstance(error, WorkersLost):
            pending.append(drops)
        elif error is None:
            decoded = future.result()
            pending.extend([decoded.left] if decoded.left else [])
            yield from account(decoded, drops)
        elif len(drops) > 1:
            pending.extend([drop] for drop in drops)
        else:
            yield drops[0], "too_slow" if isinstance(error, TimeoutError) else type(error).__name__


def account(decoded: Decoded, drops: list[Drop]) -> list[tuple[Drop, str]]:
    """Every image of the chunk has exactly one end."""
    assert decoded.failed == []
    ended = [(drop, "decoded") for drop in decoded.drops]
    ended += [(rejection.drop, rejection.reason) for rejection in decoded.refused]
    reached = [*(drop for drop, _ in ended), *decoded.left]
    assert sorted(drop.name for drop in reached) == sorted(drop.name for drop in drops)
    assert decoded.readings.likeliest.shape == (len(decoded.drops), 28, 28)
    return ended
