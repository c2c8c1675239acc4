"""What comes out of a file: MNIST's form, or the reason why not. No model, no font, no network."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo

from daemon.reading.content import InvalidImage
from daemon.reading.decode import FORMATS, decode, images_of, load_content, load_image, read_harmless
from tests.conftest import leased

MAX_BYTES, MAX_PIXELS = 1 << 20, 4_000_000


@pytest.fixture(scope="session")
def mnist() -> np.ndarray:
    """A hundred images of MNIST's training split."""
    with np.load(Path(__file__).parent.parent.parent / "datasets" / "mnist.npz") as file:
        images: np.ndarray = file["x_train"][55_000:55_100]
    return images


def save(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> np.ndarray:
    """What the decoder makes of a picture that was saved."""
    return load_content(save(picture, kind, **options), MAX_PIXELS).pixels


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two images, the best of the nine that one pixel's shift gives; 1 for the same."""
    shifted = (np.roll(a, (down, across), (0, 1)).ravel() for down in (-1, 0, 1) for across in (-1, 0, 1))
    return max(float(np.corrcoef(one, b.ravel())[0, 1]) for one in shifted)


def ink(pixels: np.ndarray, side: int) -> Image.Image:
    """A 28x28 image enlarged, with crisp edges: "L", ink 255."""
    big = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return big.point(lambda value: min(255, max(0, (value - 127) * 4 + 127)))


def on_paper(
    pixels: np.ndarray, size: tuple[int, int] = (480, 640), side: int = 320, paper: int = 235, pen: int = 40, at: float = 0.5
) -> Image.Image:
    """A digit drawn on a page."""
    page = Image.new("L", size, paper)
    mask = ink(pixels, side)
    page.paste(pen, (round((size[0] - side) * at), round((size[1] - side) * at)), mask)
    return page


def reason(data: bytes) -> str:
    """Why content is refused; the refusal says what was found and what to do."""
    with pytest.raises(InvalidImage) as caught:
        load_content(data, MAX_PIXELS)
    assert caught.value.detail
    assert caught.value.hint
    return caught.value.reason


def refused_file(path: Path) -> str:
    """Why a file is refused."""
    with pytest.raises(InvalidImage) as caught:
        load_image(path, MAX_BYTES, MAX_PIXELS)
    return caught.value.reason


# --- what is in MNIST's form already


def test_an_mnist_image_comes_through_unchanged(mnist: np.ndarray) -> None:
    """Not a pixel of a canonical image changes, and nothing about it is doubted."""
    for pixels in mnist:
        image = load_content(save(Image.fromarray(pixels)), MAX_PIXELS)
        np.testing.assert_array_equal(pixels, image.pixels)
        assert image.doubt is None


@pytest.mark.parametrize(("side", "place"), [(20, (0, 5)), (14, (13, 1)), (12, (8, 8)), (28, (0, 0))])
def test_a_digit_of_another_size_or_place_is_brought_into_mnists(
    mnist: np.ndarray, side: int, place: tuple[int, int]
) -> None:
    """A canvas of 28x28 is not yet MNIST's form: people draw anywhere on it."""
    for pixels in mnist[:10]:
        inked = Image.fromarray(pixels).crop(Image.fromarray(pixels).getbbox())
        inked = inked.resize((round(inked.width * side / max(inked.size)), round(inked.height * side / max(inked.size))))
        canvas = Image.new("L", (28, 28))
        canvas.paste(inked, place)
        assert likeness(pixels, pixels_of(canvas)) > 0.85


@pytest.mark.parametrize(("kind", "orientation"), [("PNG", 1), ("JPEG", 1), ("JPEG", 6)])
def test_a_digit_far_away_is_looked_at_closely(mnist: np.ndarray, kind: str, orientation: int) -> None:
    """A small digit is all there is on a large sheet, however the sheet lies."""
    page = Image.new("L", (1500, 1100), 235)
    page.paste(40, (960, 420), ink(mnist[0], 84))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = page.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else page
    assert likeness(mnist[0], pixels_of(stored, kind, exif=exif)) > 0.85


def test_specks_far_away_are_no_digit() -> None:
    """Where nobody knows what to look at, there is nothing to see."""
    page = Image.new("L", (1500, 1100), 235)
    for place in ((200, 300), (900, 200), (1200, 800)):
        page.paste(40, (*place, place[0] + 20, place[1] + 30))
    assert "blank" == reason(save(page))


def test_an_inverted_mnist_image_comes_out_the_same(mnist: np.ndarray) -> None:
    """Dark ink on white gives the very pixels of white ink on black."""
    for pixels in mnist[:20]:
        np.testing.assert_array_equal(pixels, pixels_of(Image.fromarray(255 - pixels)))


def test_the_result_is_always_28_by_28_bytes(mnist: np.ndarray) -> None:
    """Whatever comes in, (28, 28) uint8 comes out, and the array is its own."""
    for side in (28, 33, 64, 300):
        pixels = pixels_of(ink(mnist[0], side))
        assert ((28, 28), np.uint8) == (pixels.shape, pixels.dtype)


# --- formats, modes, orientation


def as_palette(grey: Image.Image) -> Image.Image:
    """Sixteen colours."""
    return grey.convert("RGB").quantize(16)


MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "RGB": lambda grey: grey.convert("RGB"),
    "RGBA": lambda grey: grey.convert("RGBA"),
    "LA": lambda grey: grey.convert("LA"),
    "1": lambda grey: grey.point(lambda value: 255 * (value > 127)).convert("1"),
    "P": as_palette,
    "I;16": lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    "16-bit scan of 12 bits": lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 16),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_alike(mnist: np.ndarray, mode: str) -> None:
    """The mode that a program chose does not change what is seen."""
    grey = ImageOps.invert(ink(mnist[3], 112))
    assert likeness(pixels_of(grey), pixels_of(MODES[mode](grey))) > 0.97


