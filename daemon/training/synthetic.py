"""Digits and things that are no digit, drawn by code, for a model to learn from besides the data set.

MNIST was written by Americans with one kind of pen: it has no crossed 7s, few 1s with a flag, nothing printed, and nothing
at all that is not a digit. The digits here are pen strokes along hand-set points, bent and inked at random. What is no digit
is taught as "all ten are equally likely" (outlier exposure, Hendrycks et al. 2019, arXiv:1812.04606).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from daemon.reading.mnist import BOX, SIDE, centre

NO_DIGIT = 10  # the label of what is no digit
SCALE = 4  # strokes are drawn this much larger, then reduced

# A string is a way of writing it: x,y in a unit square, y downwards; "|" lifts the pen, a point given twice is a corner.
_DIGITS: tuple[tuple[str, ...], ...] = (
    (
        ".5,0 .15,.15 0,.5 .15,.85 .5,1 .85,.85 1,.5 .85,.15 .5,0",
        ".6,.02 .2,.1 0,.5 .15,.88 .5,1 .9,.85 1,.45 .8,.1 .45,0 .3,.08",
        ".5,0 .15,.15 0,.5 .15,.85 .5,1 .85,.85 1,.5 .85,.15 .5,0 | .85,.12 .15,.88",
    ),
    (
        ".5,0 .5,1",
        ".1,.3 .6,0 .6,0 .6,1",
        ".25,.2 .6,0 .6,0 .6,1",
        ".1,.3 .6,0 .6,0 .6,1 | .15,1 1,1",
        ".3,.15 .55,0 .55,0 .55,1 | .1,1 .95,1",
        "0,.5 .6,0 .6,0 .55,1",
    ),
    (
        ".05,.25 .2,.05 .5,0 .85,.1 .9,.35 .6,.65 0,1 0,1 1,1",
        ".05,.2 .4,0 .85,.15 .8,.45 .4,.85 .1,.97 .05,.82 .3,.78 .6,.95 1,.93",
        "0,.22 .45,0 .9,.25 .6,.6 0,1 0,1 .4,.93 1,1",
        "0,.1 .5,0 .9,.25 .5,.7 .05,.98 .05,.98 1,.95 1,.85",
    ),
    (
        ".05,.12 .4,0 .85,.12 .8,.38 .4,.48 .4,.48 .9,.6 .95,.85 .5,1 .05,.88",
        "0,0 .9,0 .9,0 .4,.4 .4,.4 .85,.5 .95,.8 .5,1 .02,.88",
        ".1,.08 .6,0 .85,.2 .6,.42 .25,.47 .7,.52 .95,.75 .6,1 0,.92",
    ),
    (
        ".75,1 .75,0 .75,0 0,.68 0,.68 1,.68",
        ".1,0 0,.55 0,.55 .95,.55 | .75,0 .75,1",
        ".2,0 .05,.6 .05,.6 1,.58 | .8,.25 .7,1",
        ".55,0 0,.65 0,.65 1,.65 | .7,.4 .7,1",
        "0,.05 .05,.45 .4,.52 .85,.45 | .85,0 .8,1",
    ),
    (
        ".9,0 .15,0 .15,0 .1,.42 .1,.42 .5,.36 .92,.5 .95,.8 .5,1 .02,.9",
        ".15,.05 .1,.42 .1,.42 .5,.36 .95,.6 .7,.97 .02,.92 | .15,.03 .95,0",
        ".95,0 .3,.02 .3,.02 .12,.45 .12,.45 .6,.42 .85,.7 .5,.98 0,.95",
        ".2,.12 .12,.45 .5,.4 .9,.65 .6,1 0,.93 | .25,.06 1,.02",
    ),
    (
        ".75,0 .3,.2 .03,.6 .15,.93 .5,1 .9,.88 .9,.62 .5,.5 .12,.66",
        ".9,.12 .6,0 .2,.15 0,.55 .15,.92 .5,1 .95,.85 .9,.58 .5,.45 .05,.65",
        ".35,0 .05,.45 .05,.85 .45,1 .85,.88 .8,.65 .45,.55 .1,.75",
        ".8,0 .2,.5 0,.75 .3,1 .8,.95 1,.7 .7,.5 .2,.6",
    ),
    (
        "0,0 1,0 1,0 .35,1",
        "0,.05 1,0 1,0 .55,.45 .4,1",
        "0,0 1,0 1,0 .35,1 | .25,.5 .9,.5",
        "0,.05 1,0 1,0 .5,.5 .4,1 | .2,.52 .85,.45",
        "0,.18 0,0 0,0 1,0 1,0 .3,1",
        "0,.15 .05,.02 .05,.02 1,0 1,0 .4,1 | .2,.5 .85,.5",
        "0,.08 .3,0 .7,.06 1,0 .65,.5 .5,1",
    ),
    (
        ".8,.12 .5,0 .15,.12 .2,.36 .5,.48 .9,.64 .9,.88 .5,1 .1,.88 .12,.64 .5,.46 .82,.32 .8,.12",
        ".5,0 .18,.1 .18,.36 .5,.46 .82,.36 .82,.1 .5,0 | .5,.46 .05,.6 .05,.88 .5,1 .95,.88 .95,.6 .5,.46",
        ".9,.1 .5,0 .1,.15 .3,.42 .8,.65 .8,.93 .4,1 .1,.85 .3,.6 .75,.35 .95,.05",
    ),
    (
        ".9,.3 .6,.52 .15,.45 .05,.2 .4,0 .85,.1 .92,.3 .85,.7 .7,1",
        ".9,.3 .5,.52 .1,.42 .05,.18 .45,0 .9,.15 .95,.5 .6,1 .1,.9",
        ".9,.15 .5,0 .1,.15 .15,.42 .5,.48 .9,.3 .9,.05 .9,.05 .88,1",
        ".85,.12 .4,0 .05,.25 .3,.5 .75,.4 .9,.08 .75,.6 .6,1",
    ),
)
_LETTERS = (
    "0,1 .5,0 .5,0 1,1 | .2,.62 .8,.62", "1,0 0,0 0,0 0,1 0,1 1,1 | 0,.5 .8,.5", "1,0 0,0 0,0 0,1 | 0,.48 .8,.48",
    "0,0 0,1 | 1,0 1,1 | 0,.5 1,.5", "0,0 0,1 | .9,0 0,.55 | .25,.4 1,1", "0,1 .1,0 .1,0 .5,.7 .5,.7 .9,0 .9,0 1,1",
    "0,1 0,0 0,0 1,1 1,1 1,0", "0,1 0,0 0,0 .7,0 .95,.25 .7,.5 0,.52",
    "0,1 0,0 0,0 .7,0 .9,.22 .7,.46 0,.48 | .4,.48 1,1", "0,0 1,0 | .5,0 .5,1",
    "0,0 .25,1 .25,1 .5,.3 .5,.3 .75,1 .75,1 1,0", "0,0 1,1 | 1,0 0,1",
    ".9,.25 .5,0 .05,.3 .05,.75 .45,1 .85,.8 | .9,0 .9,.85 1,1", "0,0 0,1 | 0,.55 .4,.4 .8,.5 .85,1",
    "0,1 0,.3 .5,.1 .5,1 | .5,.3 1,.1 1,1", "0,1 0,0 | 0,.25 .5,0 .95,.15", "0,1 0,.1 | 0,.3 .5,.05 .9,.25 .9,1",
    "1,0 .4,0 .3,.3 .3,1 | 0,.42 .8,.42", ".5,0 .5,1 | 0,.5 1,.5", "0,0 0,.7 .5,1 1,.7 1,0", "0,0 0,1 | .5,0 .5,1",
    "0,.3 1,.3 | 0,.7 1,.7", ".5,0 0,1 0,1 1,1 1,1 .5,0", "0,.6 .3,1 .3,1 1,0",
)  # fmt: skip


def draw_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits, each as often as any other.

    Returns:
        (count, 28, 28) uint8 in MNIST's form, and (count,) uint8 labels 0 to 9.

    """
    random = np.random.default_rng([seed, 0])
    labels = np.arange(count, dtype=np.uint8) % 10
    images = [_draw_strokes(_DIGITS[label][random.integers(len(_DIGITS[label]))], random) for label in labels]
    return np.array(images, np.uint8).reshape(-1, SIDE, SIDE), labels


