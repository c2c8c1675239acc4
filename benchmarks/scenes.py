"""The scans of `benchmarks.hands` as mishaps and screens deliver them: cut badly, under a hand, drawn on a tablet, ..."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from benchmarks.devset import Case, Mnist, Sets, png
from benchmarks.hands import cases, cut, jpeg

LIGHTEST = 0.12  # of the darkest ink; what is lighter is the scanned paper's grain


def broken(_: Mnist) -> Iterator[Case]:
    """Written larger by a dry pen, which leaves gaps by chance, or in stripes."""

    def fail(picture: np.ndarray, random: np.random.Generator) -> bytes:
        side = int(random.integers(120, 320))
        ink = _lay(picture, (side, side), 0.65 * side, (0.5, 0.5))
        if random.random() < 0.5:
            flow = _smooth((side, side), 0.035 * side, random) + random.uniform(0.6, 1.2)
            ink *= np.clip(2 * flow, 0, 1)
        else:
            angle, step = random.uniform(0, np.pi), 0.65 * side * random.uniform(0.07, 0.16)
            y, x = np.indices((side, side))
            along = (x * np.cos(angle) + y * np.sin(angle)) / step + 0.3 * _smooth((side, side), 0.15 * side, random)
            ink *= along % 1 > random.uniform(0.15, 0.35)
        return png(_clip(245 - 195 * ink + random.normal(0, 2, ink.shape)))

    yield from cases("broken", fail)


def slivers(_: Mnist) -> Iterator[Case]:
    """Cut closely, with parts of the digits to the left and right."""

    def cut_badly(picture: np.ndarray, random: np.random.Generator) -> bytes:
        digit = cut(picture)
        tall = len(digit)
        above, below = (random.uniform(0, 0.2, 2) * tall).astype(int)
        beside = (random.uniform(0.12, 0.35, 2) * tall).astype(int)
        sheet = Image.fromarray(np.pad(digit, ((above, below), beside), constant_values=int(np.median(picture))))
        pen, darkest = ImageDraw.Draw(sheet), int(picture.min())
        for edge in (0, sheet.width):
            deep, long = random.uniform(0.02, 0.07) * tall, random.uniform(0.12, 0.4) * tall
            top = above + random.uniform(0, 0.6) * tall
            pen.ellipse((edge - deep, top, edge + deep, top + long), fill=darkest)
        return jpeg(sheet, random)

    yield from cases("slivers", cut_badly)


def under_a_hand(_: Mnist) -> Iterator[Case]:
    """Photographed with the shadows of fingers on the page."""

    def photograph(picture: np.ndarray, random: np.random.Generator) -> bytes:
        size = 420, 480
        middle = random.uniform(0.4, 0.6, 2)
        page = 235 - 190 * _lay(picture, size, random.uniform(130, 280), (middle[0], middle[1]))
        shadow = Image.new("L", size)
        for _ in range(int(random.integers(2, 6))):
            tip = random.uniform(0.25, 1, 2) * size
            base = tip + random.uniform(-0.2, 0.9, 2) * size
            wide = random.uniform(35, 110)
            ImageDraw.Draw(shadow).line([*tip, *base], fill=255, width=int(wide))
            ImageDraw.Draw(shadow).ellipse([*(tip - wide / 2), *(tip + wide / 2)], fill=255)
        shadow = shadow.filter(ImageFilter.GaussianBlur(random.uniform(3, 18)))
        page *= 1 - random.uniform(0.25, 0.5) / 255 * np.asarray(shadow, np.float32)
        return _photograph(page, random)

    yield from cases("hand", photograph)


def on_a_table(_: Mnist) -> Iterator[Case]:
    """A sheet photographed on a table that is seen around it: black, of dark wood, or of light."""

    def photograph(picture: np.ndarray, random: np.random.Generator) -> bytes:
        longer = int(random.integers(400, 800))
        width, height = (longer, 3 * longer // 4) if random.random() < 0.5 else (3 * longer // 4, longer)
        table = random.choice([30.0, 70.0, 150.0])
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        wobble = _smooth((height, width), longer / 6, random)
        page = table * (1 + 0.15 * np.sin(random.uniform(20, 80) * (x + random.uniform(-1, 1) * y) + 2 * wobble))
        unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        corners = unit + (1 - 2 * unit) * random.uniform(-0.1, 0.13, (4, 2))
        sheet = Image.new("L", (width, height))
        ImageDraw.Draw(sheet).polygon((corners * [width, height]).ravel().tolist(), fill=255)
        middle = corners.mean(axis=0)
        paper = random.uniform(215, 250)
        ink = _lay(picture, (width, height), random.uniform(0.2, 0.55) * min(width, height), (middle[0], middle[1]))
        covered = np.asarray(sheet, np.float32) / 255
        page += covered * (paper - (paper - 45) * ink - page)
        return _photograph(page, random)

    yield from cases("table", photograph)


def on_a_tablet(_: Mnist) -> Iterator[Case]:
    """Drawn on a tablet's canvas of 1200x900, by a brush of one colour: its strokes are flat, smooth and mostly wider."""

    def paint(picture: np.ndarray, random: np.random.Generator) -> bytes:
        tall, middle = random.uniform(60, 180), random.uniform(0.4, 0.6, 2)
        ink = Image.fromarray(_clip(255 * _lay(picture, (300, 225), tall, (middle[0], middle[1]))))
        ink = ink.filter(ImageFilter.MaxFilter(1 + 2 * int(random.integers(0, 3))))
        smooth = ink.resize((1200, 900), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(tall / 20))
        covered = np.clip((np.asarray(smooth, np.float32) - 70) / 25, 0, 1)[..., None]
        dark = [(0, 0, 0), (20, 60, 200), (200, 30, 30), (30, 140, 60), (120, 40, 160)][int(random.integers(5))]
        canvas, brush = ((25, 25, 30), (240, 240, 240)) if random.random() < 0.2 else ((255, 255, 255), dark)
        return png(_clip(covered * brush + (1 - covered) * canvas))

    yield from cases("tablet", paint)


