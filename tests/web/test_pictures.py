"""pictures.py: images as they are shown."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from daemon.config import Settings
from daemon.reading.content import InvalidImage
from daemon.reading.showing import show
from tests.conftest import encode
from tests.web.conftest import handle_of


def test_pictures_are_made_anew(browser: TestClient, settings: Settings) -> None:
    """As PNGs, that a browser may keep, for their names hold a digest; what is a page to a browser is none of them."""
    named = handle_of(settings, "a.png")
    for kind, size in (("small", (28, 28)), ("large", (28, 28)), ("seen", (28, 28))):
        answer = browser.get(f"/picture/{named}/{kind}.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert "immutable" in answer.headers["cache-control"]
        assert Image.open(io.BytesIO(answer.content)).size == size
    named = handle_of(settings, "page.png")
    page = browser.get(f"/picture/{named}/large.png")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert "alert" not in page.text
    assert browser.get(f"/picture/{named[:-1]}/large.png").status_code == 404
    assert browser.get(f"/picture/{named}/whole.png").status_code == 404


def shown(folder: Path, content: bytes, side: int = 64, max_pixels: int = 10**6) -> Image.Image:
    """A file as it is shown."""
    (folder / "a").write_bytes(content)
    return Image.open(io.BytesIO(show(folder, "a", hashlib.sha256(content).hexdigest(), 10**6, max_pixels, side)))


def test_nothing_of_the_file_is_left_but_its_pixels(tmp_path: Path) -> None:
    """No place where a photograph was taken, no comment; turned as it was held, and never larger than asked for."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret"
    picture = shown(tmp_path, encode(np.zeros((100, 200, 3), np.uint8), "JPEG", exif=exif, comment=b"a secret"))
    assert (picture.size, picture.mode, dict(picture.getexif()), picture.info) == ((32, 64), "RGB", {}, {})


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("P", "GIF"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("CMYK", "TIFF"),
        ("I;16", "PNG"),
        ("I", "TIFF"),
        ("F", "TIFF"),
    ],
)
def test_every_mode_is_shown(tmp_path: Path, mode: str, kind: str) -> None:
    """Palettes, transparency, sixteen bits, numbers of any size."""
    buffer = io.BytesIO()
    Image.new("L", (8, 4), 200).convert(mode if mode != "I;16" else "I").convert(mode).save(buffer, kind)
    assert shown(tmp_path, buffer.getvalue()).size == (8, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!doctype html><script>", "not_an_image"),
        (encode(np.zeros((9, 9), np.uint8))[:48], "truncated"),
        (encode(np.zeros((2000, 2000), np.uint8)), "too_many_pixels"),
    ],
)
def test_what_is_no_picture_is_not_shown(tmp_path: Path, content: bytes, reason: str) -> None:
    """Neither a page, nor half a picture, nor one too large to decode."""
    with pytest.raises(InvalidImage, match=reason):
        shown(tmp_path, content)


def test_links_are_not_shown(tmp_path: Path) -> None:
    """Nor is another image that has the name by now."""
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(InvalidImage, match="not_a_regular_file"):
        show(tmp_path, "a", "0" * 64, 10**6, 10**6, 64)
    (tmp_path / "b").write_bytes(encode(np.zeros((9, 9), np.uint8)))
    with pytest.raises(FileNotFoundError):
        show(tmp_path, "b", "0" * 64, 10**6, 10**6, 64)