def draw_no_digits(count: int, seed: int) -> np.ndarray:
    """Draw letters, signs, scribbles, shapes, patterns and noise: (count, 28, 28) uint8."""
    random = np.random.default_rng([seed, 1])
    images = []
    for index in range(count):
        kind = index % 10
        if kind < 5:
            images.append(_draw_strokes(_LETTERS[random.integers(len(_LETTERS))], random))
        elif kind == 5:
            images.append(_draw_strokes(_scribble(random), random))
        elif kind == 6:
            images.append(_draw_pattern(random))
        else:
            images.append(_draw_shape(random))
    return np.array(images, np.uint8).reshape(-1, SIDE, SIDE)


def _draw_strokes(strokes: str, random: np.random.Generator) -> np.ndarray:
    """Ink the strokes with a round pen or a broad nib, bent, slanted and stretched at random."""
    aspect, slant, turn = random.uniform(0.42, 0.95), random.normal(0, 0.15), random.normal(0, 0.06)
    bend = random.normal(0, 0.04, (2, 3))
    size = SCALE * BOX
    lines = []
    for stroke in strokes.split("|"):
        points = np.array([pair.split(",") for pair in stroke.split()], float)
        points += random.normal(0, 0.025, points.shape)
        x, y = _smooth_curve(points).T
        x, y = x + bend[0] @ [y, y * y, np.sin(3 * y)], y + bend[1] @ [x, x * x, np.sin(3 * x)]
        x = (x - 0.5) * aspect - slant * (y - 0.5)
        y = y - 0.5
        lines.append(size * np.stack([x * np.cos(turn) - y * np.sin(turn), y * np.cos(turn) + x * np.sin(turn)], axis=1))
    everything = np.concatenate(lines)
    margin = 8 * SCALE
    offset = margin - everything.min(axis=0)
    width, height = np.ceil(np.ptp(everything, axis=0)).astype(int) + 2 * margin
    canvas = Image.new("L", (int(width), int(height)))
    draw = ImageDraw.Draw(canvas)
    pen = SCALE * float(np.clip(random.gamma(6, 0.42), 0.8, 5))
    angle = random.uniform(0, np.pi)
    nib = pen / 2 * random.uniform(0.5, 1.3) * np.array([np.cos(angle), np.sin(angle)])
    broad = random.random() < 0.3
    for line in lines:
        points = line + offset
        corners = [tuple(point) for point in points]
        draw.line(corners, fill=255, width=max(1, round(pen * (0.5 if broad else 1))))
        if broad:
            for start, end in pairwise(points):
                draw.polygon([tuple(start - nib), tuple(end - nib), tuple(end + nib), tuple(start + nib)], fill=255)
        else:
            rounded = corners if random.random() < 0.7 else corners[1:-1]  # round joints; ends round or cut off
            for x, y in rounded:
                draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return fit(canvas)


