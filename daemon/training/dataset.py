"""The data a model learns from: the base data set and its split. Only Keras' own copy of MNIST needs TensorFlow."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.config import ConfigError, InboxSettings
from daemon.reading.content import InvalidImage
from daemon.reading.decode import load_image

KERAS_MNIST = "keras:mnist"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NO_DIGIT = 10  # the label of what is no digit
TEST_ONE_IN = 6  # of a folder data set; MNIST's own proportion is 1 in 7


@dataclass(frozen=True)
class Split:
    """Images and their digits: x (n, 28, 28) uint8 with ink 255 on paper 0, y (n,) uint8 from 0 to 9, or NO_DIGIT."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    @property
    def sha256(self) -> str:
        """A digest of both arrays."""
        return _digest(self.x, self.y)


def join(*parts: Split) -> Split:
    """One split of several, in their order."""
    return Split(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


@dataclass(frozen=True)
class BaseData:
    """The base data set, as keras.datasets.mnist.load_data() gives it, and its name.

    Attributes:
        train: what training and validation are taken from.
        test: the frozen hold-out; never trained on.
        sha256: a digest of all four arrays, so that a manifest can say what a model has seen.

    """

    name: str
    train: Split
    test: Split

    @property
    def sha256(self) -> str:
        return _digest(self.train.x, self.train.y, self.test.x, self.test.y)

    @property
    def holdouts(self) -> dict[str, Split]:
        """What no training sees, by the name that manifests and reports have for it; the gate decides on "holdout"."""
        return {"holdout": self.test}


def load_base_data(name: str, root: Path, limits: InboxSettings) -> BaseData:
    """Load `[training] dataset`.

    Args:
        name: "keras:mnist", a path to an .npz, or a folder with one sub-folder per digit; relative paths are below `root`.
        root: the root folder.
        limits: for decoding the images of a folder.

    Raises:
        ConfigError: there is no such data set, or it has another layout.

    """
    if name == KERAS_MNIST:
        from daemon.models.backend import keras  # 2 s: only when asked for

        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
        return BaseData(name, Split(x_train, y_train), Split(x_test, y_test))
    path = root / name
    if path.is_dir():
        return _load_folder(name, path, limits)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ARRAYS}
    except FileNotFoundError:
        raise ConfigError(
            f'[training] dataset: expected an .npz file, a folder or "{KERAS_MNIST}". Received: {name!r}, and there is '
            f"nothing at {path}."
        ) from None
    except Exception as error:  # numpy, zipfile and zlib raise almost anything on a damaged file
        raise ConfigError(
            f"[training] dataset: expected an .npz with the arrays {', '.join(ARRAYS)}. Received: {path}: "
            f"{why_not(path, error)}."
        ) from error
    data = BaseData(name, Split(arrays["x_train"], arrays["y_train"]), Split(arrays["x_test"], arrays["y_test"]))
    for part, split in (("train", data.train), ("test", data.test)):
        _check(part, split, path)
    return data


def split_validation(data: Split, share: float) -> tuple[Split, Split]:
    """Part a split into what is trained on and what early stopping watches: the last images of each digit.

    The last and not random ones, since a data set in its writers' order, as MNIST is, then has no writer in both parts.

    Args:
        data: n images.
        share: of each digit's images that become validation, 0 to 1.

    Returns:
        (training, validation).

    """
    held = np.zeros(len(data), bool)
    for digit in np.unique(data.y):
        of_digit = np.flatnonzero(data.y == digit)
        held[of_digit[len(of_digit) - max(1, round(share * len(of_digit))) :]] = True
    return Split(data.x[~held], data.y[~held]), Split(data.x[held], data.y[held])


def why_not(path: Path, error: Exception) -> str:
    """Why a file could not be read as an .npz: of what is none, numpy would say how to have it run code."""
    return str(error) if isinstance(error, OSError) or zipfile.is_zipfile(path) else "it is no .npz"


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _check(part: str, split: Split, path: Path) -> None:
    x, y = split.x, split.y
    if x.ndim != 3 or x.shape[1:] != (28, 28) or x.dtype != np.uint8 or len(x) == 0:
        raise ConfigError(
            f"[training] dataset: {path}: x_{part}: expected shape (n, 28, 28) of uint8, n > 0. "
            f"Received: {x.shape} of {x.dtype}."
        )
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() > 9:
        raise ConfigError(
            f"[training] dataset: {path}: y_{part}: expected shape ({len(x)},) of integers from 0 to 9. "
            f"Received: {y.shape} of {y.dtype}."
        )


def list_folder(folder: Path) -> Iterator[Path]:
    """The images of a folder that is a data set: folder/<digit>/*, without hidden ones, in the same order each time.

    Raises:
        OSError: a digit's folder cannot be looked into.

    """
    for digit in range(10):
        with suppress(FileNotFoundError):
            yield from sorted(file for file in (folder / str(digit)).iterdir() if not file.name.startswith("."))


def _load_folder(name: str, folder: Path, limits: InboxSettings) -> BaseData:
    """Read folder/<digit>/*; by the digest of its pixels one image in TEST_ONE_IN is test, for ever and in any format."""
    parts: dict[bool, tuple[list[np.ndarray], list[int]]] = {False: ([], []), True: ([], [])}
    try:
        found = list(list_folder(folder))
    except OSError as error:
        raise ConfigError(
            f"[training] dataset: {folder}: expected sub-folders 0 to 9 that can be looked into. Received: {error}"
        ) from error
    for file in found:
        digit = int(file.parent.name)
        try:
            pixels = load_image(file, limits.max_bytes, limits.max_pixels).pixels
        except (InvalidImage, OSError) as error:
            raise ConfigError(f"[training] dataset: {file}: expected an image of a {digit}. Received: {error}") from error
        images, digits = parts[int(_digest(pixels)[:8], 16) % TEST_ONE_IN == 0]
        images.append(pixels)
        digits.append(digit)
    for part, (images, _) in zip(("training", "test"), parts.values(), strict=True):
        if not images:
            raise ConfigError(
                f"[training] dataset: {folder}: expected sub-folders 0 to 9 with images, enough that one in "
                f"{TEST_ONE_IN} can be kept for testing. Received: none for {part}."
            )
    if missing := sorted({*range(10)}.difference(*(digits for _, digits in parts.values()))):  # it would be forgotten
        raise ConfigError(
            f"[training] dataset: {folder}: expected sub-folders 0 to 9 with images. "
            f"Received: none of {', '.join(map(str, missing))}."
        )
    train, test = (Split(np.stack(images), np.array(digits, np.uint8)) for images, digits in parts.values())
    return BaseData(name, train, test)
