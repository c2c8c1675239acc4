"""The connected parts of a picture's ink: which of them are the digit, and whether there are several digits. No state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Doubt = Literal["several_digits", "not_a_digit"]

EDGE = 0.12  # of a side; what lies within it on all sides is the picture's edge
MOST_RUNS = 3000  # horizontal runs of ink; more is a texture, and is not taken apart


@dataclass(frozen=True, slots=True)
class Parts:
    """The connected parts of a mask.

    Attributes:
        area: (n,) int, in pixels.
        top, bottom, left, right: (n,) int, the bounding boxes; ends exclusive.
        run_part: (m,) int, the part that each horizontal run belongs to.
        run_start, run_end: (m,) int, places in the mask laid out with two pixels of paper behind each row; ends exclusive.

    """

    area: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    run_part: np.ndarray
    run_start: np.ndarray
    run_end: np.ndarray


def find_parts(mask: np.ndarray) -> Parts | None:
    """Find the 8-connected parts of a mask by joining its horizontal runs; None if there are too many runs."""
    height, width = mask.shape
    stride = width + 2
    flat = np.zeros(height * stride + 1, np.int8)
    flat[1:].reshape(height, stride)[:, :width] = mask
    change = np.diff(flat)
    start, end = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    count = len(start)
    if count > MOST_RUNS:
        return None
    first = np.searchsorted(end, start + stride, "left")
    after = np.searchsorted(start, end + stride, "right")
    number = np.maximum(after - first, 0)
    upper = np.repeat(np.arange(count), number)
    lower = (
        np.repeat(first - np.concatenate([[0], number.cumsum()[:-1]]), number) + np.arange(len(upper)) if count else upper
    )
    part = np.arange(count)
    while True:
        smaller = np.minimum(part[upper], part[lower])
        before = part.copy()
        np.minimum.at(part, upper, smaller)
        np.minimum.at(part, lower, smaller)
        part = part[part]
        if (part == before).all():
            break
    _, part = np.unique(part, return_inverse=True)
    n = int(part.max()) + 1 if count else 0
    row = start // stride
    left, right, top, bottom = (np.full(n, 1 << 30), np.zeros(n, int), np.full(n, 1 << 30), np.zeros(n, int))
    np.minimum.at(left, part, start % stride)
    np.maximum.at(right, part, end - row * stride)
    np.minimum.at(top, part, row)
    np.maximum.at(bottom, part, row + 1)
    return Parts(np.bincount(part, end - start, n), top, bottom, left, right, part, start, end)


def choose(parts: Parts, shape: tuple[int, int]) -> tuple[np.ndarray, Doubt | None]:
    """Which parts are the digit, and whether there are several."""
    height, width = shape
    tall, wide = parts.bottom - parts.top, parts.right - parts.left
    size = np.maximum(tall, wide)
    outside = (parts.top <= 1).astype(int) + (parts.left <= 1) + (parts.bottom >= height - 1) + (parts.right >= width - 1)
    slender = np.minimum(tall, wide) < 0.12 * size
    reaches = (tall > 0.95 * height) | (wide > 0.95 * width)
    penalty = np.where(outside > 0, np.where(reaches | slender, 0.02, 0.15), 1.0)
    x, y = (parts.left + parts.right) / 2 / width - 0.5, (parts.top + parts.bottom) / 2 / height - 0.5
    score = parts.area * np.sqrt(size) * penalty * (1 - np.maximum(abs(x), abs(y)))
    table = (outside > 0) & _along_the_edge(parts, shape)
    score[(size < max(8, 0.07 * max(shape))) | table] = 0
    if not score.any():
        return np.empty(0, int), None
    main = int(score.argmax())
    gap_x, gap_y = _gaps(parts, main)
    others = np.arange(len(size)) != main
    comparable = others & (outside == 0) & (tall >= 0.55 * tall[main]) & (parts.area >= 0.15 * parts.area[main])
    beside = comparable & (gap_x > 0.03 * tall[main]) & (gap_y < 0)
    above = comparable & (gap_y > 0.05 * tall[main]) & (gap_x < 0)
    several = (beside | above).any() or np.count_nonzero(comparable) >= 2
    table &= (tall > 0.8 * height) | (wide > 0.8 * width)  # shorter pieces may be what tells a texture
    able = others & (parts.area >= 0.02 * parts.area[main]) & (penalty > 0.1) & ~table
    near = _near(parts, main, able, 0.12 * size[main])
    doubt: Doubt | None = "several_digits" if several else None
    if several:
        near |= beside | above
    elif np.count_nonzero(others & (size >= 0.25 * size[main]) & (outside == 0)) >= 6:
        doubt = "not_a_digit"
    return np.flatnonzero(near | ~others), doubt


def draw(parts: Parts, chosen: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: the mask again, with only the chosen parts in it."""
    height, width = shape
    stride = width + 2
    picked = np.isin(parts.run_part, chosen)
    edges = np.zeros(height * stride + 1, np.int8)
    edges[parts.run_start[picked]] = 1
    edges[parts.run_end[picked]] = -1
    mask: np.ndarray = edges[:-1].cumsum(dtype=np.int8).reshape(height, stride)[:, :width].astype(bool)
    return mask


def _gaps(parts: Parts, one: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) pixels across and (n,) down between the box of one part and those of all; negative where they overlap."""
    gap_x = np.maximum(parts.left - parts.right[one], parts.left[one] - parts.right)
    gap_y = np.maximum(parts.top - parts.bottom[one], parts.top[one] - parts.bottom)
    return gap_x, gap_y


def _near(parts: Parts, main: int, able: np.ndarray, reach: float) -> np.ndarray:
    """(n,) bool: of the parts that may belong to the main one, those within reach of it or, in turn, of such a part."""
    joined = np.zeros(len(able), bool)
    ends = [main]
    while ends:
        found = able & ~joined & (np.maximum(*_gaps(parts, ends.pop())) <= reach)
        joined |= found
        ends += np.flatnonzero(found).tolist()
    return joined


def _along_the_edge(parts: Parts, shape: tuple[int, int]) -> np.ndarray:
    """(n,) bool: parts whose ink lies almost all at the picture's edge, as the table beyond the paper does."""
    height, width = shape
    margin_x, margin_y = EDGE * width, EDGE * height
    row = parts.run_start // (width + 2)
    start, end = parts.run_start % (width + 2), parts.run_end - row * (width + 2)
    inside = np.minimum(end, width - margin_x) - np.maximum(start, margin_x)
    inside = np.where((row < margin_y) | (row >= height - margin_y), 0, np.maximum(inside, 0))
    return np.bincount(parts.run_part, inside, len(parts.area)) < 0.3 * parts.area
