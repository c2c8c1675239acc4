"""Digits as a scanner, a telephone or a form's cutter delivers them, and read as the daemon reads what it is sent.

What the normaliser makes of thin, faint, coarse or tightly cut ink is then learnt with the digits.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from daemon.reading.mnist import SIDE, Blank
from daemon.reading.normalise import normalise_all

COARSEST, FINEST = 22, 130  # pixels of a picture's longer side


def some_side(random: np.random.Generator) -> int:
    """How large a picture is: small ones as often as large ones."""
    return round(float(np.exp(random.uniform(np.log(COARSEST), np.log(FINEST)))))


def lay(ink: Image.Image, random: np.random.Generator) -> np.ndarray:
    """Put ink ("L", 255 on 0) onto paper: (height, width) uint8, dark on light."""
    coverage = np.asarray(ink, np.float32) / 255
    paper = random.uniform(150, 255)
    page = paper - coverage * paper * random.uniform(0.2, 1)
    if random.random() < 0.3:  # light from one side
        page *= np.linspace(1, random.uniform(0.7, 1), page.shape[1], dtype=np.float32)
    return np.clip(page, 0, 255).astype(np.uint8)


def deliver(page: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Cut, blur, fade, stain and compress some of what is on paper, (height, width) uint8, dark on light."""
    paper, darkest = float(np.median(page)), float(np.quantile(page, 0.01))
    if random.random() < 0.35:  # to the ink
        inked = page < paper - 0.4 * (paper - darkest)
        rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
        if len(rows) > 6 and len(columns) > 2:
            margin = int(random.integers(0, 3))
            top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
            page = page[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    picture = Image.fromarray(page)
    if random.random() < 0.35:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.3 + 0.013 * max(page.shape))))
    values = np.asarray(picture, np.float32)
    if random.random() < 0.3:
        values = paper + (values - paper) * random.uniform(0.4, 1)
    grain = random.uniform(0, 0.04 * max(paper - darkest, 40))
    values = np.clip(values + grain * random.standard_normal(values.shape, np.float32), 0, 255).astype(np.uint8)
    if random.random() < 0.2:
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "JPEG", quality=int(random.integers(25, 90)))
        values = np.asarray(Image.open(buffer))
    return values


def read(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Read pictures as the daemon does, by their likeliest reading.

    Returns:
        (m, 28, 28) uint8 in MNIST's form, and (m,) which of the pictures they are: the blank ones are left out.

    """
    readings = normalise_all(pictures)
    kept = np.array([number for number, found in enumerate(readings) if not isinstance(found, Blank)], np.intp)
    pixels = [found[0].pixels for found in readings if not isinstance(found, Blank)]
    return np.array(pixels, np.uint8).reshape(-1, SIDE, SIDE), kept
