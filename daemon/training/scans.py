"""Scans of digits that people wrote on forms: who is learnt from, who only judges, and how one scan becomes many."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from daemon.config import ConfigError
from daemon.reading.mnist import SIDE
from daemon.training.dataset import Split, why_not
from daemon.training.paper import deliver, read, some_side

JUDGES = ("0004_CH4M", "0012_CH3M", "0015_CH2M")  # writers whom no training sees, chosen before the first one
WATCHED = ("0006_CH4M",)  # writers whom early stopping and calibration look at
ARRAYS = ("grey", "shape", "digit", "writer")
KNOTS = 4  # a side; between them a scan is warped smoothly


@dataclass(frozen=True)
class Scans:
    """Scans of n digits.

    Attributes:
        pictures: (height, width) uint8 each, dark ink on light paper.
        digits: (n,) uint8, 0 to 9.
        writers: (n,) str, who wrote them.

    """

    pictures: list[np.ndarray]
    digits: np.ndarray
    writers: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def learnt(self) -> Scans:
        """Those by neither JUDGES nor WATCHED."""
        return self._chosen(~np.isin(self.writers, JUDGES + WATCHED))

    def by(self, writers: tuple[str, ...]) -> Scans:
        """Those by some writers."""
        return self._chosen(np.isin(self.writers, writers))

    def writers_by_part(self) -> dict[str, list[str]]:
        """Who is learnt from, who is watched, and who judges."""
        parts = {"learnt": self.learnt(), "watched": self.by(WATCHED), "judges": self.by(JUDGES)}
        return {name: np.unique(part.writers).tolist() for name, part in parts.items()}

    def _chosen(self, chosen: np.ndarray) -> Scans:
        pictures = [self.pictures[number] for number in np.flatnonzero(chosen)]
        return Scans(pictures, self.digits[chosen], self.writers[chosen])

    @property
    def sha256(self) -> str:
        """A digest of the pictures and digits."""
        digest = hashlib.sha256(np.ascontiguousarray(self.digits).data)
        for picture in self.pictures:
            digest.update(np.ascontiguousarray(picture).data)
        return digest.hexdigest()


def load_scans(name: str, root: Path) -> Scans:
    """Load `[training] scans`.

    Args:
        name: of an .npz with `grey` (all pixels, one picture after the other, uint8), `shape` (n, 2), `digit` (n,) and
            `writer` (n,); relative to `root`. "" for none.
        root: the root folder.

    Raises:
        ConfigError: there is no such file, or it has another layout.

    """
    if not name:
        return Scans([], np.empty(0, np.uint8), np.empty(0, str))
    path = root / name
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            grey, shapes, digits, writers = (file[key] for key in ARRAYS)
        ends = shapes.astype(int).prod(axis=1).cumsum()
        pictures = [part.reshape(shape) for part, shape in zip(np.split(grey, ends[:-1]), shapes.tolist(), strict=True)]
        if not len(pictures) == len(digits) == len(writers) or digits.max() > 9 or grey.dtype != np.uint8:
            raise ValueError(f"{len(pictures)} pictures, {len(digits)} digits, {len(writers)} writers")
    except FileNotFoundError:
        raise ConfigError(
            f'[training] scans: expected an .npz file, or "" for none. Received: {name!r}, and there is nothing at {path}. '
            "`digitd init` lays it there."
        ) from None
    except Exception as error:  # numpy, zipfile and zlib raise almost anything on a damaged file
        raise ConfigError(
            f"[training] scans: expected an .npz with the arrays {', '.join(ARRAYS)}. Received: {path}: "
            f"{why_not(path, error)}."
        ) from error
    return Scans(pictures, digits, writers)


def read_scans(scans: Scans) -> Split:
    """Each scan as the daemon reads it."""
    pixels, kept = read(scans.pictures)
    return Split(pixels, scans.digits[kept])


def vary_scans(scans: Scans, times: int, seed: int) -> Split:
    """Each scan as it is and `times` times as the same hand might have written and another scanner delivered it."""
    random = np.random.default_rng([seed, 2])
    parts = [read_scans(scans)]
    for _ in range(times if len(scans) else 0):
        pixels, kept = read([deliver(vary(picture, random), random) for picture in scans.pictures])
        parts.append(Split(pixels, scans.digits[kept]))
    x = np.concatenate([part.x for part in parts]).reshape(-1, SIDE, SIDE)
    return Split(x, np.concatenate([part.y for part in parts]))


def vary(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Write a scan again: turned, slanted, stretched, wobbly, with another pen, at another size; (height, width) uint8."""
    height, width = picture.shape
    paper = int(np.median(picture))
    scale = some_side(random) / max(height, width)
    changed = Image.fromarray(picture)
    pen = random.uniform(-0.6, 1) if random.random() < 0.5 else 0.0
    if pen:
        other = changed.filter(ImageFilter.MinFilter(3) if pen > 0 else ImageFilter.MaxFilter(3))
        changed = Image.blend(changed, other, abs(pen))
    if scale < 0.7:
        changed = changed.filter(ImageFilter.GaussianBlur(0.5 / scale - 0.3))
    turn, slant, stretch = np.radians(random.normal(0, 5)), random.normal(0, 0.14), np.exp(random.normal(0, 0.1))
    written = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ [[1, slant], [0, 1]]
    written = scale * written @ np.diag([stretch, 1 / stretch])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2] @ written.T
    size = np.ceil(np.ptp(corners, axis=0)).astype(int) + 2
    # Where each knot of the new picture comes from in the old one.
    knots = np.stack(np.meshgrid(*(np.linspace(0, length, KNOTS).round() for length in size), indexing="ij"), axis=-1)
    sources = (knots - size / 2) @ np.linalg.inv(written).T + [width / 2, height / 2]
    sources += random.normal(0, 0.02 * max(height, width), sources.shape)
    mesh = []
    for i in range(KNOTS - 1):
        for j in range(KNOTS - 1):
            box = (*knots[i, j].astype(int).tolist(), *knots[i + 1, j + 1].astype(int).tolist())
            quad = (*sources[i, j], *sources[i, j + 1], *sources[i + 1, j + 1], *sources[i + 1, j])
            mesh.append((box, quad))
    changed = changed.transform(
        (int(size[0]), int(size[1])), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR, fillcolor=paper
    )
    return np.asarray(changed)