def test_floats_of_any_size_are_levels(mnist: np.ndarray) -> None:
    """From the least to the greatest that a float can be, which are further apart than a float can tell."""
    levels = np.where(np.asarray(ink(mnist[4], 140)) > 127, np.float32(3e38), np.float32(-3e38))
    grey = Image.fromarray(np.where(levels > 0, 255, 0).astype(np.uint8))
    assert likeness(pixels_of(grey), pixels_of(Image.fromarray(levels.astype(np.float32)), "TIFF")) > 0.97


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_alike(mnist: np.ndarray, kind: str) -> None:
    """Each of the formats works and is named in the answer."""
    grey = ImageOps.invert(ink(mnist[4], 140))
    image = load_content(save(grey.convert("RGB"), kind), MAX_PIXELS)
    pixels, named, size = image.pixels, image.format, (image.width, image.height)
    assert (kind, (140, 140)) == (named, size)
    assert likeness(pixels_of(grey), pixels) > 0.97


def test_a_phone_jpeg_with_a_picture_behind_it_is_read(mnist: np.ndarray) -> None:
    """Phones put a preview, a depth or a brightness map behind the picture; that makes no animation of it."""
    grey = ImageOps.invert(ink(mnist[4], 140))
    data = save(grey, "MPO", save_all=True, append_images=[Image.new("L", (70, 70), 128)])
    assert likeness(pixels_of(grey), load_content(data, MAX_PIXELS).pixels) > 0.97


@pytest.mark.parametrize("size", [(3000, 4000), (1072, 968), (257, 100)])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_what_is_decoded_at_reduced_scale_has_the_size_of_all_else(kind: str, size: tuple[int, int]) -> None:
    """A picture looks the same to what comes after, whatever its format."""
    page = Image.new("L", size, 200)
    reduced, whole = decode(save(page, kind), 50_000_000).grey, decode(save(page), 50_000_000).grey
    assert max(whole.shape) == max(reduced.shape)
    assert abs(min(whole.shape) - min(reduced.shape)) <= 1


