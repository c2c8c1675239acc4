"""page.py: a page, and a digit cut out of one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from daemon.reading.components import Component, choose_digit, find_components
from daemon.reading.mnist import Blank
from daemon.reading.normalise import normalise, normalise_all
from daemon.training.scans import JUDGES, load_scans
from tests.conftest import REPOSITORY

SEVEN = [(0, 0), (1, 0), (0.35, 1)]
FIVE = [(1, 0), (0.1, 0), (0, 0.45), (0.6, 0.4), (1, 0.7), (0.6, 1), (0, 0.95)]
ZERO = [(0.5 + 0.5 * np.sin(t), 0.5 - 0.5 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 40)]


def draw(strokes: list[tuple[float, float]], size: tuple[int, int], margin: int, pen: int) -> Image.Image:
    """A digit that fills its picture but for a margin."""
    page = Image.new("L", size, 250)
    inner = [side - 1 - 2 * margin for side in size]
    points = [(margin + x * inner[0], margin + y * inner[1]) for x, y in strokes]
    ImageDraw.Draw(page).line(points, fill=20, width=pen, joint="curve")
    return page


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The share of the ink of two images that both have."""
    return float(np.count_nonzero((a > 100) & (b > 100)) / np.count_nonzero((a > 100) | (b > 100)))