def over_a_box(_: Mnist) -> Iterator[Case]:
    """In a box of a form that is too small on one side or two, so that the digit touches or crosses its lines."""

    def fill_in(picture: np.ndarray, random: np.random.Generator) -> bytes:
        paper, digit = int(np.median(picture)), cut(picture)
        pen, room = int(random.integers(1, 4)), int(random.integers(6, 18))
        gaps = (random.uniform(0.05, 0.3, 4) * max(digit.shape)).astype(int)  # above, below, left, right
        for side in random.permutation(4)[: int(random.integers(1, 3))]:
            gaps[side] = -int(random.uniform(0, 0.12) * max(digit.shape))
        margins = np.maximum(gaps, 0) + pen + room
        sheet = Image.fromarray(np.pad(digit, (margins[:2], margins[2:]), constant_values=paper))
        top, bottom, left, right = margins - gaps - pen
        form = Image.new("L", sheet.size, 255)
        box = (left, top, sheet.width - 1 - right, sheet.height - 1 - bottom)
        ImageDraw.Draw(form).rectangle(tuple(map(int, box)), outline=int(random.uniform(0, 0.6) * paper), width=pen)
        return jpeg(ImageChops.darker(sheet, form), random)

    yield from cases("over", fill_in)


def on_ruled_paper(_: Mnist) -> Iterator[Case]:
    """Photographed on ruled or squared paper, whose lines are paler, a little askew, and anywhere."""

    def photograph(picture: np.ndarray, random: np.random.Generator) -> bytes:
        tall, squared = float(np.exp(random.uniform(*np.log([170, 400])))), random.random() < 0.5
        height = round(tall * random.uniform(1.3, 2.5))
        width = round(height * random.uniform(0.8, 1.25))
        middle = random.uniform(0.42, 0.58, 2)
        ink = random.uniform(0.5, 0.9) * _lay(picture, (width, height), tall, (middle[0], middle[1]))
        apart, slope = tall * (random.uniform(0.5, 1.3) if squared else random.uniform(0.9, 1.8)), random.normal(0, 0.025)
        pen = max(0.8, apart * random.uniform(0.015, 0.045))
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        lines = np.zeros((height, width), np.float32)
        for across in (y + slope * x, x - slope * y)[: 1 + squared]:
            off = np.abs((across + random.uniform(0, apart)) % apart - apart / 2)
            lines = np.maximum(lines, np.clip(pen / 2 + 0.5 - off, 0, 1))
        return _photograph(random.uniform(200, 245) * (1 - np.maximum(ink, random.uniform(0.12, 0.5) * lines)), random)

    yield from cases("ruled", photograph)


def _lay(picture: np.ndarray, size: tuple[int, int], tall: float, middle: tuple[float, float]) -> np.ndarray:
    """Lay a scan's ink onto a page: (height, width) float32, 0 to 1.

    Args:
        picture: the scan.
        size: width and height of the page.
        tall: of the digit, in pixels.
        middle: where the digit's is, as shares of width and height.

    """
    paper, darkest = float(np.median(picture)), float(np.quantile(picture, 0.005))
    ink = np.clip(((paper - cut(picture)) / max(paper - darkest, 30) - LIGHTEST) / (1 - 2 * LIGHTEST), 0, 1)
    digit = Image.fromarray((255 * ink).astype(np.uint8))
    digit = digit.resize((max(3, round(digit.width * tall / digit.height)), round(tall)), Image.Resampling.BICUBIC)
    page = Image.new("L", size)
    page.paste(digit, (round(middle[0] * size[0] - digit.width / 2), round(middle[1] * size[1] - digit.height / 2)))
    return np.asarray(page, np.float32) / 255


def _smooth(shape: tuple[int, int], grain: float, random: np.random.Generator) -> np.ndarray:
    """Noise of deviation 1 that changes over `grain` pixels, (height, width) float32."""
    coarse = random.standard_normal((max(2, round(shape[0] / grain)), max(2, round(shape[1] / grain))), np.float32)
    fine = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))
    smooth: np.ndarray = fine / fine.std()
    return smooth


def _photograph(page: np.ndarray, random: np.random.Generator) -> bytes:
    """In light from one side, a little blurred and noisy, as a JPEG."""
    height, width = page.shape
    side, y, x = random.uniform(0, 2 * np.pi), *np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lit = page * (1 - random.uniform(0.05, 0.2) * (1 + x * np.cos(side) + y * np.sin(side)))
    picture = Image.fromarray(_clip(lit + random.normal(0, random.uniform(1, 4), page.shape)))
    return jpeg(picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, max(page.shape) / 700))), random)


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


SETS: Sets = {
    "broken": broken,
    "slivers": slivers,
    "hand": under_a_hand,
    "table": on_a_table,
    "tablet": on_a_tablet,
    "over a box": over_a_box,
    "ruled": on_ruled_paper,
}
