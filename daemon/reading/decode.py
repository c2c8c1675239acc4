"""From a file's bytes to a (28, 28) image in MNIST's form, or the reason why not. No state, no TensorFlow."""

from __future__ import annotations

import hashlib
import importlib
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pillow_heif
from PIL import AvifImagePlugin, ImageOps, Jpeg2KImagePlugin, UnidentifiedImageError
from PIL import Image as Pillow

from daemon.folders import Folder
from daemon.reading import normalise, plain_png
from daemon.reading.colour import WEAK, ink_contrast, strongest
from daemon.reading.components import Doubt
from daemon.reading.content import InvalidImage, describe, read_content
from daemon.reading.dots import to_grey
from daemon.reading.far import find_far
from daemon.reading.mnist import BLANK_CONTRAST, Blank, Reading

FORMATS = ("PNG", "JPEG", "HEIF", "AVIF", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")  # Pillow's names
WORKING_SIDE = 256  # larger images are reduced to at most this before their ink is looked for
FAR = 5  # times; on what is reduced by so much, a digit may be too small to see

Pillow.MAX_IMAGE_PIXELS = None  # the configured limit is checked on the header, before any pixel is decoded
Pillow.preinit()  # registers some of FORMATS, importing a plugin registers it; otherwise `open` imports all 43 there are
for _plugin in ("TiffImagePlugin", "WebPImagePlugin"):
    importlib.import_module(f"PIL.{_plugin}")
warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
# One thread each: there are processes enough, and a thread's stack counts against the address space of a decoder.
cv2.setNumThreads(1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


class Image(NamedTuple):  # made thousands of times a second, at a third of a dataclass's cost
    """An image ready for the model.

    Attributes:
        readings: one or more, the most usual first; the model decides which is right.
        sha256: of the file's content, in hexadecimal.
        format: Pillow's name of the format, such as "PNG".
        width, height: of the original, in pixels, as stored (before its EXIF orientation is applied).
        size: of the original, in bytes.

    """

    readings: tuple[Reading, ...]
    sha256: str
    format: str
    width: int
    height: int
    size: int

    @property
    def pixels(self) -> np.ndarray:
        """(28, 28) uint8, the first reading's."""
        return self.readings[0].pixels

    @property
    def doubt(self) -> Doubt | None:
        """The first reading's."""
        return self.readings[0].doubt


class Picture(NamedTuple):
    """A decoded file, not yet in MNIST's form.

    Attributes:
        grey: (height, width) uint8, 0 black to 255 white, at most WORKING_SIDE a side.
        sha256, format, width, height, size: as in Image.

    """

    grey: np.ndarray
    sha256: str
    format: str
    width: int
    height: int
    size: int


def load_image(path: Path | str, max_bytes: int, max_pixels: int) -> Image:
    """Read, decode and normalise one file.

    Args:
        path: nothing but a regular file is opened for reading.
        max_bytes: a larger file is refused unread.
        max_pixels: an image of more pixels is refused undecoded.

    Raises:
        InvalidImage: the file cannot be a digit image.
        OSError: the machine failed (EIO, ENOMEM, a vanished file), which says nothing about the image.

    """
    return load_content(read_content(path, max_bytes), max_pixels)


def load_content(data: bytes, max_pixels: int) -> Image:
    """Decode and normalise a file's content, as `load_image` does."""
    return _only(images_of([decode(data, max_pixels)]))


def read_harmless(path: Path | str, max_pixels: int, folder: Folder | None = None) -> Picture | None:
    """Read and decode a file that nobody comes to harm by decoding; None for any other file, and for too large ones."""
    try:
        data = read_content(path, plain_png.MOST_BYTES, folder)
    except (InvalidImage, OSError):
        return None  # whoever reads it next will say what is wrong
    grey = plain_png.read(data)
    return None if grey is None or grey.size > max_pixels else _plain(grey, data)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file's content.

    Raises:
        InvalidImage: the content cannot be a digit image.

    """
    plain = plain_png.read(data)
    if plain is not None and plain.size <= max_pixels:
        return _plain(plain, data)
    digest = hashlib.sha256(data).hexdigest()
    try:
        grey, kind, (width, height) = _decode(data, max_pixels)
    except InvalidImage as error:
        error.sha256 = digest
        raise
    return Picture(grey, digest, kind, width, height, len(data))


def _plain(grey: np.ndarray, data: bytes) -> Picture:
    height, width = grey.shape
    return Picture(grey, hashlib.sha256(data).hexdigest(), "PNG", width, height, len(data))


def images_of(pictures: list[Picture]) -> list[Image | InvalidImage]:
    """Bring pictures into MNIST's form; many at once cost less.

    Returns:
        For each in its place, the image, or why it is none ("blank").

    """
    images: list[Image | InvalidImage] = []
    for picture, normalised in zip(pictures, normalise.normalise_all([picture.grey for picture in pictures]), strict=True):
        if isinstance(normalised, Blank):
            images.append(_blank(normalised, picture.sha256))
        else:
            images.append(Image(normalised, *picture[1:]))
    return images


def _only(images: list[Image | InvalidImage]) -> Image:
    (image,) = images
    if isinstance(image, InvalidImage):
        raise image
    return image


def _decode(data: bytes, max_pixels: int) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Grey levels, at most WORKING_SIDE pixels a side, the format, and (width, height) of the original."""
    if not data:
        raise InvalidImage("not_an_image", "The file is empty.", "Drop the image again once it is written.")
    try:
        picture = Pillow.open(io.BytesIO(data), formats=FORMATS)
        kind, size = str(picture.format), picture.size
        if size[0] * size[1] > max_pixels:
            raise InvalidImage(
                "too_many_pixels",
                f"Expected at most {max_pixels} pixels. Received: {size[0]} x {size[1]} = {size[0] * size[1]}.",
                "Scale the image down, or raise [inbox] max_pixels.",
            )
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and kind != "MPO":  # a phone's JPEG, with a preview or a depth map behind it
            raise InvalidImage(
                "animated",
                f"Expected one picture. Received: a {kind} with {frames} frames or pages.",
                "Save each frame or page as a picture of its own, such as a PNG, and drop those.",
            )
        grey = _see(picture, data)
    except InvalidImage:
        raise
    except UnidentifiedImageError:
        raise InvalidImage(
            "not_an_image",
            f"Expected a picture ({', '.join(FORMATS)}). Received: {describe(data)}.",
            "Save the picture as PNG or JPEG, one page a file; the name's ending does not matter.",
        ) from None
    except MemoryError:
        raise
    except NotImplementedError as error:
        raise InvalidImage(
            "unsupported_format", f"Pillow cannot decode this kind: {error}.", "Save the picture as PNG."
        ) from error
    except Exception as error:  # Pillow raises OSError, ValueError, SyntaxError, RuntimeError, struct.error, ...
        raise InvalidImage(
            "truncated",
            f"The file begins like an image but cannot be decoded to its end: {error}.",
            "Copy the file again; if it opens elsewhere, save it as PNG.",
        ) from error
    return grey, kind, size


def _blank(blank: Blank, sha256: str) -> InvalidImage:
    if blank.contrast < BLANK_CONTRAST:
        found = f"grey levels that differ from the paper by {blank.contrast:.0f} of 255"
        hint = "Write darker, or scan with more contrast."
    else:
        found, hint = "nothing but specks and the paper's edge", "Write larger, or cut the picture closer to the digit."
    return InvalidImage("blank", f"Expected ink on paper. Received: {found}.", hint, sha256)


def _see(picture: Pillow.Image, data: bytes) -> np.ndarray:
    """Decode an opened picture to grey levels, at most WORKING_SIDE a side: all of it, or where the only digit is."""
    factor = -(-max(picture.size) // WORKING_SIDE)
    coloured = picture.mode == "RGB"
    grey = _reduced(picture, factor, data)
    if coloured and picture.mode == "L" and ink_contrast(grey) < WEAK:  # a JPEG of which only the light was decoded
        grey = _reduced(Pillow.open(io.BytesIO(data), formats=FORMATS), factor, data, "RGB")
    if factor >= FAR and (box := find_far(grey)):
        grey = _near(Pillow.open(io.BytesIO(data), formats=FORMATS), box, data)
    return grey


def _reduced(picture: Pillow.Image, factor: int, data: bytes, mode: str = "L") -> np.ndarray:
    """Decode an opened picture to grey levels, reduced by `factor`; a JPEG from its light alone, or from "RGB"."""
    longest = -(-max(picture.size) // factor)
    _load_reduced(picture, factor, data, mode)
    if picture.format != "PNG" or picture.info:  # a PNG without any metadata has no orientation
        ImageOps.exif_transpose(picture, in_place=True)
    return _to_grey(picture, longest)


def _near(picture: Pillow.Image, box: tuple[float, float, float, float], data: bytes) -> np.ndarray:
    """Decode a part of an opened picture to grey levels: left, top, right and bottom are shares of its sides."""
    part = max(box[2] - box[0], box[3] - box[1]) * max(picture.size)
    _load_reduced(picture, max(1, int(part / WORKING_SIDE)), data, "L")
    ImageOps.exif_transpose(picture, in_place=True)
    width, height = picture.size
    picture = picture.crop((int(box[0] * width), int(box[1] * height), round(box[2] * width), round(box[3] * height)))
    return _to_grey(picture, min(max(picture.size), WORKING_SIDE))


def _load_reduced(picture: Pillow.Image, factor: int, data: bytes, mode: str) -> None:
    """Decode a picture, a large JPEG or JPEG 2000 at reduced scale: by the greatest power of two up to `factor`."""
    if isinstance(picture, Jpeg2KImagePlugin.Jpeg2KImageFile):
        style = data.find(b"\xff\x52", 0, 1 << 16)  # the COD segment; its tenth byte: how often the picture was halved
        levels = data[style + 9] if 0 <= style < len(data) - 9 else 0
        picture.reduce = min(levels, factor.bit_length() - 1)
    picture.draft(mode, (picture.width // factor, picture.height // factor))
    picture.load()


def _to_grey(picture: Pillow.Image, longest: int) -> np.ndarray:
    """Any mode to (height, width) grey levels, 0 black to 255 white, reduced to `longest` pixels on the longer side."""
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture).astype(np.float32)
        if picture.mode == "F" or values.max() > 65535 or values.min() < 0:  # no fixed scale: use the values' own range
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            values = np.nan_to_num((values / 2 - low / 2) * (510 / max(high - low, 1e-6)))  # halves: the range may overflow
        else:
            values *= 255 / (4095 if values.max() <= 4095 else 65535)  # scanners store 12 bits in 16
        picture = Pillow.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = _flatten(picture.convert("RGBA"))
    elif picture.mode == "1":
        picture = to_grey(picture)
    elif picture.mode != "L":
        picture = picture.convert("RGB")
    picture = _scale(picture, longest)
    return strongest(np.asarray(picture)) if picture.mode == "RGB" else np.asarray(picture)


def _scale(picture: Pillow.Image, longest: int) -> Pillow.Image:
    factor = -(-max(picture.size) // longest)
    if factor > 1 and -(-max(picture.size) // factor) == longest:
        picture = picture.reduce(factor)  # averages whole squares
    elif factor > 1:
        width, height = (max(1, round(side * longest / max(picture.size))) for side in picture.size)
        picture = picture.resize((width, height), Pillow.Resampling.BOX)
    return picture


def _flatten(picture: Pillow.Image) -> Pillow.Image:
    """Put a transparent picture onto white paper if what is opaque is dark, onto black if it is light."""
    grey, alpha = picture.convert("L"), picture.getchannel("A")
    weights = np.asarray(alpha, np.float32)
    opaque = float((np.asarray(grey) * weights).sum() / max(float(weights.sum()), 1.0))
    return Pillow.composite(grey, Pillow.new("L", picture.size, 255 if opaque < 128 else 0), alpha)
