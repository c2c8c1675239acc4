"""dataset.py: the base data set in its three forms, and its split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.config import ConfigError, InboxSettings
from daemon.training.dataset import BaseData, Split, load_base_data, split_validation
from tests.conftest import REPOSITORY, Digits, as_ordinary_user
from tests.training.test_corrections import put

LIMITS = InboxSettings()
SHIPPED = REPOSITORY / "datasets" / "mnist.npz"


def arrays(n: int = 4) -> dict[str, np.ndarray]:
    """A valid data set of n + n images."""
    x, y = np.zeros((n, 28, 28), np.uint8), np.arange(n) % 10
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y}


def load(folder: Path, name: str = "data.npz") -> BaseData:
    """Load what this test wrote."""
    return load_base_data(name, folder, LIMITS)


def test_the_shipped_data_set_is_mnist() -> None:
    """60,000 and 10,000 images in Keras' layout, with every digit."""
    data = load_base_data("datasets/mnist.npz", REPOSITORY, LIMITS)
    assert ((60000, 28, 28), (10000, 28, 28)) == (data.train.x.shape, data.test.x.shape)
    assert set(range(10)) == set(data.test.y.tolist())


def test_the_digest_names_the_content(tmp_path: Path) -> None:
    """The same arrays give the same digest; one other pixel gives another."""
    np.savez(tmp_path / "data.npz", **arrays())
    first = load(tmp_path).sha256
    np.savez_compressed(tmp_path / "data.npz", **arrays())
    assert first == load(tmp_path).sha256
    changed = arrays()
    changed["x_test"] = changed["x_test"].copy()
    changed["x_test"][0, 0, 0] = 1
    np.savez(tmp_path / "data.npz", **changed)
    assert first != load(tmp_path).sha256


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """A data set need not be below the root."""
    np.savez(tmp_path / "data.npz", **arrays())
    assert len(load_base_data(str(tmp_path / "data.npz"), Path("/nowhere"), LIMITS).train) == 4


