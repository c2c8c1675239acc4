"""The connected components of a picture's ink: which of them are the digit, and whether there are several. No state.

The numbers below were fitted on the drawn pages of `benchmarks/devset.py` (22 kinds of paper, blank pages, noise, textures,
several digits) and looked at on the scans of 13 writers. A share is of what its comment names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

Doubt = Literal["several_digits", "not_a_digit"]

MOST_RUNS = 3000  # horizontal runs of ink; more is a texture, and is not taken apart
LEAST_SIZE, LEAST_SIZE_SHARE = 8, 0.07  # pixels, and of the picture's longer side; what is smaller is no digit
SPECK_SHARE = 0.02  # of the main component's area; what has less is a speck

# What reaches the picture's border: the paper's edge, the table beyond it, a rule, the frame of a form.
BORDER_WEIGHT, LINE_WEIGHT = 0.15, 0.02  # how much less likely it is the digit; the second for lines
SLENDER_SHARE = 0.12  # of its length; what is narrower is a line
SPANNING_SHARE = 0.95  # of the picture's side; what is longer runs from border to border
EDGE_SHARE = 0.12  # of the picture's side: the strip along its border
INSIDE_SHARE = 0.3  # of its area; what has less of it outside that strip lies along the edge
SHEET_SIDE = 128  # pixels; what is smaller was cut out around its digit, and shows no table
TABLE_SHARE = 0.8  # of the picture's side; what lies along the edge and is longer is a table

# What lies beside the main component; each is a share of that one's size, height or area.
NEAR_SHARE = 0.12  # of its size; what is no further from it, or from what belongs to it, belongs to it
DIGIT_HEIGHT_SHARE, DIGIT_AREA_SHARE = 0.55, 0.15  # what has less is no second digit
GAP_BESIDE_SHARE, GAP_ABOVE_SHARE = 0.03, 0.05  # of its height, at least between two digits
PIECE_SHARE, MOST_PIECES = 0.25, 5  # of its size; more pieces of at least this size are a pattern


class Component(NamedTuple):
    """One component: its number in `labels`, its bounding box with ends exclusive, its area; all in pixels."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    area: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def size(self) -> int:
        return max(self.right - self.left, self.bottom - self.top)

    def gaps(self, other: Component) -> tuple[int, int]:
        """Pixels across and down between the two boxes; negative where they overlap."""
        return (
            max(self.left - other.right, other.left - self.right),
            max(self.top - other.bottom, other.top - self.bottom),
        )

    def borders(self, shape: tuple[int, int]) -> int:
        """How many of the picture's four borders it reaches, give or take a pixel."""
        return (self.left <= 1) + (self.top <= 1) + (self.right >= shape[1] - 1) + (self.bottom >= shape[0] - 1)


@dataclass(frozen=True, slots=True)
class Components:
    """The 8-connected components of a mask.

    Attributes:
        labels: (height, width) uint16, the number of each pixel's component, 0 for paper.
        table: (n, 5) int32, of each number: left, top, width, height, area. Row 0 is the paper's.

    """

    labels: np.ndarray
    table: np.ndarray

    def mask(self, chosen: list[Component]) -> np.ndarray:
        """(height, width) uint8: 1 where there is ink of these."""
        picked = np.zeros(len(self.table), np.uint8)
        picked[[one.label for one in chosen]] = 1
        mask: np.ndarray = picked[self.labels]
        return mask

    def pick(self, rows: np.ndarray) -> list[Component]:
        """The components for which rows, (n,) bool, is true."""
        numbers = np.flatnonzero(rows)
        return [
            Component(number, left, top, left + width, top + height, area)
            for number, (left, top, width, height, area) in zip(numbers.tolist(), self.table[numbers].tolist(), strict=True)
            if number
        ]


def find_components(mask: np.ndarray) -> Components | None:
    """Find the components of a mask, (height, width) uint8 of 0 and 255; None for a texture, which has too many."""
    if np.count_nonzero(mask[:, 1:] > mask[:, :-1]) + np.count_nonzero(mask[:, 0]) > MOST_RUNS:
        return None
    _, labels, table, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    return Components(labels, table)


