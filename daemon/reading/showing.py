"""An image for people to look at: decoded within limits and encoded anew; nothing of the file is left but its pixels."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from daemon.folders import Folder
from daemon.reading.content import InvalidImage, read_content
from daemon.reading.decode import FORMATS, load_content

LARGEST = 1024  # pixels a side


def show(folder: Path, name: str, sha256: str, max_bytes: int, max_pixels: int, side: int) -> bytes:
    """An image as a PNG of at most `side` pixels a side.

    Args:
        folder, name: where it is.
        sha256: of the image that is meant, in hexadecimal.
        max_bytes, max_pixels: a larger one is refused.

    Raises:
        InvalidImage: it cannot be shown.
        OSError: it is not there, or is another one.

    """
    data = _read(folder, name, sha256, max_bytes)
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > max_pixels:
            raise InvalidImage("too_many_pixels", f"It has {picture.width} x {picture.height} pixels.", "")
        picture.draft("RGB", (side, side))
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return _png(_as_seen(picture), side)
    except UnidentifiedImageError:
        raise InvalidImage("not_an_image", "It is no picture.", "") from None
    except (InvalidImage, MemoryError):
        raise
    except Exception as error:  # Pillow raises OSError, ValueError, SyntaxError, RuntimeError, struct.error, ...
        raise InvalidImage("truncated", f"It cannot be decoded: {error}.", "") from error


def show_seen(folder: Path, name: str, sha256: str, max_bytes: int, max_pixels: int) -> bytes:
    """What the network sees of an image, 28x28, as a PNG; arguments and errors are as of `show`."""
    image = load_content(_read(folder, name, sha256, max_bytes), max_pixels)
    return _png(Pillow.fromarray(image.pixels), LARGEST)


def _read(folder: Path, name: str, sha256: str, max_bytes: int) -> bytes:
    with Folder(folder) as held:
        data = read_content(name, max_bytes, held)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileNotFoundError("another image has its name")
    return data


def _as_seen(picture: Pillow.Image) -> Pillow.Image:
    """Any mode as grey or RGB; what is transparent is paper."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture).astype(np.float64))
        low, high = float(values.min()), float(values.max())
        return Pillow.fromarray(((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Pillow.new("RGBA", picture.size, "white")
        return Pillow.alpha_composite(paper, picture).convert("RGB")
    return picture if picture.mode == "L" else picture.convert("RGB")


def _png(picture: Pillow.Image, side: int) -> bytes:
    picture.thumbnail((side, side), Pillow.Resampling.BOX)
    pixels = Pillow.fromarray(np.asarray(picture))  # without what else the file held: profiles, comments, places
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