def test_a_missing_data_set_is_a_configuration_error(tmp_path: Path) -> None:
    """The message says what was looked for, and where."""
    with pytest.raises(ConfigError, match=r"there is nothing at .*data\.npz"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((4, 28, 27), np.uint8)}, r"x_train: expected shape \(n, 28, 28\) of uint8"),
        ({"x_test": np.zeros((4, 28, 28), np.float32)}, r"x_test: .* Received: \(4, 28, 28\) of float32"),
        ({"x_train": np.zeros((0, 28, 28), np.uint8)}, "x_train: .*n > 0"),
        ({"y_train": np.zeros(3, np.uint8)}, r"y_train: expected shape \(4,\) of integers"),
        ({"y_train": np.zeros((4, 10))}, "y_train: expected"),
        ({"y_test": np.array([0, 1, 2, 10])}, "y_test: .* from 0 to 9"),
        ({"y_test": np.array([0, 1, 2, -1])}, "y_test: .* from 0 to 9"),
        ({"y_test": np.zeros(4)}, "y_test: .* Received: .*float64"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    """The array is named, with what was expected and what was received."""
    np.savez(tmp_path / "data.npz", **(arrays() | change))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


def test_a_missing_array_is_refused(tmp_path: Path) -> None:
    """All four arrays are expected."""
    np.savez(tmp_path / "data.npz", x_train=arrays()["x_train"])
    with pytest.raises(ConfigError, match=r"expected an \.npz with the arrays x_train, y_train, x_test, y_test"):
        load(tmp_path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    """A data set cannot run code."""
    np.savez(tmp_path / "data.npz", **(arrays() | {"y_train": np.array([{}, {}, {}, {}], object)}))
    with pytest.raises(ConfigError, match=r"expected an \.npz"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", SHIPPED.read_bytes()[:100_000]])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """Text, an empty file, half a file: a configuration error."""
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"expected an \.npz") as refused:
        load(tmp_path)
    assert "pickle" not in str(refused.value), "nobody is told to load it unsafely"


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    """An .npy is not an .npz."""
    np.save(tmp_path / "data.npy", arrays()["x_train"])
    with pytest.raises(ConfigError, match=r"expected an \.npz"):
        load(tmp_path, "data.npy")


def test_a_damaged_file_is_refused(tmp_path: Path, digits: Digits) -> None:
    """Wherever a byte is wrong, it is a configuration error or a data set of the right form."""
    file = tmp_path / "data.npz"
    x, y = digits.images[:20], np.array(digits.labels[:20])
    np.savez_compressed(file, x_train=x, y_train=y, x_test=x, y_test=y)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 300).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            load(tmp_path)
        except ConfigError:
            refused += 1
    assert refused > 200


def test_a_folder_is_a_data_set(tmp_path: Path, digits: Digits) -> None:
    """A folder with one sub-folder per digit is read; test and training images are parted by content."""
    for number in range(120):
        folder = tmp_path / "mine" / str(digits.labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(digits.png(number))
        (folder / ".hidden").touch()
    data = load(tmp_path, "mine")
    assert len(data.train) + len(data.test) == 120
    assert 8 <= len(data.test) <= 35
    expected = {digits.images[number].tobytes(): digits.labels[number] for number in range(120)}
    received = {x.tobytes(): int(y) for part in (data.train, data.test) for x, y in zip(part.x, part.y, strict=True)}
    assert expected == received
    (tmp_path / "mine" / str(digits.labels[120]) / "new.png").write_bytes(digits.png(120))
    assert {x.tobytes() for x in data.test.x} <= {x.tobytes() for x in load(tmp_path, "mine").test.x}


def test_an_image_is_in_one_part_in_whatever_format(tmp_path: Path, digits: Digits) -> None:
    """What is learnt from its PNG is not tested on its BMP."""
    for number in range(70):
        folder = tmp_path / "mine" / str(digits.labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(digits.png(number))
        Image.fromarray(digits.images[number]).save(folder / f"{number}.bmp")
    data = load(tmp_path, "mine")
    assert not {x.tobytes() for x in data.train.x} & {x.tobytes() for x in data.test.x}


def test_a_folder_with_another_file_is_refused(tmp_path: Path) -> None:
    """What is no image is named."""
    (tmp_path / "mine" / "3").mkdir(parents=True)
    (tmp_path / "mine" / "3" / "notes.txt").write_text("notes")
    with pytest.raises(ConfigError, match=r"notes\.txt: expected an image of a 3.*not_an_image"):
        load(tmp_path, "mine")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """Without images there is nothing to learn."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="Received: none for training"):
        load(tmp_path, "mine")


def test_a_folder_that_cannot_be_looked_into_is_not_passed_over(open_path: Path, digits: Digits) -> None:
    """Without one digit, or with a folder that somebody has closed, a training would have forgotten that digit."""
    data = open_path / "mine"
    for number in range(120):
        put(data, digits.labels[number], f"{number}.png", digits.png(number))
    load(open_path, "mine")
    (data / "4").chmod(0)
    try:
        with as_ordinary_user(), pytest.raises(ConfigError, match=r"can be looked into.* Permission denied.*/4"):
            load(open_path, "mine")
    finally:
        (data / "4").chmod(0o755)
    shutil.rmtree(data / "4")
    with pytest.raises(ConfigError, match=r"sub-folders 0 to 9 with images\. Received: none of 4\."):
        load(open_path, "mine")


def test_the_validation_split_is_a_partition() -> None:
    """Every image is in exactly one part, and the shares are right."""
    data = Split(np.arange(1000, dtype=np.uint16).reshape(1000, 1, 1), np.arange(1000) % 10)
    training, validation = split_validation(data, 0.1)
    assert (900, 100) == (len(training), len(validation))
    assert list(range(1000)) == sorted([*training.x.ravel().tolist(), *validation.x.ravel().tolist()])
    assert ((training.x.ravel() % 10) == training.y).all()


def test_validation_is_the_last_of_each_digit() -> None:
    """In a data set in its writers' order no writer is in both parts, and a sorted one still has every digit in both."""
    data = Split(np.arange(100, dtype=np.uint8).reshape(100, 1, 1), np.arange(100) // 10)
    _, validation = split_validation(data, 0.2)
    assert [10 * digit + last for digit in range(10) for last in (8, 9)] == validation.x.ravel().tolist()