def choose_digit(components: Components) -> tuple[list[Component], Doubt | None]:
    """Which components are the digit on a page, and what speaks against there being one; none on a blank page."""
    shape = components.labels.shape
    sizes = components.table[:, 2:4].max(axis=1)
    large = components.pick(sizes >= max(LEAST_SIZE, LEAST_SIZE_SHARE * max(shape)))
    at_edge = {one.label for one in large if one.borders(shape) and lies_along_the_edge(one, components.labels)}
    likely = [one for one in large if one.label not in at_edge]
    if not likely:
        return [], None
    if len(components.table) == 2:  # the paper, and what is likely
        return likely, None
    main = max(likely, key=lambda one: _likelihood(one, shape))
    weighty = components.table[:, 4] >= SPECK_SHARE * main.area
    others = [one for one in components.pick(weighty | (sizes >= PIECE_SHARE * main.size)) if one != main]
    inner = [one for one in others if not one.borders(shape)]
    rivals = [
        one for one in inner if one.height >= DIGIT_HEIGHT_SHARE * main.height and one.area >= DIGIT_AREA_SHARE * main.area
    ]
    apart = [one for one in rivals if _is_apart(one, main)]
    able = [one for one in others if weighty[one.label] and _may_belong(one, components.labels, one.label in at_edge)]
    chosen = _join(main, able, components.labels)
    if apart or len(rivals) > 1:
        return list(dict.fromkeys(chosen + apart)), "several_digits"
    pieces = sum(one.size >= PIECE_SHARE * main.size for one in inner)
    return chosen, "not_a_digit" if pieces > MOST_PIECES else None


def _likelihood(one: Component, shape: tuple[int, int]) -> float:
    """How much a component looks like the digit: large, in the middle, not at the border."""
    height, width = shape
    off_x = abs((one.left + one.right) / 2 / width - 0.5)
    off_y = abs((one.top + one.bottom) / 2 / height - 0.5)
    return one.area * one.size**0.5 * _weight(one, shape) * (1 - max(off_x, off_y))


def _weight(one: Component, shape: tuple[int, int]) -> float:
    if not one.borders(shape):
        return 1.0
    spans = one.height > SPANNING_SHARE * shape[0] or one.width > SPANNING_SHARE * shape[1]
    slender = min(one.width, one.height) < SLENDER_SHARE * one.size
    return LINE_WEIGHT if spans or slender else BORDER_WEIGHT


def _may_belong(one: Component, labels: np.ndarray, at_edge: bool) -> bool:
    if at_edge and max(one.height / labels.shape[0], one.width / labels.shape[1]) > TABLE_SHARE:
        return False
    return _weight(one, labels.shape) > LINE_WEIGHT


def _is_apart(one: Component, main: Component) -> bool:
    """Whether it stands beside or above the main component, as another digit does."""
    across, down = one.gaps(main)
    return (across > GAP_BESIDE_SHARE * main.height and down < 0) or (down > GAP_ABOVE_SHARE * main.height and across < 0)


def _join(main: Component, able: list[Component], labels: np.ndarray) -> list[Component]:
    """The main component, and those that lie near it or, in turn, near such a one."""
    if not able:
        return [main]
    ones = [main, *able]
    numbers, boxes = np.array([one.label for one in ones]), np.array([one[1:5] for one in ones])
    begins, ends = boxes[:, :2], boxes[:, 2:]
    may_be_tables = np.array([max(labels.shape) >= SHEET_SIDE and one.borders(labels.shape) > 0 for one in ones])
    reach = NEAR_SHARE * main.size
    joined, left = [0], np.arange(1, len(ones))
    for here in joined:  # grows meanwhile
        gaps = np.maximum(begins[left] - ends[here], begins[here] - ends[left])
        near = gaps.max(axis=1) <= reach
        if (near & may_be_tables[left]).any():  # a table round a corner has a box that is near, and no ink
            near &= ~may_be_tables[left] | _have_ink_near(boxes[here], int(reach), labels)[numbers[left]]
        joined += left[near].tolist()
        left = left[~near]
        if not len(left):
            break
    return [ones[number] for number in joined]


def _have_ink_near(box: np.ndarray, reach: int, labels: np.ndarray) -> np.ndarray:
    """Which components, by label, have ink so near to a box: bool."""
    (left, top), (right, bottom) = np.maximum(box[:2] - reach, 0), box[2:] + reach
    have = np.zeros(labels.max() + 1, bool)
    have[labels[top:bottom, left:right]] = True
    return have


def lies_along_the_edge(one: Component, labels: np.ndarray) -> bool:
    """Whether its ink lies almost all at the picture's edge, as the table beyond the paper does."""
    height, width = labels.shape
    margin_x, margin_y = round(EDGE_SHARE * width), round(EDGE_SHARE * height)
    inner = labels[margin_y : height - margin_y, margin_x : width - margin_x]
    return int(np.count_nonzero(inner == one.label)) < INSIDE_SHARE * one.area


def tell_several(components: list[Component]) -> Doubt | None:
    """Whether components that all are ink of a digit are more than one digit."""
    main = max(components, key=lambda one: one.area)
    rivals = [
        one
        for one in components
        if one != main and one.height >= DIGIT_HEIGHT_SHARE * main.height and one.area >= DIGIT_AREA_SHARE * main.area
    ]
    return "several_digits" if len(rivals) > 1 or any(_is_apart(one, main) for one in rivals) else None
