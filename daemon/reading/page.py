"""From any grey picture to MNIST's form: a (28, 28) image of one digit, and what is doubtful about it. No state.

MNIST's form (LeCun et al., http://yann.lecun.com/exdb/mnist/): ink 255 on paper 0, the digit fitted into 20x20 keeping its
aspect ratio, its centre of mass in the middle of 28x28. The steps, cheapest way first:

1. What is in this form already is left alone.
2. A picture under SMALL pixels holds a digit and nothing else: it is only scaled.
3. Else: background by a grey closing, ink as the part of its light that is missing, a threshold, rules erased, and the
   connected parts of the ink judged: the digit, what belongs to it, specks, the paper's edge, other digits.
"""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from daemon.reading.components import Doubt, Parts, choose, draw, find_parts

SIDE = 28  # of the result
BOX = 20  # what the digit is fitted into
SMALL = 40  # pixels; a picture whose longer side is below this takes the simple way
BLANK_CONTRAST = 24  # grey levels of 255; less than this between ink and paper is a blank page
BLURRED = 160  # pixels; up to this side a picture is looked at for being an enlarged small one
FLAT = 12  # grey levels; where the border of the background varies less, the paper is flat, and a bold stroke none of it
BACKGROUND_SIDE = 64  # the background is looked for at about this size
THIN = 2.2  # pixels of 20; MNIST's strokes are mostly 2 to 4 wide
MOST_INK = 280  # pixels of 28 x 28 with ink
LEAST_ROWS = 7  # of 28 with ink
MOST_STROKES = 95  # strokes met by all rows and all columns together
THICKEST = 7.5  # pixels, a stroke's mean width


class Blank(Exception):
    """There is no ink, or only specks; `contrast` is how far the grey levels differ from the paper, of 255."""

    def __init__(self, contrast: float) -> None:
        super().__init__(f"contrast {contrast:.0f}")
        self.contrast = contrast


def normalise_all(greys: list[np.ndarray]) -> list[tuple[np.ndarray, Doubt | None] | Blank]:
    """Bring pictures into MNIST's form as `normalise` does; those that are in it already together, at a tenth of the cost.

    Returns:
        For each in its place, what `normalise` gives, or the Blank that it would raise.

    """
    done: dict[int, tuple[np.ndarray, Doubt | None] | Blank] = {}
    square = [number for number, grey in enumerate(greys) if grey.shape == (SIDE, SIDE)]
    if square:
        ink, fits = _take_canonical(np.stack([greys[number].astype(np.uint8, copy=False) for number in square]))
        doubts = _doubts(ink)
        done = {number: (ink[i], doubts[i]) for i, number in enumerate(square) if fits[i]}
    for number, grey in enumerate(greys):
        if number not in done:
            try:
                done[number] = _normalise_other(grey)
            except Blank as blank:
                done[number] = blank
    return [done[number] for number in range(len(greys))]


def normalise(grey: np.ndarray) -> tuple[np.ndarray, Doubt | None]:
    """Bring a grey picture into MNIST's form.

    Args:
        grey: (height, width) uint8 or float32, 0 black to 255 white; ink may be dark on light or light on dark.

    Returns:
        (28, 28) uint8, ink 255 on paper 0, and what speaks against its being one digit. A picture that is in this form
        already comes back unchanged.

    Raises:
        Blank: there is no ink.

    """
    normalised = normalise_all([grey])[0]
    if isinstance(normalised, Blank):
        raise normalised
    return normalised


def _normalise_other(grey: np.ndarray) -> tuple[np.ndarray, Doubt | None]:
    grey = _undo_enlargement(grey)
    if SMALL <= max(grey.shape) <= BLURRED:
        coarse = _undo_smooth_enlargement(grey)
        grey = grey if coarse is None else coarse
    if max(grey.shape) < SMALL:
        pixels = _normalise_small(grey.astype(np.float32))
        return pixels, _doubt(pixels)
    return _normalise_page(grey)