def test_a_screened_picture_is_read(mnist: np.ndarray) -> None:
    """Grey levels that a program turned into black and white dots are grey levels."""
    page = on_paper(mnist[0], size=(160, 200), side=130, paper=225, pen=70)
    assert likeness(pixels_of(page), pixels_of(page.convert("1"))) > 0.95


def test_a_fax_has_fewer_dots_down_than_across(mnist: np.ndarray) -> None:
    """Whoever sent a fax saw the digit twice as high as its pixels say."""
    page = on_paper(mnist[0], size=(160, 200), side=130)
    flat = page.resize((160, 96)).point(lambda level: 255 * (level > 140)).convert("1")
    fax = pixels_of(flat, "TIFF", compression="group4", dpi=(204, 98))
    assert likeness(pixels_of(page), fax) > 0.95
    assert likeness(pixels_of(page), pixels_of(flat)) < 0.9


def test_a_cmyk_jpeg_is_read(mnist: np.ndarray) -> None:
    """What print shops' programs write."""
    grey = ImageOps.invert(ink(mnist[5], 140))
    assert likeness(pixels_of(grey), pixels_of(grey.convert("CMYK"), "JPEG", quality=90)) > 0.97


@pytest.mark.parametrize("shade", [0, 255])
def test_ink_on_nothing_is_seen_whatever_its_shade(mnist: np.ndarray, shade: int) -> None:
    """A transparent picture is ink by its opacity, dark or light."""
    mask = ink(mnist[6], 140)
    flat = Image.new("L", mask.size, shade)
    picture = Image.merge("RGBA", (flat, flat, flat, mask))
    assert likeness(pixels_of(mask), pixels_of(picture)) > 0.97


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
def test_a_phone_picture_is_turned_upright(mnist: np.ndarray, orientation: int, undo: Image.Transpose) -> None:
    """The EXIF orientation is applied, and the size reported is the stored one."""
    page = on_paper(mnist[7])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = page.transpose(undo)
    image = load_content(save(stored, "JPEG", quality=90, exif=exif), MAX_PIXELS)
    pixels, size = image.pixels, (image.width, image.height)
    assert stored.size == size
    assert likeness(mnist[7], pixels) > 0.85


def test_a_large_photograph_is_read(mnist: np.ndarray) -> None:
    """Twelve megapixels come out as the same digit."""
    page = on_paper(mnist[8]).resize((3000, 4000), Image.Resampling.BILINEAR)
    assert likeness(mnist[8], load_content(save(page, "JPEG"), 50_000_000).pixels) > 0.85


# --- paper


def shade(page: Image.Image) -> Image.Image:
    """Light that falls off to one side."""
    values = np.asarray(page, np.float32) * np.linspace(1.0, 0.4, page.width)[None]
    return Image.fromarray(values.astype(np.uint8))


