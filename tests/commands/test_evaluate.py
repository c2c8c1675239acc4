"""`digitd evaluate`: how good a version is on the test set."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Digits, Run


def test_evaluate_on_a_small_data_set(run: Run, root: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, accuracy and confusion matrix of the test images of the configured data set."""
    x, y = digits.images[:200], np.array(digits.labels[:200])
    np.savez(root / "small.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "small.npz")
    code, out, err = run("evaluate")
    assert (0, "") == (code, err)
    lines = out.splitlines()
    assert "v0001 on 200 test images of small.npz" == lines[0]
    assert lines[1].startswith("loss ")
    rows = [line.split() for line in lines[5:15]]
    assert [str(digit) for digit in range(10)] == [row[0] for row in rows]
    assert 200 == sum(int(count) for row in rows for count in row[1:11] if count != ".")
    diagonal = sum(int(row[1 + digit]) for digit, row in enumerate(rows))
    assert f"accuracy  {diagonal / 200:.2%} ({200 - diagonal} wrong)" == lines[2]
    assert diagonal >= 198


def test_evaluate_of_an_unknown_version_exits_with_1(run: Run) -> None:
    """It lists the versions that there are."""
    code, out, err = run("evaluate", "v0009")
    assert (1, "") == (code, out)
    assert "Versions here: v0001" in err


def test_evaluate_without_data_exits_with_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that is not there is a fault of the configuration."""
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "none.npz")
    code, out, err = run("evaluate")
    assert (2, "") == (code, out)
    assert "[training] dataset" in err