def centre(digit: np.ndarray) -> np.ndarray:
    """Put the digit's centre of mass into the middle of a 28x28 image; nothing is cut off.

    Args:
        digit: at most (28, 28) float32, ink positive on paper 0.

    """
    digit = np.clip(digit * (255 / max(float(digit.max()), 1.0)), 0, 255)
    height, width = digit.shape
    rows, columns = digit.sum(axis=1), digit.sum(axis=0)
    total = float(rows.sum())
    row, column = float(rows @ np.arange(height)) / total, float(columns @ np.arange(width)) / total
    top = min(max(round(SIDE / 2 - 0.5 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - 0.5 - column), 0), SIDE - width)
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[top : top + height, left : left + width] = digit.astype(np.uint8)
    return pixels


def _take_canonical(greys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 28, 28) uint8 with ink 255 on paper 0, and (n,) whether the border is nearly all paper, pure black or white."""
    border = np.concatenate([greys[:, 0], greys[:, -1], greys[:, :, 0], greys[:, :, -1]], axis=1)
    light_on_dark = np.count_nonzero(border > 8, axis=1) <= 10  # of 112; centring leaves some of MNIST's digits touching it
    dark_on_light = np.count_nonzero(border < 247, axis=1) <= 10
    ink = np.where(light_on_dark[:, None, None], greys, 255 - greys)
    return ink, (light_on_dark | dark_on_light) & (ink.max(axis=(1, 2)) >= 4 * BLANK_CONTRAST)


def _undo_enlargement(grey: np.ndarray) -> np.ndarray:
    """Reduce a picture of equal squares, as nearest-neighbour enlargement makes them, to one pixel a square."""
    for factor in (16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2):
        if any(side % factor or side // factor < 6 for side in grey.shape):
            continue
        once = grey[::factor, ::factor]
        if (grey[1::factor, ::factor] == once).all() and (np.repeat(np.repeat(once, factor, 0), factor, 1) == grey).all():
            return once
    return grey


def _undo_smooth_enlargement(grey: np.ndarray) -> np.ndarray | None:
    """Reduce a picture that was enlarged from about 16 pixels or fewer; None if it holds finer detail."""
    scale = 18 / max(grey.shape)
    size = (max(6, round(grey.shape[1] * scale)), max(6, round(grey.shape[0] * scale)))
    picture = Pillow.fromarray(grey.astype(np.float32))
    coarse = picture.resize(size, Pillow.Resampling.BILINEAR)
    lost = np.asarray(coarse.resize(picture.size, Pillow.Resampling.BICUBIC)) - np.asarray(picture)
    spread = float(np.asarray(picture).std())
    if spread < BLANK_CONTRAST or float(lost.std()) > 0.2 * spread:
        return None
    small = np.asarray(coarse)
    steps = _widen(small, 2) + _widen(-small, 2)
    return small if float(steps.max()) > 0.55 * float(np.ptp(small)) else None  # not mere shading


def _normalise_small(grey: np.ndarray) -> np.ndarray:
    """A digit that about fills its picture: find the paper's level and scale."""
    low, high = float(grey.min()), float(grey.max())
    if high - low < BLANK_CONTRAST:
        raise Blank(high - low)
    border = _border(grey)
    corners = grey[[0, 0, -1, -1], [0, -1, 0, -1]]
    light = (float(border.mean()) + float(corners.mean()) + float(grey.mean())) / 3 > (low + high) / 2
    ink = (high - grey if light else grey - low) * (255 / (high - low))
    paper = min(float(np.median(ink[ink < 128])), 100.0)
    ink = np.clip((ink - paper) * (255 / (255 - paper)), 0, 255)
    seen = ink > 64
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return centre(_fit(crop))


def _fit(ink: np.ndarray) -> np.ndarray:
    """Scale to 20 pixels on the longer side."""
    scale = BOX / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    how = Pillow.Resampling.BICUBIC if scale > 1 else Pillow.Resampling.BOX if scale < 0.5 else Pillow.Resampling.BILINEAR
    return np.clip(np.asarray(Pillow.fromarray(ink).resize(size, how)), 0, 255)