def fit(canvas: Image.Image) -> np.ndarray:
    """Fit the ink of a drawing into MNIST's form."""
    ink = canvas.crop(canvas.getbbox())
    scale = BOX / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    return centre(np.asarray(ink.resize(size, Image.Resampling.BOX), np.float32))


def _smooth_curve(points: np.ndarray) -> np.ndarray:
    """A Catmull-Rom spline through the points, eight steps to a piece."""
    p = np.concatenate([points[:1], points, points[-1:]])[:, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([pieces.reshape(-1, 2), points[-1:]])


def _scribble(random: np.random.Generator) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in random.uniform(0, 1, (random.integers(8, 15), 2)))


def _draw_pattern(random: np.random.Generator) -> np.ndarray:
    """Stripes, checks, blotches or noise all over the picture."""
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    angle, waves = random.uniform(0, np.pi), random.uniform(2, 9)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = random.integers(4)
    if kind == 0:
        values = np.sin(2 * np.pi * waves * u)
    elif kind == 1:
        values = np.sin(2 * np.pi * waves * u) * np.sin(2 * np.pi * waves * v)
    else:
        side = SIDE if kind == 2 else int(random.integers(5, 14))
        coarse = Image.fromarray(random.normal(0, 1, (side, side)).astype(np.float32))
        values = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    values = 128 + 127 * np.clip(values * random.uniform(0.5, 5) + random.uniform(-1, 0.5), -1, 1)
    if random.random() < 0.6:  # as a normalised picture would have it: within the box
        values[:4] = values[-4:] = 0
        values[:, :4] = values[:, -4:] = 0
    return values.astype(np.uint8)


def _draw_shape(random: np.random.Generator) -> np.ndarray:
    """A filled, mirrored or lopsided outline in shades of grey, as a silhouette of some thing has it."""
    knots = int(random.integers(4, 9))
    reach = random.uniform(0.08, 0.5, knots)
    height = np.sort(random.uniform(0, 1, knots))
    other = reach if random.random() < 0.7 else random.uniform(0, 0.5, knots)
    size = SCALE * BOX
    outline = [(0.5 + r, h) for r, h in zip(reach, height, strict=True)]
    outline += [(0.5 - r, h) for r, h in zip(other[::-1], height[::-1], strict=True)]
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    draw.polygon([(x * size, y * size) for x, y in outline], fill=255)
    if random.random() < 0.4:  # a gap or a hole, as between trouser legs
        x, y, w, h = (
            random.uniform(0.3, 0.6),
            random.uniform(0.1, 0.7),
            random.uniform(0.03, 0.2),
            random.uniform(0.1, 0.8),
        )
        draw.rectangle((x * size, y * size, (x + w) * size, (y + h) * size), fill=0)
    if mask.getbbox() is None:
        draw.rectangle((0, 0, size, size // 2), fill=255)
    if random.random() < 0.3:
        mask = mask.rotate(float(random.uniform(-90, 90)))
    side = int(random.integers(2, 14))
    shades = np.clip(random.uniform(120, 230) + random.uniform(0, 60) * random.normal(0, 1, (side, side)), 30, 255)
    shading = Image.fromarray(shades.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    inked = Image.fromarray((np.asarray(mask) / 255 * np.clip(np.asarray(shading), 0, 255)).astype(np.uint8))
    return fit(inked)