def shadow(page: Image.Image) -> Image.Image:
    """A sharp shadow over one half."""
    values = np.asarray(page, np.float32).copy()
    values[:, : page.width // 2] *= 0.55
    return Image.fromarray(values.astype(np.uint8))


def rule(page: Image.Image) -> Image.Image:
    """Rules, a little askew."""
    draw = ImageDraw.Draw(page)
    for y in range(30, page.height, 90):
        draw.line((0, y, page.width, y + 8), fill=130, width=3)
    return page


def grid(page: Image.Image) -> Image.Image:
    """Rules both ways."""
    draw = ImageDraw.Draw(rule(page))
    for x in range(20, page.width, 90):
        draw.line((x, 0, x - 8, page.height), fill=130, width=3)
    return page


def speck(page: Image.Image) -> Image.Image:
    """Dirt."""
    draw = ImageDraw.Draw(page)
    for x, y in np.random.default_rng(1).uniform(0, 1, (25, 2)) * page.size:
        draw.ellipse((x, y, x + 5, y + 4), fill=60)
    return page


def lay_on_a_table(page: Image.Image) -> Image.Image:
    """A dark table beyond the paper's edge."""
    ImageDraw.Draw(page).polygon([(0, 0), (30, 0), (18, page.height), (0, page.height)], fill=50)
    return page


def grain(page: Image.Image) -> Image.Image:
    """A camera's noise."""
    noise = np.random.default_rng(2).normal(0, 8, (page.height, page.width))
    return Image.fromarray((np.asarray(page) + noise).clip(0, 255).astype(np.uint8))


PAPERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda page: page,
    "blackboard": ImageOps.invert,
    "shading": shade,
    "shadow": shadow,
    "rules": rule,
    "grid": grid,
    "specks": speck,
    "table": lay_on_a_table,
    "grain": grain,
    "out of focus": lambda page: page.filter(ImageFilter.GaussianBlur(3)),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_paper_does_not_change_the_digit(mnist: np.ndarray, paper: str) -> None:
    """From every kind of paper nine digits in ten come out as they were written."""
    like = [likeness(pixels, pixels_of(PAPERS[paper](on_paper(pixels)))) for pixels in mnist[:20]]
    assert np.mean(np.array(like) > 0.8) >= 0.9, like


def test_a_digit_in_a_corner_is_found_and_centred(mnist: np.ndarray) -> None:
    """Where on the page a digit is written does not matter."""
    middle, corner = (pixels_of(on_paper(mnist[9], side=200, at=at)) for at in (0.5, 0.06))
    assert likeness(middle, corner) > 0.97


def test_a_fine_pen_gives_strokes_that_can_be_seen() -> None:
    """A hairline on a large page comes out as ink, not as a shade."""
    page = Image.new("L", (600, 800), 240)
    ImageDraw.Draw(page).line([(250, 200), (400, 200), (300, 600)], fill=30, width=4)
    assert np.count_nonzero(pixels_of(page) > 127) >= 20


def test_a_very_bold_digit_is_not_hollowed_out() -> None:
    """A stroke a third as wide as its picture is ink all through, on any flat paper."""
    for paper, pen in ((255, 0), (180, 60), (20, 230)):
        page = Image.new("L", (210, 210), paper)
        ImageDraw.Draw(page).rectangle((70, 35, 140, 175), fill=pen)
        assert pixels_of(page)[6:22, 11:17].min() > 200


def test_parts_of_a_digit_stay_together() -> None:
    """A 5 whose bar is lifted off keeps its bar."""
    page = Image.new("L", (400, 500), 240)
    draw = ImageDraw.Draw(page)
    draw.line([(170, 150), (165, 240)], fill=30, width=16)
    draw.arc((120, 220, 270, 380), 200, 500, fill=30, width=16)
    draw.line([(190, 148), (280, 142)], fill=30, width=16)
    image = load_content(save(page), MAX_PIXELS)
    assert image.doubt is None
    assert np.count_nonzero(image.pixels[4:9, 14:] > 100) > 5


def test_a_broken_stroke_stays_together() -> None:
    """Of an L that the pen left out in two places the foot is kept too, though it is far from the longest piece."""
    strokes = [(200, 100, 200, 400), (200, 400, 300, 400)]
    pieces = [(200, 100, 200, 300), (200, 314, 200, 350), (200, 364, 200, 400), (200, 400, 300, 400)]
    whole, broken = Image.new("L", (400, 500), 240), Image.new("L", (400, 500), 240)
    for page, lines in ((whole, strokes), (broken, pieces)):
        for line in lines:
            ImageDraw.Draw(page).line(line, fill=30, width=16)
    assert likeness(pixels_of(whole), pixels_of(broken)) > 0.99


def test_a_table_round_the_corner_is_not_taken_for_a_part(mnist: np.ndarray) -> None:
    """Beside a digit in the corner of the paper, a table seen on two sides is left out."""
    page = on_paper(mnist[9], side=320, at=0.9)
    alone = pixels_of(page)
    ImageDraw.Draw(page).polygon([(480, 40), (480, 640), (50, 640), (50, 622), (462, 622), (462, 40)], fill=50)
    assert likeness(alone, pixels_of(page)) > 0.95


@pytest.mark.parametrize("enlarge", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_tiny_digit_enlarged_is_the_tiny_digit(mnist: np.ndarray, enlarge: Image.Resampling) -> None:
    """An 8x8 digit and the same enlarged by another program give about the same."""
    tiny = Image.fromarray(mnist[10][4:24, 4:24]).resize((8, 8), Image.Resampling.BOX)
    assert likeness(pixels_of(tiny), pixels_of(tiny.resize((96, 96), enlarge))) > 0.85


# --- doubt


@pytest.mark.parametrize("way", ["side by side", "above each other"])
def test_several_digits_are_told(mnist: np.ndarray, way: str) -> None:
    """Two digits on one page are no one digit."""
    first, second = ink(mnist[1], 160), ink(mnist[2], 160)
    page = Image.new("L", (400, 400), 235)
    page.paste(40, (30, 120) if way == "side by side" else (120, 30), first)
    page.paste(40, (200, 120) if way == "side by side" else (120, 200), second)
    assert load_content(save(page), MAX_PIXELS).doubt == "several_digits"


def test_a_texture_is_no_digit() -> None:
    """A page of noise or checks is doubted, or called blank."""
    noise = np.random.default_rng(3).integers(0, 256, (200, 200), np.uint8)
    checks = (np.indices((200, 200)) // 10).sum(axis=0) % 2 * 255
    for values in (noise, checks.astype(np.uint8)):
        assert load_content(save(Image.fromarray(values)), MAX_PIXELS).doubt == "not_a_digit"


def test_single_digits_are_not_doubted(mnist: np.ndarray) -> None:
    """At most one page in fifty with one digit is taken for something else."""
    doubts = [load_content(save(on_paper(pixels)), MAX_PIXELS).doubt for pixels in mnist]
    assert sum(doubt is not None for doubt in doubts) <= 2


# --- refusals


@pytest.mark.parametrize("paper", ["plain", "shading", "rules", "grid", "table", "grain"])
def test_a_blank_page_is_refused(paper: str) -> None:
    """Paper without ink, whatever the light and whatever is printed on it, is blank."""
    assert reason(save(PAPERS[paper](Image.new("L", (480, 640), 235)))) == "blank"


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (64, 64)])
def test_one_colour_is_blank(size: tuple[int, int]) -> None:
    """A picture of one colour holds no ink."""
    for value in (0, 128, 255):
        assert reason(save(Image.new("L", size, value))) == "blank"


def test_a_small_grey_png_is_harmless(mnist: np.ndarray, tmp_path: Path) -> None:
    """MNIST's images as Pillow saves them may be decoded anywhere, and come out as always."""
    (tmp_path / "a.png").write_bytes(save(Image.fromarray(mnist[0])))
    picture = read_harmless(tmp_path / "a.png", MAX_PIXELS)
    assert picture is not None
    assert np.array_equal(mnist[0], picture.grey)


def _with_text(picture: Image.Image) -> bytes:
    information = PngInfo()
    information.add_text("note", "a" * 100, zip=True)
    return save(picture, pnginfo=information)


HARMFUL: dict[str, Callable[[Image.Image], bytes]] = {
    "colour": lambda picture: save(picture.convert("RGB")),
    "16 bits": lambda picture: save(picture.convert("I;16")),
    "a palette": lambda picture: save(picture.convert("P")),
    "text": _with_text,
    "another format": lambda picture: save(picture, "BMP"),
    "cut off": lambda picture: save(picture)[:-3],
    "something after its end": lambda picture: save(picture) + b"x",
    "a wrong check sum": lambda picture: save(picture)[:-20] + bytes(4) + save(picture)[-16:],
    "too wide": lambda picture: save(picture.resize((65, 28))),
    "no pixels": lambda picture: save(picture)[:16] + bytes(4) + save(picture)[20:],
    "too long a file": lambda _: save(Image.effect_noise((64, 64), 100), compress_level=0),
    "interlaced": lambda picture: save(picture)[:28] + b"\1" + save(picture)[29:],
    "only a header": lambda picture: save(picture)[:33],
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("make", HARMFUL.values(), ids=HARMFUL.keys())
def test_all_else_is_for_a_process_of_its_own(
    make: Callable[[Image.Image], bytes], mnist: np.ndarray, tmp_path: Path
) -> None:
    """Whatever has more in it than the pixels of a small grey picture is not decoded where a crash would matter."""
    (tmp_path / "a.png").write_bytes(make(Image.fromarray(mnist[0])))
    assert read_harmless(tmp_path / "a.png", MAX_PIXELS) is None
    assert read_harmless(tmp_path, MAX_PIXELS) is None
    assert read_harmless(tmp_path / "none", MAX_PIXELS) is None


def test_a_harmless_file_has_no_more_pixels_than_all_others(mnist: np.ndarray, tmp_path: Path) -> None:
    """The limit on pixels holds for the short way as for the long one."""
    (tmp_path / "a.png").write_bytes(save(Image.fromarray(mnist[0])))
    assert read_harmless(tmp_path / "a.png", 28 * 28) is not None
    assert read_harmless(tmp_path / "a.png", 28 * 28 - 1) is None
    with pytest.raises(InvalidImage, match="too_many_pixels"):
        load_image(tmp_path / "a.png", MAX_BYTES, 28 * 28 - 1)


@pytest.mark.parametrize("seen", [0, 10, 10_000])
def test_a_file_that_changes_while_it_is_read(
    seen: int, mnist: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read to its end, whatever size it had at first, and not beyond the limit."""
    data = save(Image.fromarray(mnist[0]))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    first = os.stat_result([stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, seen, 0, 0, 0])
    monkeypatch.setattr(os, "fstat", lambda _: first)
    assert np.array_equal(mnist[0], load_image(path, 20_000, MAX_PIXELS).pixels)
    if seen < len(data):
        with pytest.raises(InvalidImage, match="too_large"):
            load_image(path, len(data) - 1, MAX_PIXELS)


def test_many_are_normalised_as_one_alone(mnist: np.ndarray) -> None:
    """Pictures that are normalised together come out as each does alone, and a blank one harms no other."""
    pages = [mnist[3], 255 - mnist[4], np.zeros((28, 28), np.uint8), np.pad(255 - mnist[5], 40, constant_values=255)]
    files = [save(Image.fromarray(page)) for page in pages]
    together = images_of([decode(data, MAX_PIXELS) for data in files])
    assert isinstance(together[2], InvalidImage)
    assert "blank" == together[2].reason
    for number in (0, 1, 3):
        image, alone = together[number], load_content(files[number], MAX_PIXELS)
        assert not isinstance(image, InvalidImage)
        assert np.array_equal(alone.pixels, image.pixels)
        assert (alone.sha256, alone.doubt) == (image.sha256, image.doubt)


@pytest.mark.parametrize("data", [b"", b"hello, world", b"%PDF-1.7\n", b"<svg/>", b"PK\x03\x04", b"%!PS-Adobe", bytes(64)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Other kinds of content are called what they are."""
    assert reason(data) == "not_an_image"


def test_a_pdf_is_called_a_pdf() -> None:
    """The refusal says what was received."""
    with pytest.raises(InvalidImage, match="a PDF document"):
        decode(b"%PDF-1.7\n", MAX_PIXELS)


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_refused(mnist: np.ndarray, kind: str) -> None:
    """What was cut off in transit gives no answer."""
    data = save(on_paper(mnist[0], (200, 200), 150).convert("RGB"), kind)
    assert reason(data[: len(data) // 2]) in ("truncated", "not_an_image")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "HEIF", "AVIF"])
def test_several_frames_are_refused(kind: str) -> None:
    """An animation or a file of several pages is not one picture."""
    frames = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (0, 255)]
    assert reason(save(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    """The header alone decides: this file has no pixels at all."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    assert reason(data) == "too_many_pixels"


def test_too_many_bytes_are_refused_unread(tmp_path: Path) -> None:
    """A file over the limit is not read, however large."""
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refused_file(path) == "too_large"


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """Without the right to read there is nothing to decode."""
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert refused_file(path) == "unreadable"


def test_a_file_that_its_owner_holds_is_refused(tmp_path: Path) -> None:
    """A lease on it could be renewed for ever, and says nothing of the machine."""
    path = tmp_path / "held.png"
    path.write_bytes(b"x")
    with leased(path):
        assert refused_file(path) == "unreadable"


def test_only_regular_files_are_opened(tmp_path: Path, mnist: np.ndarray) -> None:
    """A link, a FIFO, a folder, a socket or a device is refused at once, without waiting, and it says which it is."""
    target = tmp_path / "real.png"
    target.write_bytes(save(Image.fromarray(mnist[0])))
    (tmp_path / "link.png").symlink_to(target)
    os.mkfifo(tmp_path / "FIFO.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket.png"))
        for name in ("link", "FIFO", "folder", "socket"):
            with pytest.raises(InvalidImage, match=rf"Received: a {name}\.") as caught:
                load_image(tmp_path / f"{name}.png", MAX_BYTES, MAX_PIXELS)
            assert caught.value.reason == "not_a_regular_file"
    with pytest.raises(InvalidImage, match="Received: a device"):
        load_image("/dev/zero", MAX_BYTES, MAX_PIXELS)


def test_a_missing_file_is_the_machines_matter(tmp_path: Path) -> None:
    """A file that is gone says nothing about an image."""
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "gone.png", MAX_BYTES, MAX_PIXELS)


def test_a_refusal_names_the_content(tmp_path: Path) -> None:
    """The digest of what was read is known even if it could not be decoded."""
    path = tmp_path / "a.png"
    path.write_bytes(b"hello")
    with pytest.raises(InvalidImage) as caught:
        load_image(path, MAX_BYTES, MAX_PIXELS)
    assert caught.value.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_any_bytes_give_an_image_or_a_refusal(mnist: np.ndarray) -> None:
    """Damaged files never raise anything else."""
    random = np.random.default_rng(4)
    sources = [save(on_paper(mnist[0], (64, 64), 50).convert("RGB"), kind) for kind in FORMATS]
    for number in range(300):
        data = bytearray(sources[number % len(sources)])
        for position in random.integers(0, len(data), 4):
            data[position] = random.integers(256)
        try:
            pixels = load_content(bytes(data), MAX_PIXELS).pixels
        except InvalidImage:
            continue
        assert pixels.shape == (28, 28)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (2, 2), (5, 41), (41, 5), (3, 500)])
def test_odd_shapes_give_an_image_or_a_refusal(size: tuple[int, int]) -> None:
    """Slivers of pictures do not break anything."""
    values = np.random.default_rng(5).integers(0, 256, size[::-1], np.uint8)
    with contextlib.suppress(InvalidImage):
        assert load_content(save(Image.fromarray(values)), MAX_PIXELS).pixels.shape == (28, 28)


@pytest.mark.parametrize("corner", [(4, 4), (4, 296), (296, 4), (296, 296)])
def test_a_digit_in_a_corner_of_the_page_is_no_edge(corner: tuple[int, int]) -> None:
    """What lies near the edge of the paper without touching it is read like any other digit."""
    page = np.full((400, 400), 255, np.uint8)
    top, left = corner
    page[top + 10 : top + 90, left + 45 : left + 57] = 20
    pixels = pixels_of(Image.fromarray(page), "JPEG", quality=85)
    ink = np.argwhere(pixels > 127)
    height, width = ink.max(axis=0) - ink.min(axis=0) + 1
    assert 19 <= height <= 21
    assert 2 <= width <= 5