def _normalise_page(grey: np.ndarray) -> tuple[np.ndarray, Doubt | None]:
    grey = grey.astype(np.float32)
    if np.ptp(grey) < BLANK_CONTRAST:
        raise Blank(float(np.ptp(grey)))
    light_ink = _ink_is_light(grey)
    ink = _flatten(255 - grey if light_ink else grey, shaded=not light_ink)
    threshold, level = _threshold(ink)
    if level < BLANK_CONTRAST:
        raise Blank(level)
    mask = ink > threshold
    _erase_rules(mask)
    _erase_rules(mask.T)
    parts = find_parts(mask)
    if parts is None:
        return _whole(ink), "not_a_digit"
    chosen, doubt = choose(parts, mask.shape)
    if not len(chosen):
        raise Blank(level)
    pixels = _render(ink, level, parts, chosen)
    return pixels, doubt or _doubt(pixels)


def _whole(ink: np.ndarray) -> np.ndarray:
    return centre(_fit(np.clip(ink, 0, 255)))


def _ink_is_light(grey: np.ndarray) -> bool:
    """Whether there is less light than dark where the two meet; if that is even, whether the border is dark."""
    factor = max(1, round(max(grey.shape) / BACKGROUND_SIDE))
    small = np.asarray(Pillow.fromarray(grey).reduce(factor))
    reach = _reach(small)
    lightest, darkest = _widen(small, reach), -_widen(-small, reach)
    contrast = lightest - darkest
    busy = contrast > 0.5 * float(contrast.max())
    dark = float(np.mean((2 * small < lightest + darkest)[busy]))
    if abs(dark - 0.5) > 0.08:
        return dark > 0.5
    return float(np.median(_border(small))) < (float(small.min()) + float(small.max())) / 2


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _flatten(grey: np.ndarray, *, shaded: bool) -> np.ndarray:
    """How much darker than its background each pixel is: 0 to 255.

    Args:
        grey: dark ink on light paper.
        shaded: count the missing share of the background's light, so that a shadow does not weaken the ink in it.

    """
    factor = max(1, round(max(grey.shape) / BACKGROUND_SIDE))
    background = _close(np.asarray(Pillow.fromarray(grey).reduce(factor)))
    border = _border(background)
    if float(np.ptp(border)) < FLAT:
        full = np.median(border)
    else:
        full = np.asarray(Pillow.fromarray(background).resize(grey.shape[::-1], Pillow.Resampling.BILINEAR))
    ink = full - grey
    if shaded:
        ink *= 255 / np.maximum(full, 40)
    return np.maximum(ink, 0, out=ink)


def _close(grey: np.ndarray) -> np.ndarray:
    """A grey closing, by a square wider than any stroke: what is left where dark strokes are filled in."""
    reach = _reach(grey)
    return -_widen(-_widen(grey, reach), reach)


def _reach(grey: np.ndarray) -> int:
    """Half the width of the square that is wider than any stroke."""
    return max(2, round(max(grey.shape) * 0.11))


def _widen(values: np.ndarray, reach: int) -> np.ndarray:
    """The greatest value within `reach` pixels, along both axes."""
    for _ in range(2):
        padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
        width = 1
        while width < 2 * reach + 1:  # a window of width w from two that overlap
            step = min(width, 2 * reach + 1 - width)
            padded = np.maximum(padded[:-step], padded[step:])
            width += step
        values = padded.T
    return values


def _threshold(ink: np.ndarray) -> tuple[float, float]:
    """Otsu's threshold (1979, IEEE Trans. SMC 9:62-66) and the ink's typical level above it."""
    counts = np.bincount(ink.astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    weight = counts.cumsum()
    moment = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight / weight[-1] - moment) ** 2 / (weight * (weight[-1] - weight))
    threshold = int(np.nan_to_num(between).argmax())
    above = weight[-1] - weight[threshold]
    level = (moment[-1] - moment[threshold]) / max(above, 1.0)
    below = moment[threshold] / max(weight[threshold], 1.0)
    return max(float(threshold), 0.4 * level), float(level - below)


