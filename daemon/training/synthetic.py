"""Digits and things that are no digit, drawn by code, for a model to learn from besides the data sets.

MNIST was written by Americans with one kind of pen: it has no crossed 7s, few 1s with a flag, no 9 that hangs like a g, and
nothing at all that is not a digit. What is no digit is taught as "all ten are equally likely" (outlier exposure, Hendrycks
et al. 2019, arXiv:1812.04606).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from daemon.reading.mnist import BOX, SIDE, centre
from daemon.training.dataset import NO_DIGIT, Split
from daemon.training.paper import deliver, lay, read, some_side
from daemon.training.strokes import DIGITS, LETTERS, draw

SCALE = 4  # shapes are drawn this much larger, then reduced


def draw_digits(count: int, seed: int) -> Split:
    """Draw about `count` digits on paper, each as often as any other and each way of writing it likewise, and read them.

    Returns:
        Fewer where the ink was too faint.

    """
    random = np.random.default_rng([seed, 0])
    digits = (np.arange(count) % len(DIGITS)).astype(np.uint8)
    pictures = []
    for digit in digits:
        ways = DIGITS[digit]
        narrowest, widest, strokes = ways[random.integers(len(ways))]
        pictures.append(_on_paper(strokes, random.uniform(narrowest, widest), random))
    pixels, kept = read(pictures)
    return Split(pixels, digits[kept])


def draw_no_digits(count: int, seed: int) -> Split:
    """Draw about `count` letters, signs, scribbles, shapes, patterns and noises, labelled NO_DIGIT."""
    random = np.random.default_rng([seed, 1])
    on_paper, images = [], []
    for index in range(count):
        kind = index % 10
        if kind < 6:
            strokes = LETTERS[random.integers(len(LETTERS))] if kind < 5 else _scribble(random)
            on_paper.append(_on_paper(strokes, random.uniform(0.42, 0.95), random))
        else:
            images.append(_draw_pattern(random) if kind == 6 else _draw_shape(random))
    pixels = np.concatenate([read(on_paper)[0], np.array(images, np.uint8).reshape(-1, SIDE, SIDE)])
    return Split(pixels, np.full(len(pixels), NO_DIGIT, np.uint8))


def _on_paper(strokes: str, aspect: float, random: np.random.Generator) -> np.ndarray:
    return deliver(lay(draw(strokes, aspect, some_side(random), random), random), random)


def fit(canvas: Image.Image) -> np.ndarray:
    """Fit the ink of a drawing into MNIST's form."""
    ink = canvas.crop(canvas.getbbox())
    scale = BOX / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    return centre(np.asarray(ink.resize(size, Image.Resampling.BOX), np.float32))


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
