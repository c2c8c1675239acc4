"""The development set: pictures of digits as people drop them, and of things that are no digit, all made by code.

Every case comes from a seed of its own, so that the sets are the same on every machine and a set can be cut short
without changing what is left. Digits come from images of MNIST's *training* split that no training sees (they lie in what
`split_validation` holds back) and from Debian's fonts, never from the test split. Fonts and clothes need packages; a set
whose packages are missing is left out, and `missing` says what to install.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

MNIST = Path(__file__).parent.parent / "datasets" / "mnist.npz"
FIRST, LAST = 55_000, 60_000  # of MNIST's training split; no training sees these
CLOTHES = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
CLOTHES_PACKAGE = "dataset-fashion-mnist"
FONT_FOLDER = Path("/usr/share/fonts")
FONTS = {  # handwriting-like; file: Debian package
    "truetype/breip/Breip.ttf": "fonts-breip",
    "opentype/bwht/BecauseWeBuild-Regular.otf": "fonts-bwht",
    "opentype/bwht/BecauseWeConnect-Regular.otf": "fonts-bwht",
    "opentype/bwht/BecauseWeCreate-Regular.otf": "fonts-bwht",
    "opentype/bwht/BecauseWeOrganize-Regular.otf": "fonts-bwht",
    "opentype/comic-neue/ComicNeue-Regular.otf": "fonts-comic-neue",
    "truetype/fifthhorseman/dkg.ttf": "fonts-dkg-handwriting",
    "truetype/humor-sans/Humor-Sans.ttf": "fonts-humor-sans",
    "opentype/havana/Havana-Regular.otf": "fonts-havana",
    "opentype/kaushanscript/KaushanScript-Regular.otf": "fonts-kaushanscript",
    "truetype/klee/KleeOne-Regular.ttf": "fonts-klee",
    "truetype/kristi/Kristi.ttf": "fonts-kristi",
    "truetype/sjfonts/Delphine.ttf": "fonts-sjfonts",
    "truetype/sjfonts/SteveHand.ttf": "fonts-sjfonts",
    "truetype/tomsontalks/TomsonTalks.ttf": "fonts-tomsontalks",
    "truetype/rufscript/Rufscript010.ttf": "fonts-rufscript",
    "opentype/dancingscript/DancingScript-Regular.otf": "fonts-dancingscript",
    "truetype/yusei-magic/YuseiMagic-Regular.ttf": "fonts-yusei-magic",
    "truetype/kiloji/kiloji.ttf": "fonts-kiloji",
    "truetype/dustin/Domestic_Manners.ttf": "fonts-dustin",
    "truetype/aoyagi-soseki/aoyagi-soseki.ttf": "fonts-aoyagi-soseki",
}
LETTERS = "AEFHKMNPRTWXafhkmnrwx"  # none is some digit's usual shape, as O, l, S, Z, b, g and q are

PAPER_KINDS = (
    "white", "cream", "grey", "ruled", "grid", "shading", "shadow", "pencil", "coloured", "jpeg", "tiny", "large",
    "off-centre", "turned", "tilted", "transparent", "phone", "screenshot", "form", "board", "specks", "edge",
)  # fmt: skip
FORMAT_KINDS = (
    "L", "RGB", "RGBA opaque", "RGBA dark on nothing", "RGBA light on nothing", "LA", "P", "P transparent", "1", "16 bit",
    "16 bit TIFF", "CMYK JPEG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "inverted", "EXIF 3", "EXIF 6", "EXIF 8", "EXIF 2",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One file of a set: its bytes, the digit to read (None: there is none), and what is special about it."""

    data: bytes
    digit: int | None
    kind: str


class Mnist:
    """The images of MNIST's training split that evaluation may use."""

    def __init__(self) -> None:
        with np.load(MNIST, allow_pickle=False) as file:
            self.x: np.ndarray = file["x_train"][FIRST:LAST]
            self.y: np.ndarray = file["y_train"][FIRST:LAST]