def correlate(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two images are, to a pixel or two; 1 at most."""
    soft = [np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(1.5))).ravel() for one in (a, b)]
    return float(np.corrcoef(*soft)[0, 1])


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
@pytest.mark.parametrize("pen", [2, 4, 6])
@pytest.mark.parametrize("side", [50, 120, 240])
def test_a_digit_cut_to_its_ink_is_read_whole(strokes: list[tuple[float, float]], pen: int, side: int) -> None:
    """Strokes at the picture's border are no rules and no paper's edge; nothing but them touches it."""
    cut = np.asarray(draw(strokes, (side * 2 // 3, side), 0, pen))
    whole = np.pad(cut, side // 3, constant_values=250)
    assert overlap(normalise(whole)[0].pixels, normalise(cut)[0].pixels) > 0.7


@pytest.mark.parametrize("strokes", [FIVE, ZERO], ids=["5", "0"])
@pytest.mark.parametrize("margins", [(2, 4, 0, 3), (4, 0, 4, 0), (6, 6, 0, 6)])
def test_a_digit_cut_out_with_a_margin_on_some_sides_is_read_whole(
    strokes: list[tuple[float, float]], margins: tuple[int, int, int, int]
) -> None:
    """However few sides its ink touches, it is no paper's edge, and the pieces of it are no specks beside one of them."""
    cut = np.asarray(draw(strokes, (100, 140), 0, 4)).copy()
    cut[40:50] = 250  # the pen left out a little, so that there are pieces
    cut = np.pad(cut, (margins[:2], margins[2:]), constant_values=250)
    whole = np.pad(cut, 60, constant_values=250)
    assert max(overlap(normalise(whole)[0].pixels, reading.pixels) for reading in normalise(cut)) > 0.7


def test_weak_strokes_of_a_cut_digit_are_read() -> None:
    """Where the pen pressed less, thin strokes that fill the picture are joined to the rest."""
    cut = np.asarray(draw(ZERO, (50, 50), 0, 2))
    pressed = 0.625 + 0.375 * np.sin(np.arange(50) / 4)
    weak = 250 - ((250 - cut) * pressed[:, None]).astype(np.uint8)
    assert np.corrcoef(normalise(cut)[0].pixels.ravel(), normalise(weak)[0].pixels.ravel())[0, 1] > 0.7


def test_what_a_crop_shows_of_its_neighbours_may_be_left_out() -> None:
    """Slivers along two borders are read with the digit, and at last without."""
    alone = np.asarray(draw(FIVE, (90, 120), 10, 8))
    cut = alone.copy()
    cut[30:55, :4] = cut[60:85, -4:] = 20
    readings = normalise(cut)
    assert correlate(normalise(alone)[0].pixels, readings[0].pixels) < 0.98
    assert correlate(normalise(alone)[0].pixels, readings[-1].pixels) > 0.99
    assert len(normalise(alone)) == 1


@pytest.mark.parametrize("margin", [2, 4, 10])
def test_a_stroke_across_a_narrow_picture_is_no_rule(margin: int) -> None:
    """A rule runs from border to border; the bar of a 7 ends before."""
    near = np.asarray(draw(SEVEN, (60, 90), margin, 3))
    far = np.pad(near, 40, constant_values=250)
    assert overlap(normalise(far)[0].pixels, normalise(near)[0].pixels) > 0.7


def test_a_page_in_a_frame_is_a_page_first() -> None:
    """Lines that cross the whole picture are seen as a form's, and only then as ink."""
    page = draw(FIVE, (200, 200), 60, 10)
    plain = normalise(np.asarray(page))
    lines = ImageDraw.Draw(page)
    for place in (12, 185):
        lines.line((place, 0, place, 200), fill=90, width=2)
        lines.line((0, place, 200, place), fill=90, width=2)
    readings = normalise(np.asarray(page))
    assert overlap(plain[0].pixels, readings[0].pixels) > 0.8
    assert 2 == len(readings)


def test_a_grid_without_a_digit_is_blank() -> None:
    """The other reading does not make ink of rules."""
    page = Image.new("L", (300, 300), 240)
    lines = ImageDraw.Draw(page)
    for place in range(20, 300, 50):
        lines.line((place, 0, place, 300), fill=120, width=2)
        lines.line((0, place, 300, place), fill=120, width=2)
    with pytest.raises(Blank):
        normalise(np.asarray(page))


def test_hatching_that_evens_out_where_paper_is_looked_for_is_no_digit() -> None:
    """Its contrast there is none, which is no end of the program that reads it."""
    hatching = np.tile(np.array([0, 0, 255, 255], np.uint8), (256, 64))
    assert {"not_a_digit"} == {reading.doubt for reading in normalise(hatching)}


def test_doubts_stay_with_their_pictures() -> None:
    """Two digits beside each other, a blot and a digit have the same doubts together as each alone, in any order."""
    digit = np.asarray(draw(SEVEN, (120, 160), 30, 8))
    two = np.hstack([digit, digit])
    blot = np.full((160, 160), 250, np.uint8)
    blot[50:110, 50:110] = 20
    pictures = [two, blot, digit, two, digit]
    alone = [tuple(reading.doubt for reading in normalise(picture)) for picture in pictures]
    assert ["several_digits", "not_a_digit", None] == [doubts[0] for doubts in alone[:3]]
    together = [tuple(reading.doubt for reading in readings) for readings in normalise_all(pictures)]
    assert alone == together


def shaded(sheet: np.ndarray, turn: int) -> np.ndarray:
    """Most of it in a soft shadow that is deeper than the ink."""
    y, x = (np.linspace(-0.5, 0.5, side) for side in sheet.shape)
    across = np.add.outer(y * np.sin(turn * np.pi / 4 + 0.3), x * np.cos(turn * np.pi / 4 + 0.3))
    light = (1 - 0.5 / (1 + np.exp((across - 0.22) * 40))) * (0.75 + 0.45 * across)
    return np.clip(sheet * light, 0, 255).astype(np.uint8)


def test_a_shadow_deeper_than_the_ink_is_no_ink() -> None:
    """Of photographs that lie mostly in a soft shadow nearly all are read as without it, from wherever it falls."""
    alike = 0
    for turn, scan in enumerate(load_scans("datasets/scans.npz", REPOSITORY).by(JUDGES).pictures[::40]):
        sheet = np.pad(scan, 40, mode="edge")
        alike += overlap(normalise(sheet)[0].pixels, normalise(shaded(sheet, turn))[0].pixels) > 0.6
    assert 19 <= alike


def test_a_digit_cut_out_of_a_photograph_under_a_shadow_is_read() -> None:
    """Sharp, blurred or small, one of its readings is that without the shadow, for nearly all, from wherever it falls."""
    alike = 0
    for turn, scan in enumerate(load_scans("datasets/scans.npz", REPOSITORY).by(JUDGES).pictures[::20]):
        rows, columns = np.nonzero(scan < (int(scan.min()) + int(np.median(scan))) // 2)
        cut = Image.fromarray(scan[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
        if turn % 3 == 1:
            cut = cut.resize((cut.width * 3 // 2, cut.height * 3 // 2)).filter(ImageFilter.GaussianBlur(1.5))
        elif turn % 3 == 2:
            cut.thumbnail((36, 36))
        plain = normalise(np.asarray(cut))[0].pixels
        likeness = [correlate(plain, reading.pixels) for reading in normalise(shaded(np.asarray(cut), turn))]
        alike += max(likeness) > 0.8
    assert 43 <= alike


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_faint_pencil_is_read_and_the_grain_of_paper_is_not(strokes: list[tuple[float, float]]) -> None:
    """A stroke that is 19 grey levels darker than its paper is ink; grain of the same depth all over the paper is none."""
    sheet = np.asarray(draw(strokes, (200, 200), 40, 9))
    faint = np.where(sheet < 128, 226, 245).astype(np.uint8)
    assert overlap(normalise(sheet)[0].pixels, normalise(faint)[0].pixels) > 0.8
    grain = np.random.default_rng(1).integers(0, 3, (50, 50)).repeat(4, 0).repeat(4, 1)
    with pytest.raises(Blank):
        normalise((245 - 9 * grain).astype(np.uint8))


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_finger_that_shades_the_digit_is_no_ink(strokes: list[tuple[float, float]]) -> None:
    """A shadow as wide as a bold stroke comes in from the border, joins the digit, and is weaker than it."""
    page = draw(strokes, (200, 240), 60, 8)
    plain = normalise(np.asarray(page))[0].pixels
    shadow = Image.new("L", page.size, 255)
    ImageDraw.Draw(shadow).line([(70, 140), (110, 300)], fill=150, width=30)
    light = np.asarray(shadow.filter(ImageFilter.GaussianBlur(2))) / 255
    shaded = (np.asarray(page) * light).astype(np.uint8)
    assert overlap(plain, normalise(shaded)[0].pixels) > 0.8


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_table_seen_round_a_corner_of_the_sheet_is_no_ink(strokes: list[tuple[float, float]], side: int) -> None:
    """A sheet that was photographed askew ends along a part of two sides, and near the digit."""
    page = draw(strokes, (240, 300), 90, 9)
    plain = normalise(np.asarray(page))[0].pixels
    ImageDraw.Draw(page).polygon([(0, 80), (14, 280), (185, 300), (0, 300)], fill=60)
    photograph = np.asarray(page)
    readings = normalise(photograph if side == 0 else photograph.max() - photograph + photograph.min())
    assert max(overlap(plain, reading.pixels) for reading in readings) > 0.8


def test_pieces_are_joined_in_turn_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is near the one before it, so 1,369 dots beside a stroke belong to it; not each is compared with each."""
    ink = np.zeros((256, 256), np.uint8)
    for i, j in np.ndindex(37, 37):
        ink[60 + 4 * i : 62 + 4 * i, 60 + 4 * j : 62 + 4 * j] = 255
    ink[60:84, 50:58] = 255
    components = find_components(ink) or pytest.fail("it is no texture")
    compared, gaps = [], Component.gaps
    monkeypatch.setattr(Component, "gaps", lambda *ones: compared.append(ones) or gaps(*ones))
    chosen, _ = choose_digit(components)
    assert 1 + 37 * 37 == len(chosen)
    assert 3 * len(chosen) > len(compared)


@pytest.mark.parametrize("strokes", [SEVEN, FIVE, ZERO], ids=["7", "5", "0"])
def test_a_table_round_a_corner_is_no_part_of_a_digit_that_it_comes_nowhere_near(strokes: list[tuple[float, float]]) -> None:
    """However large the digit is, and though what is seen of the table reaches round it."""
    page = draw(strokes, (240, 300), 60, 12)
    plain = normalise(np.asarray(page))[0].pixels
    ImageDraw.Draw(page).polygon([(0, 140), (14, 285), (150, 300), (0, 300)], fill=60)
    assert max(overlap(plain, reading.pixels) for reading in normalise(np.asarray(page))) > 0.8
