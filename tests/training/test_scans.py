"""scans.py: the shipped scans, who is learnt from and who is not, and how one scan becomes many."""

from pathlib import Path

import numpy as np
import pytest

from daemon.config import ConfigError
from daemon.training.scans import JUDGES, WATCHED, Scans, load_scans, read_scans, vary_scans
from tests.conftest import REPOSITORY

SHIPPED = "datasets/scans.npz"


@pytest.fixture(scope="module")
def scans() -> Scans:
    """The shipped ones."""
    return load_scans(SHIPPED, REPOSITORY)


def some(scans: Scans, step: int = 300) -> Scans:
    """One of each `step`."""
    return Scans(scans.pictures[::step], scans.digits[::step], scans.writers[::step])


def test_thirteen_people_wrote_each_digit_thirty_times(scans: Scans) -> None:
    """3,900 grey pictures of about 100x100, whatever their number of levels was."""
    _, counts = np.unique(
        [f"{writer}{digit}" for writer, digit in zip(scans.writers, scans.digits, strict=True)], return_counts=True
    )
    assert [30] * 130 == counts.tolist()
    assert all(
        picture.dtype == np.uint8 and 80 <= min(picture.shape) <= max(picture.shape) <= 110 for picture in scans.pictures
    )


def test_nobody_judges_who_was_learnt_from(scans: Scans) -> None:
    """Those who are learnt from, those who are watched, and those who judge are different people, and together all."""
    parts = [set(part.writers.tolist()) for part in (scans.learnt(), scans.by(WATCHED), scans.by(JUDGES))]
    assert [9, 1, 3] == [len(part) for part in parts]
    assert 13 == len(set.union(*parts))


def test_a_scan_becomes_many(scans: Scans) -> None:
    """Each as it is, then its variants, which are all different; the same seed gives the same ones."""
    few = some(scans)
    varied, again, other = vary_scans(few, 3, seed=1), vary_scans(few, 3, seed=1), vary_scans(few, 3, seed=2)
    assert 4 * len(few) - 2 <= len(varied) <= 4 * len(few)
    assert np.array_equal(read_scans(few).x, varied.x[: len(few)])
    assert np.array_equal(varied.x, again.x)
    assert not np.array_equal(varied.x[len(few) :], other.x[len(few) :])
    assert len(varied) == len(np.unique(varied.x.reshape(len(varied), -1), axis=0))


def test_without_scans_there_is_nothing() -> None:
    """An empty name is no file."""
    none = load_scans("", REPOSITORY)
    assert 0 == len(none) == len(read_scans(none)) == len(vary_scans(none, 3, seed=1))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """The message says what was expected, what was received, and what to do."""
    with pytest.raises(ConfigError, match=r"\[training\] scans: expected an .npz file.*Received: 'a.npz'.*digitd init"):
        load_scans("a.npz", tmp_path)
    (tmp_path / "a.npz").write_text("text")
    with pytest.raises(ConfigError, match=r"Received: .*/a\.npz: it is no \.npz\.$"):
        load_scans("a.npz", tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"digit": np.array([10], np.uint8)}, {"shape": np.array([[9, 9]])}, {"writer": np.array([])}]
)
def test_another_layout_is_told(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    """A digit above 9, a shape that does not fit, or a writer too few."""
    right = {"grey": np.zeros(20, np.uint8), "shape": np.array([[4, 5]]), "digit": np.array([3]), "writer": np.array(["x"])}
    np.savez(tmp_path / "a.npz", **right)
    assert (4, 5) == load_scans("a.npz", tmp_path).pictures[0].shape
    np.savez(tmp_path / "a.npz", **right | wrong)
    with pytest.raises(ConfigError, match="with the arrays grey, shape, digit, writer"):
        load_scans("a.npz", tmp_path)