def missing() -> list[str]:
    """The Debian packages that some set needs and this machine lacks."""
    packages = {package for file, package in FONTS.items() if not (FONT_FOLDER / file).exists()}
    if not CLOTHES.exists():
        packages.add(CLOTHES_PACKAGE)
    return sorted(packages)


def fonts() -> list[str]:
    """Those of FONTS that are installed."""
    return [file for file in FONTS if (FONT_FOLDER / file).exists()]


def seeded(name: str, index: int) -> np.random.Generator:
    """The random numbers of one case."""
    return np.random.default_rng([zlib.crc32(name.encode()), index])


# --- digits and letters as coverage: (height, width) float32, 1 where there is ink --------------------------


def sharpen(pixels: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a 28x28 image to side x side with edges as crisp as a pen's."""
    big = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    gain = max(1.0, side / 28 / 1.5)
    return np.clip((big - 0.5) * gain + 0.5, 0, 1)


def render(text: str, font: str, side: int) -> np.ndarray:
    """Draw text with one of FONTS so that it fits a square of side x side with a margin."""
    face = ImageFont.truetype(str(FONT_FOLDER / font), side)
    left, top, right, bottom = face.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), text, fill=255, font=face)
    canvas = canvas.crop(canvas.getbbox())
    scale = side * 20 / 28 / max(canvas.size)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    square = Image.new("L", (side, side))
    square.paste(canvas.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(square, np.float32) / 255


def continental(pixels: np.ndarray, digit: int, random: np.random.Generator) -> np.ndarray:
    """Give a 1 its flag and perhaps its foot, and a 7 its bar."""
    scale = 8
    canvas = Image.fromarray(pixels).resize((28 * scale, 28 * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    rows, columns = np.nonzero(pixels > 127)
    width = round(scale * np.clip(len(rows) / 40, 1.5, 3.5))
    top, bottom = rows.min(), rows.max()

    def column(row: int, side: float) -> float:
        return float(np.quantile(columns[rows == row], side)) + 0.5 if (rows == row).any() else 14.0

    def stroke(x0: float, y0: float, x1: float, y1: float) -> None:
        points = [(x0 * scale, y0 * scale), (x1 * scale, y1 * scale)]
        draw.line(points, fill=255, width=width)
        for x, y in points:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)

    if digit == 7:
        row = round(top + (bottom - top) * random.uniform(0.45, 0.6))
        x, reach, rise = column(row, 0.5), random.uniform(2.5, 4), random.uniform(-1, 1)
        stroke(x - reach, row + 0.5 + rise, x + reach, row + 0.5 - rise)
    else:
        x = column(top, 0.5)
        stroke(x, top + 1.0, x - random.uniform(3, 7), top + 1.0 + random.uniform(3, 7))
        if random.random() < 0.4:
            x, reach = column(bottom, 0.5), random.uniform(2.5, 4.5)
            stroke(x - reach, bottom + 0.0, x + reach, bottom + 0.0)
    return np.asarray(canvas.resize((56, 56), Image.Resampling.BOX).crop((0, 0, 56, 56)))


# --- paper --------------------------------------------------------------------------------------------------


def page(coverage: np.ndarray | None, kind: str, strength: int, random: np.random.Generator) -> bytes:  # noqa: C901, PLR0912 - one branch a kind
    """A file of ink on paper.

    Args:
        coverage: of the ink, a square in which the digit has MNIST's margins; None leaves the page blank.
        kind: one of PAPER_KINDS, what is special about this page; all else is mild.
        strength: of that, 1 to 3.
        random: of this case.

    """
    portrait = random.random() < 0.5
    long = random.uniform(300, 1100)
    if kind == "tiny":
        long = random.uniform(140, 170) - 20 * strength
    elif kind == "large":
        long = 750 * strength + random.uniform(0, 500)  # doubled below
    short = long * random.uniform(0.7, 1)
    width, height = (round(short), round(long)) if portrait else (round(long), round(short))
    share = random.uniform(0.45, 0.9)  # of the shorter side: the digit's 28x28 square
    if kind in ("off-centre", "phone", "edge", "large"):
        share = random.uniform(0.65, 0.75) - 0.1 * strength
    if kind == "form":
        share = random.uniform(0.75, 0.95)

    dark = kind == "board"
    paper, ink = _colours(kind, strength, random)
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = 255 * paper
    if kind in ("ruled", "grid"):
        _rules(canvas, kind, strength, share, random)
    frame = _form(canvas, strength, share, random) if kind == "form" else None
    if coverage is not None:
        alpha = _place(coverage, (width, height), share, kind, strength, frame, random)
        if kind == "pencil":
            grain = _smooth(random.normal(0, 1, (height, width)), 0.7 * max(1, width / 400))
            alpha = alpha * np.clip(0.85 + 0.25 * strength * grain, 0.1, 1)
        canvas += alpha[..., None] * (255 * ink - canvas)
    if kind in ("shading", "phone"):
        canvas *= _shading(canvas.shape, strength, random)
    if kind in ("shadow", "phone") or (kind == "edge" and random.random() < 0.3):
        canvas *= _shadow(canvas.shape, strength if kind == "shadow" else 1, random)
    if kind == "specks":
        _specks(canvas, strength, dark, random)
    if kind == "edge":
        _edge(canvas, strength, random)
    if kind not in ("screenshot", "transparent"):
        grain = 1 + 1.5 * strength if kind in ("jpeg", "phone", "pencil", "board") else 1.5
        canvas += random.normal(0, grain, (height, width, 1))
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if kind == "large":
        picture = picture.resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    elif kind not in ("screenshot", "transparent", "tiny") and random.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.0016 * long)))
    return _save_page(picture, kind, strength, random, None if coverage is None else alpha)