def _erase_rules(mask: np.ndarray) -> None:
    """Erase, in place, thin and nearly horizontal lines that run across the picture; strokes that cross them stay."""
    height, width = mask.shape
    thick = max(4, round(max(height, width) / 45))
    if height <= 2 * thick:
        return
    kept = mask[: height - thick + 1].copy()  # vertical runs of at least `thick` pixels
    for step in range(1, thick):
        kept &= mask[step : height - thick + 1 + step]
    opened = np.zeros_like(mask)
    for step in range(thick):
        opened[step : height - thick + 1 + step] |= kept
    thin = mask & ~opened
    if np.count_nonzero(thin.any(axis=0)) < 0.6 * width:
        return
    rows, columns = np.nonzero(thin)
    columns = columns - width / 2
    slopes = np.linspace(-0.08, 0.08, 17)
    margin = int(0.04 * width) + 2
    tallies = [
        np.bincount((rows - slope * columns + margin + 0.5).astype(np.intp), minlength=height + 2 * margin)
        for slope in slopes
    ]
    best = int(np.argmax([float((tally.astype(float) ** 2).sum()) for tally in tallies]))
    tally = tallies[best].astype(float)
    band = tally + np.roll(tally, 1) + np.roll(tally, -1)
    lines = band > 0.6 * width
    for _ in range(thick // 2):
        lines = lines | np.roll(lines, 1) | np.roll(lines, -1)
    hit = lines[(rows - slopes[best] * columns + margin + 0.5).astype(np.intp)]
    mask[rows[hit], (columns[hit] + width / 2).astype(np.intp)] = False


def _doubt(pixels: np.ndarray) -> Doubt | None:
    return _doubts(pixels[None])[0]


def _doubts(pixels: np.ndarray) -> list[Doubt | None]:
    """Whether the ink of each is more, thicker, flatter or more scattered than that of 1,999 digits in 2,000."""
    ink = pixels > 127
    across, down = ink[:, :, 1:] & ink[:, :, :-1], ink[:, 1:] & ink[:, :-1]
    inner = across[:, 1:-1, 1:] & across[:, 1:-1, :-1] & down[:, 1:, 1:-1] & down[:, :-1, 1:-1]
    area, beside, above, inside = (np.count_nonzero(part, axis=(1, 2)) for part in (ink, across, down, inner))
    rows = np.count_nonzero(ink.any(axis=2), axis=1)
    strokes = 2 * area - beside - above
    thick = 2 * area > THICKEST * (area - inside)
    odd = (area > MOST_INK) | (rows < LEAST_ROWS) | (strokes > MOST_STROKES) | thick
    return ["not_a_digit" if is_odd else None for is_odd in odd.tolist()]


def _render(ink: np.ndarray, level: float, parts: Parts, chosen: np.ndarray) -> np.ndarray:
    """Draw the chosen parts in MNIST's form, with strokes of about its width."""
    top, bottom = int(parts.top[chosen].min()), int(parts.bottom[chosen].max())
    left, right = int(parts.left[chosen].min()), int(parts.right[chosen].max())
    mask = draw(parts, chosen, ink.shape)
    height, width = int(bottom - top), int(right - left)
    own = np.zeros((height + 2, width + 2), bool)  # with a pixel around, for the soft edge
    inner = mask[top:bottom, left:right]
    own[1:-1, 1:-1] = inner
    grown = own.copy()
    for a, b in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        grown[a] |= own[b]
    wider = grown.copy()
    for a, b in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        wider[:, a] |= grown[:, b]
    around = np.pad(ink, 1)[top : bottom + 2, left : right + 2]
    soft = np.clip(around * (1.6 / level) - 0.3, 0, 1) * wider
    # A strip of width w and length l has area w*l, and loses 2*l when a pixel is taken off on each side.
    lost = np.count_nonzero(inner) - np.count_nonzero(
        own[:-2, 1:-1] & own[2:, 1:-1] & own[1:-1, :-2] & own[1:-1, 2:] & inner
    )
    stroke = 2 * np.count_nonzero(inner) / max(int(lost), 1) * BOX / max(height, width)
    fitted = _fit((255 * soft[1:-1, 1:-1]).astype(np.float32))
    if stroke < THIN:
        fitted = _thicken(fitted, min(1.0, THIN - stroke))
    return centre(fitted)


def _thicken(ink: np.ndarray, amount: float) -> np.ndarray:
    """Mix with the grey dilation by a pixel; amount 0 to 1."""
    padded = np.pad(ink, 1)
    tall = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    wide = np.maximum(np.maximum(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:])
    return ink + amount * 0.7 * (wide - ink)
