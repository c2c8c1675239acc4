"""Real handwriting by people whose hands no training sees, `daemon.training.scans.JUDGES`, as programs deliver it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.devset import Case, Mnist, Sets, png, seeded
from daemon.training.scans import JUDGES, Scans, load_scans

REPOSITORY = Path(__file__).parent.parent
SCANS = "datasets/scans.npz"
INKED = 0.4  # of the way from the paper to the darkest ink: what is darker belongs to the digit
FRAME = 50  # pixels
MARKER = 9  # pixels that it writes wider than the pen did


def judged() -> Scans:
    """The scans by JUDGES."""
    return load_scans(SCANS, REPOSITORY).by(JUDGES)


def cut(picture: np.ndarray) -> np.ndarray:
    """The picture cut to its ink, as programs that take digits out of forms deliver it."""
    paper, darkest = float(np.median(picture)), float(np.quantile(picture, 0.005))
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.7)))
    inked = blurred < paper - INKED * (paper - darkest)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def as_they_are(_: Mnist) -> Iterator[Case]:
    """The scans, about 100x100."""
    yield from cases("scans", lambda picture, _: png(picture))


def cropped(_: Mnist) -> Iterator[Case]:
    """The scans, cut to their ink."""
    yield from cases("cropped", lambda picture, _: png(cut(picture)))


def coarse(_: Mnist) -> Iterator[Case]:
    """The scans, as a telephone sees a digit from afar: 20 to 48 pixels, blurred, pale, JPEG."""

    def shrink(picture: np.ndarray, random: np.random.Generator) -> bytes:
        margin = int(random.integers(2, 12))
        digit = np.pad(cut(picture), margin, constant_values=int(np.median(picture)))
        small = Image.fromarray(digit)
        small.thumbnail((int(random.integers(20, 49)),) * 2, Image.Resampling.BOX)
        small = small.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.8)))
        pale = random.uniform(0.6, 1)
        return jpeg(small.point(lambda level: 225 - pale * (225 - level)), random)

    yield from cases("coarse", shrink)


def framed(_: Mnist) -> Iterator[Case]:
    """The scans as thin strokes, stretched until they touch all four sides of a small frame."""

    def stretch(picture: np.ndarray, _: np.random.Generator) -> bytes:
        thin = Image.fromarray(cut(picture))
        if min(thin.size) > FRAME // 2:
            thin = thin.filter(ImageFilter.MaxFilter(3))
        inked = cut(np.asarray(thin))
        return png(np.asarray(Image.fromarray(inked).resize((FRAME, FRAME), Image.Resampling.BILINEAR)))

    yield from cases("framed", stretch)


def bold(_: Mnist) -> Iterator[Case]:
    """The scans as a marker would have written them, cut to their ink."""

    def thicken(picture: np.ndarray, _: np.random.Generator) -> bytes:
        inked = Image.fromarray(np.pad(cut(picture), MARKER // 2, mode="edge"))
        return png(np.asarray(inked.filter(ImageFilter.MinFilter(MARKER))))

    yield from cases("bold", thicken)


def shadowed(_: Mnist) -> Iterator[Case]:
    """The scans cut to their ink, as a telephone sees them, at 24 to 300 pixels: in light from one side or in a shadow."""

    def photograph(picture: np.ndarray, random: np.random.Generator) -> bytes:
        longer, side, edge = (
            np.exp(random.uniform(*np.log([24, 300]))),
            random.uniform(0, 2 * np.pi),
            random.uniform(-0.3, 0.3),
        )
        digit = Image.fromarray(cut(picture))
        size = [round(longer * length / max(digit.size)) for length in digit.size]
        seen = np.asarray(digit.resize((max(6, size[0]), max(6, size[1])), Image.Resampling.BICUBIC, reducing_gap=1))
        y, x = np.meshgrid(*(np.linspace(-0.5, 0.5, length) for length in seen.shape), indexing="ij")
        light = 0.75 + 0.45 * (x * np.cos(side) + y * np.sin(side))
        if random.random() < 0.5:
            light *= 1 - 0.45 / (1 + np.exp(40 * (y * np.cos(side) - x * np.sin(side) + edge)))
        seen = np.clip(seen * light + random.normal(0, 4, seen.shape), 0, 255).astype(np.uint8)
        return jpeg(Image.fromarray(seen).filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.5 + longer / 300))), random)

    yield from cases("shadowed", photograph)


def faint(_: Mnist) -> Iterator[Case]:
    """The scans as a hard pencil writes: 12 to 35 % of the ink, larger, on paper with grain."""

    def pale(picture: np.ndarray, random: np.random.Generator) -> bytes:
        paper = float(np.median(picture))
        ink = (paper - picture.astype(np.float32)) * random.uniform(0.12, 0.35) * 255 / max(60.0, paper - int(picture.min()))
        sheet = Image.fromarray(paper - ink)
        scale = random.uniform(1, 3)
        sheet = sheet.resize((round(scale * sheet.width), round(scale * sheet.height)), Image.Resampling.BILINEAR)
        grain = random.normal(0, 3, (sheet.height, sheet.width))
        return png(np.clip(np.asarray(sheet) + grain, 0, 255).astype(np.uint8))

    yield from cases("faint", pale)


def boxed(_: Mnist) -> Iterator[Case]:
    """The scans in a box of a form, cut out with one to four sides of it, or above a line, which may be dotted."""

    def fill_in(picture: np.ndarray, random: np.random.Generator) -> bytes:
        paper, digit = int(np.median(picture)), cut(picture)
        gaps = (random.uniform(0.02, 0.3, 4) * max(digit.shape)).astype(int)  # above, below, left, right
        pen, room = int(random.integers(1, 4)), int(random.integers(2, 18))
        margins = gaps + pen + room
        sheet = Image.fromarray(np.pad(digit, (margins[:2], margins[2:]), constant_values=paper))
        form, printed = ImageDraw.Draw(sheet), int(random.uniform(0, 0.6) * paper)
        box = (room, room, sheet.width - room, sheet.height - room)
        if random.random() < 0.2:
            for start in np.arange(box[0], box[2], random.choice([1, 4]) * pen):
                form.line([(start, box[3]), (start + pen, box[3])], fill=printed, width=pen)
            return jpeg(sheet, random)
        form.rectangle(box, outline=printed, width=pen)
        inside, order = (room + pen, room + pen, box[2] - pen, box[3] - pen), random.permutation(4)
        hidden = order[int(random.integers(1, 5)) :]
        sides = [inside[side] if side in hidden else (0, 0, *sheet.size)[side] for side in range(4)]
        return jpeg(sheet.crop((sides[0], sides[1], sides[2], sides[3])), random)

    yield from cases("boxed", fill_in)


def with_margins(_: Mnist) -> Iterator[Case]:
    """The scans cut to their ink but for margins of up to 6 %, on some sides none, at 44 to 240 pixels, as PNG or JPEG."""

    def cut_loosely(picture: np.ndarray, random: np.random.Generator) -> bytes:
        digit = cut(picture)
        margins = (random.uniform(0, 0.06, 4) * max(digit.shape) * (random.random(4) < 0.7)).round().astype(int)
        loose = Image.fromarray(np.pad(digit, (margins[:2], margins[2:]), constant_values=int(np.median(picture))))
        scale = float(np.exp(random.uniform(*np.log([44, 240])))) / max(loose.size)
        size = max(8, round(scale * loose.width)), max(8, round(scale * loose.height))
        seen = loose.resize(size, Image.Resampling.BICUBIC, reducing_gap=1)
        return jpeg(seen, random) if random.random() < 0.5 else png(np.asarray(seen))

    yield from cases("margins", cut_loosely)


def jpeg(picture: Image.Image, random: np.random.Generator) -> bytes:
    """The picture as a JPEG of some quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(random.integers(60, 95)))
    return buffer.getvalue()


def cases(name: str, show: Callable[[np.ndarray, np.random.Generator], bytes]) -> Iterator[Case]:
    """Each scan by JUDGES as `show` delivers it; a case's kind is its writer."""
    scans = judged()
    for index, (picture, digit, writer) in enumerate(zip(scans.pictures, scans.digits, scans.writers, strict=True)):
        yield Case(show(picture, seeded(name, index)), int(digit), str(writer))


SETS: Sets = {
    "scans": as_they_are,
    "cropped": cropped,
    "coarse": coarse,
    "framed": framed,
    "bold": bold,
    "shadowed": shadowed,
    "faint": faint,
    "boxed": boxed,
    "margins": with_margins,
}