def _colours(kind: str, strength: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paper and ink, each (3,) in 0..1."""
    paper = np.full(3, random.uniform(0.92, 1.0))
    ink = np.array([0.08, 0.08, 0.12]) + random.uniform(0, 0.2)
    if kind == "cream":
        paper = np.array([0.98, 0.94 - 0.03 * strength, 0.86 - 0.08 * strength])
    elif kind in ("grey", "edge"):
        paper = np.full(3, 0.9 - 0.12 * strength) if kind == "grey" else paper
    elif kind == "pencil":
        ink = np.full(3, 0.3 + 0.12 * strength)
    elif kind == "coloured":
        palette = (
            (0.1, 0.2, 0.7),
            (0.75, 0.1, 0.15),
            (0.1, 0.5, 0.2),
            (0.45, 0.2, 0.6),
            (0.85, 0.35, 0.1),
            (0.1, 0.6, 0.7),
        )
        ink = np.array(palette[random.integers(len(palette))]) * (0.7 + 0.15 * strength)
    elif kind == "board":
        paper, ink = np.array([0.1, 0.16, 0.13]) + 0.04 * strength, np.full(3, 0.95 - 0.1 * strength)
    elif kind == "transparent" and random.random() < 0.3:
        ink = np.full(3, random.uniform(0.9, 1))  # light ink, meant for a dark page
    elif kind == "screenshot":
        paper = np.full(3, 1.0) if random.random() < 0.6 else np.full(3, 0.12)
        ink = 1 - paper * 0.95
    return paper, ink


def _place(
    coverage: np.ndarray,
    size: tuple[int, int],
    share: float,
    kind: str,
    strength: int,
    frame: tuple[float, float, float, float] | None,
    random: np.random.Generator,
) -> np.ndarray:
    """Warp the ink onto the page: (height, width) float32 in 0..1."""
    side = share * min(size)
    if frame is not None:
        side = 0.98 * min(frame[2] - frame[0], frame[3] - frame[1])
    angle = np.radians(random.uniform(-4, 4))
    if kind == "turned":
        angle = np.radians(random.choice((-1, 1)) * random.uniform(4, 7) * strength / 1.4)
    tilt = 0.02 + (0.06 * strength if kind in ("tilted", "phone") else 0)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2
    corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners += random.uniform(-tilt, tilt, (4, 2)) * side
    room = np.maximum(0, (np.array(size) - 0.76 * side) / 2 - 0.04 * min(size))  # the digit itself stays on the page
    reach = 0.9 if kind in ("off-centre", "phone") else 0.35
    centre = np.array(size) / 2 + random.uniform(-reach, reach, 2) * room
    if frame is not None:
        centre = np.array([frame[0] + frame[2], frame[1] + frame[3]]) / 2 + random.uniform(-0.04, 0.04, 2) * side
    corners += centre
    source = Image.fromarray((255 * coverage).astype(np.uint8))
    while source.width > 2 * side:
        source = source.reduce(2)
    edge = source.width
    coefficients = _perspective(corners, np.array([[0, 0], [edge, 0], [edge, edge], [0, edge]], float))
    warped = source.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC)
    return np.asarray(warped, np.float32) / 255


def _perspective(from_points: np.ndarray, to_points: np.ndarray) -> list[float]:
    rows, values = [], []
    for (x, y), (u, v) in zip(from_points, to_points, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return list(np.linalg.solve(np.array(rows), np.array(values)))


def _rules(canvas: np.ndarray, kind: str, strength: int, share: float, random: np.random.Generator) -> None:
    """Rules or a grid, a little askew, drawn at twice the size and reduced."""
    height, width = canvas.shape[:2]
    layer = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(layer)
    spacing = 2 * share * min(width, height) * random.uniform(0.3, 0.8)
    pen = max(2, round(2 * max(width, height) / 400 * random.uniform(0.7, 1.5)))
    slope = np.tan(np.radians(random.uniform(-2, 2)))
    reach = 2 * (width + height)
    for position in np.arange(random.uniform(0, spacing) - reach, reach, spacing):
        draw.line((0, position, 2 * width, position + slope * 2 * width), fill=255, width=pen)
        if kind == "grid":
            draw.line((position, 0, position - slope * 2 * height, 2 * height), fill=255, width=pen)
    blue = np.array([90, 130, 210]) if random.random() < 0.7 else np.array([130, 130, 130])
    alpha = np.asarray(layer.reduce(2), np.float32)[..., None] / 255 * (0.25 + 0.2 * strength)
    canvas += alpha * (blue - canvas)


def _form(canvas: np.ndarray, strength: int, share: float, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of a form, cut out so that one or more of its lines are still there; returns the box."""
    height, width = canvas.shape[:2]
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    pen = max(1, round(side / 120 * random.uniform(1, 2.5)))
    colour = float(random.uniform(0, 150))
    for number in random.permutation(4)[: 1 + strength]:
        if number < 2:
            x = round(box[0] if number == 0 else box[2])
            canvas[:, max(0, x - pen // 2) : x - pen // 2 + pen] = colour
        else:
            y = round(box[1] if number == 2 else box[3])
            canvas[max(0, y - pen // 2) : y - pen // 2 + pen] = colour
    inset = 0.02 * side + pen
    return box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset


def _shading(shape: tuple[int, ...], strength: int, random: np.random.Generator) -> np.ndarray:
    height, width = shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = random.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle) + random.uniform(-0.3, 0.3) * (x * x + y * y)
    return (1 - 0.11 * strength * (1 + ramp))[..., None].clip(0.15, 1).astype(np.float32)


def _shadow(shape: tuple[int, ...], strength: int, random: np.random.Generator) -> np.ndarray:
    height, width = shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = random.uniform(0, 2 * np.pi)
    distance = x * np.cos(angle) + y * np.sin(angle) - random.uniform(-0.5, 0.5)
    softness = random.uniform(8, 40) / strength
    return (1 - (0.15 + 0.12 * strength) / (1 + np.exp(-np.clip(distance * softness, -50, 50))))[..., None].astype(
        np.float32
    )


def _specks(canvas: np.ndarray, strength: int, dark: bool, random: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    layer = Image.new("L", (width, height))
    draw = ImageDraw.Draw(layer)
    for _ in range(4 * strength**2):
        radius = min(width, height) * random.uniform(0.002, 0.004 + 0.004 * strength)
        x, y = random.uniform(0, width), random.uniform(0, height)
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius * random.uniform(0.5, 1)),
            fill=int(random.uniform(120, 255)),
        )
    canvas += np.asarray(layer, np.float32)[..., None] / 255 * ((255 if dark else 20) - canvas)


def _edge(canvas: np.ndarray, strength: int, random: np.random.Generator) -> None:
    """A dark table beyond the paper's edge, on one side or two."""
    height, width = canvas.shape[:2]
    layer = Image.new("L", (width, height))
    draw = ImageDraw.Draw(layer)
    for side in random.permutation(4)[: 1 + (strength == 3)]:
        depth, askew = random.uniform(0.01, 0.03) * (1 + strength), random.uniform(-0.02, 0.02)
        if side < 2:
            near, far = depth * width, (depth + askew) * width
            points = [(0, 0), (near, 0), (far, height), (0, height)]
            points = [(width - x, y) for x, y in points] if side else points
        else:
            near, far = depth * height, (depth + askew) * height
            points = [(0, 0), (0, near), (width, far), (width, 0)]
            points = [(x, height - y) for x, y in points] if side == 3 else points
        draw.polygon(points, fill=255)
    canvas += np.asarray(layer, np.float32)[..., None] / 255 * (255 * random.uniform(0.1, 0.5, 3) - canvas)


def _smooth(values: np.ndarray, radius: float) -> np.ndarray:
    """Blur noise and bring it back to unit variance."""
    blurred = np.asarray(
        Image.fromarray((128 + 40 * values).clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    )
    blurred = blurred.astype(np.float32) - blurred.mean()
    return blurred / max(float(blurred.std()), 1e-3)


def _save_page(
    picture: Image.Image, kind: str, strength: int, random: np.random.Generator, alpha: np.ndarray | None
) -> bytes:
    buffer = io.BytesIO()
    if kind == "transparent" and alpha is not None:
        ink = np.asarray(picture)[np.unravel_index(alpha.argmax(), alpha.shape)]
        layers = np.dstack([np.broadcast_to(ink, (*alpha.shape, 3)), 255 * alpha]).astype(np.uint8)
        Image.fromarray(layers).save(buffer, "PNG")
    elif kind in ("screenshot", "transparent"):
        picture.save(buffer, "PNG")
    elif kind == "phone":
        orientation = int(random.choice((1, 3, 6, 8)))
        exif = Image.Exif()
        exif[0x0112] = orientation
        undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        stored = picture.transpose(undo[orientation]) if orientation in undo else picture
        stored.save(buffer, "JPEG", quality=85, exif=exif)
    elif kind == "jpeg":
        picture.save(buffer, "JPEG", quality=55 - 15 * strength)
    elif kind == "large" or random.random() < 0.7:
        picture.save(buffer, "JPEG", quality=int(random.integers(70, 96)))
    else:
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def shown(data: bytes) -> Image.Image:
    """A case's picture as RGB, upright; what is transparent is bluish."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if picture.mode.startswith("I"):
        picture = picture.point(lambda value: value / 256).convert("L")
    ground = Image.new("RGBA", picture.size, (200, 200, 255))
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


# --- the sets -----------------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def plain(mnist: Mnist) -> Iterator[Case]:
    """MNIST's own images as PNG, 28x28."""
    for pixels, digit in zip(mnist.x, mnist.y, strict=True):
        yield Case(png(pixels), int(digit), "28x28")


def paper(mnist: Mnist) -> Iterator[Case]:
    """Pages of every kind in three strengths, in turn."""
    for index in range(2200):
        random = seeded("paper", index)
        kind, strength = PAPER_KINDS[index % len(PAPER_KINDS)], 1 + index // len(PAPER_KINDS) % 3
        number = index % len(mnist.x)
        coverage = sharpen(mnist.x[number], 448)
        yield Case(page(coverage, kind, strength, random), int(mnist.y[number]), f"{kind} {strength}")


def formats(mnist: Mnist) -> Iterator[Case]:
    """Every mode, bit depth, file format and orientation that people's programs write; half 28x28, half larger."""
    for index in range(2200):
        random = seeded("formats", index)
        kind = FORMAT_KINDS[index % len(FORMAT_KINDS)]
        number = len(mnist.x) - 1 - index % len(mnist.x)
        side = 28 if index // len(FORMAT_KINDS) % 2 == 0 else int(random.integers(60, 400))
        ink = mnist.x[number] if side == 28 else (255 * sharpen(mnist.x[number], side)).astype(np.uint8)
        yield Case(_encode(ink, kind), int(mnist.y[number]), kind)


def _encode(ink: np.ndarray, kind: str) -> bytes:  # noqa: C901 - one branch a format
    """Ink 255 on 0 as a file of one of FORMAT_KINDS; dark on light except where the kind says otherwise."""
    grey = Image.fromarray(255 - ink)
    solid = np.zeros_like(ink)
    buffer = io.BytesIO()
    if kind in ("inverted", "L"):
        (Image.fromarray(ink) if kind == "inverted" else grey).save(buffer, "PNG")
    elif kind in ("RGB", "CMYK JPEG"):
        grey.convert("RGB" if kind == "RGB" else "CMYK").save(buffer, "PNG" if kind == "RGB" else "JPEG", quality=90)
    elif kind == "RGBA opaque":
        grey.convert("RGBA").save(buffer, "PNG")
    elif kind.startswith("RGBA"):
        colour = solid if "dark" in kind else solid + 255
        Image.fromarray(np.dstack([colour, colour, colour, ink])).save(buffer, "PNG")
    elif kind == "LA":
        Image.merge("LA", (Image.fromarray(solid), Image.fromarray(ink))).save(buffer, "PNG")
    elif kind == "P":
        grey.convert("RGB").quantize(16).save(buffer, "PNG")
    elif kind == "P transparent":
        two = Image.fromarray((ink > 127).astype(np.uint8), "P")
        two.putpalette([255, 255, 255, 20, 20, 90])
        two.save(buffer, "PNG", transparency=0)
    elif kind == "1":
        grey.point(lambda value: 255 * (value > 127)).convert("1").save(buffer, "PNG")
    elif kind.startswith("16 bit"):
        wide = Image.fromarray((255 - ink).astype(np.uint16) * 257)
        wide.save(buffer, "TIFF" if "TIFF" in kind else "PNG")
    elif kind.startswith("EXIF"):
        orientation = int(kind[-1])
        exif = Image.Exif()
        exif[0x0112] = orientation
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270,
        }
        grey.transpose(undo[orientation]).save(buffer, "JPEG", quality=92, exif=exif)
    else:
        grey.save(buffer, kind, quality=85)
    return buffer.getvalue()


def small(mnist: Mnist, side: int) -> Iterator[Case]:
    """Digits of side x side pixels that fill their frame, as they are and enlarged in three ways."""
    ways = (None, Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    for index in range(1000):
        random = seeded("small", index)
        pixels, digit = mnist.x[index + 2000], int(mnist.y[index + 2000])
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        middle, reach = (rows[0] + rows[-1] + 1) / 2, (rows[-1] + 1 - rows[0]) / 2
        across = (columns[0] + columns[-1] + 1) / 2
        wide = max(reach, (columns[-1] + 1 - columns[0]) / 2)
        reach = max(reach, wide)
        box = (across - wide, middle - reach, across + wide, middle + reach)
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX, box=_inside(box))
        way = ways[index % 4]
        if way is not None:
            factor = int(random.integers(2, 128 // side))
            picture = picture.resize((side * factor, side * factor), way)
        if random.random() < 0.5:
            picture = picture.point(lambda value: 255 - value)
        yield Case(png(np.asarray(picture)), digit, f"{side}x{side} {'as it is' if way is None else way.name.lower()}")


def _inside(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return max(0.0, box[0]), max(0.0, box[1]), min(28.0, box[2]), min(28.0, box[3])


def lettering(
    characters: str, name: str, count: int
) -> Iterator[tuple[np.ndarray, str, str, str, int, np.random.Generator]]:
    """Characters in every font, on mild paper."""
    faces = fonts()
    for index in range(count * len(faces) // len(FONTS)):
        random = seeded(name, index)
        face = faces[index % len(faces)]
        character = characters[index // len(faces) % len(characters)]
        kind = ("white", "cream", "grey", "shading", "screenshot", "coloured")[int(random.integers(6))]
        yield render(character, face, 320), character, Path(face).stem, kind, 1, random


def typefaces(_: Mnist) -> Iterator[Case]:
    """Digits in handwriting-like fonts."""
    for coverage, character, face, kind, strength, random in lettering("0123456789", "fonts", 1050):
        yield Case(page(coverage, kind, strength, random), int(character), face)


def continentals(mnist: Mnist) -> Iterator[Case]:
    """1s with a flag, 7s with a bar."""
    numbers = np.flatnonzero((mnist.y == 1) | (mnist.y == 7))
    for index in range(600):
        random = seeded("continental", index)
        number = numbers[index]
        digit = int(mnist.y[number])
        ink = continental(mnist.x[number], digit, random)
        big = np.asarray(Image.fromarray(ink).resize((336, 336), Image.Resampling.BICUBIC), np.float32) / 255
        kind = ("white", "cream", "shading", "screenshot")[int(random.integers(4))]
        yield Case(page(np.clip((big - 0.5) * 6 + 0.5, 0, 1), kind, 1, random), digit, f"continental {digit}")


def blank(_: Mnist) -> Iterator[Case]:
    """Pages without ink."""
    kinds = ("white", "cream", "grey", "ruled", "grid", "shading", "shadow", "jpeg", "phone", "edge", "large")
    for index in range(330):
        kind, strength = kinds[index % len(kinds)], 1 + index // len(kinds) % 3
        yield Case(page(None, kind, strength, seeded("blank", index)), None, f"{kind} {strength}")


def noise(_: Mnist) -> Iterator[Case]:
    """Random pixels of several kinds and sizes."""
    for index in range(300):
        random = seeded("noise", index)
        side = int((28, 64, 200, 400)[index % 4])
        kind = ("normal", "uniform", "salt and pepper", "blotches")[index // 4 % 4]
        if kind == "normal":
            values = random.normal(128, random.uniform(15, 60), (side, side))
        elif kind == "uniform":
            values = random.uniform(0, 255, (side, side))
        elif kind == "salt and pepper":
            values = 255 * (random.random((side, side)) < random.uniform(0.05, 0.5))
        else:
            values = 128 + 50 * _smooth(random.normal(0, 1, (side, side)), side / random.uniform(8, 40))
        yield Case(png(values.clip(0, 255).astype(np.uint8)), None, kind)


def textures(_: Mnist) -> Iterator[Case]:
    """Stripes, checks, weave, wood, tiles and crumpled paper."""
    kinds = ("stripes", "checks", "weave", "wood", "tiles", "crumpled")
    for index in range(300):
        random = seeded("textures", index)
        kind = kinds[index % len(kinds)]
        side = int(random.integers(64, 500))
        y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
        angle, waves = random.uniform(0, np.pi), random.uniform(3, 20)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        if kind == "stripes":
            values = np.sign(np.sin(2 * np.pi * waves * u))
        elif kind == "checks":
            values = np.sign(np.sin(2 * np.pi * waves * u) * np.sin(2 * np.pi * waves * v))
        elif kind == "weave":
            values = np.sin(2 * np.pi * waves * u) + np.sin(2 * np.pi * waves * v)
        elif kind == "wood":
            wobble = _smooth(random.normal(0, 1, (side, side)), side / 8)
            values = np.sin(2 * np.pi * waves * u + wobble * random.uniform(0.5, 2))
        elif kind == "tiles":
            joint = random.uniform(0.02, 0.08)
            values = np.where((u * waves % 1 < joint * 2) | (v * waves % 1 < joint * 2), -1.0, 1.0)
        else:
            values = sum(_smooth(random.normal(0, 1, (side, side)), side / scale) / 2 for scale in (6, 14, 30))
        values = random.uniform(100, 180) + random.uniform(20, 70) * values + random.normal(0, 4, (side, side))
        yield Case(png(values.clip(0, 255).astype(np.uint8)), None, kind)


def letters(_: Mnist) -> Iterator[Case]:
    """Letters that are no digit's shape."""
    for coverage, character, _face, kind, strength, random in lettering(LETTERS, "letters", 441):
        yield Case(page(coverage, kind, strength, random), None, character)


def several(mnist: Mnist) -> Iterator[Case]:
    """Two to four digits side by side, or two above each other."""
    for index in range(400):
        random = seeded("several", index)
        count = int(random.integers(2, 5))
        below = index % 5 == 0
        chosen = random.integers(0, len(mnist.x), 2 if below else count)
        scale = 8 if count < 4 else 6
        parts = []
        for pixels in mnist.x[chosen]:
            used = pixels[np.ix_(pixels.any(axis=1), pixels.any(axis=0))]
            height = scale * 20 * random.uniform(0.85, 1.1)
            size = (max(1, round(used.shape[1] * height / used.shape[0])), round(height))
            parts.append(Image.fromarray(used).resize(size, Image.Resampling.BICUBIC))
        gap = scale * 20 * random.uniform(0.08, 0.4)
        along = [part.height if below else part.width for part in parts]
        side = round((sum(along) + gap * (len(parts) - 1)) * 1.3)
        side = max(side, round(scale * 28))
        canvas = Image.new("L", (side, side))
        position = (side - sum(along) - gap * (len(parts) - 1)) / 2
        for part, length in zip(parts, along, strict=True):
            across = (side - (part.width if below else part.height)) // 2 + round(random.uniform(-6, 6))
            canvas.paste(part, (across, round(position)) if below else (round(position), across))
            position += length + gap
        coverage = np.clip((np.asarray(canvas, np.float32) / 255 - 0.5) * 5 + 0.5, 0, 1)
        kind = ("white", "cream", "shading", "screenshot", "coloured", "ruled")[int(random.integers(6))]
        yield Case(page(coverage, kind, 1, random), None, f"{len(parts)} {'above each other' if below else 'in a row'}")


def clothes(_: Mnist) -> Iterator[Case]:
    """Fashion-MNIST: 28x28 as it is, inverted, and enlarged."""
    if not CLOTHES.exists():
        return
    pictures = np.frombuffer(gzip.decompress(CLOTHES.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    for index, pixels in enumerate(pictures[:900]):
        way = ("as it is", "inverted", "enlarged")[index % 3]
        shown = pixels if way == "as it is" else 255 - pixels
        if way == "enlarged":
            shown = np.asarray(
                Image.fromarray(np.pad(shown, 4, constant_values=255)).resize((252, 252), Image.Resampling.BICUBIC)
            )
        yield Case(png(shown), None, way)


Sets = dict[str, Callable[[Mnist], Iterator[Case]]]

DIGITS: Sets = {
    "plain": plain,
    "paper": paper,
    "formats": formats,
    "small 8x8": lambda mnist: small(mnist, 8),
    "small 16x16": lambda mnist: small(mnist, 16),
    "fonts": typefaces,
    "continental": continentals,
}
NO_DIGITS: Sets = {
    "blank": blank,
    "noise": noise,
    "textures": textures,
    "letters": letters,
    "several": several,
    "clothes": clothes,
}
