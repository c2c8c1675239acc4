"""augmentation.py: each training image is changed a little, within the configured limits."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from daemon.config import Augmentation
from daemon.training.augmentation import augment
from daemon.training.batches import training_batches
from daemon.training.dataset import Split
from tests.conftest import Digits


def test_no_augmentation_changes_nothing(digits: Digits) -> None:
    """With limits of 0 images come back as they were, in 0..1."""
    limits = Augmentation(**dict.fromkeys(Augmentation.model_fields, 0.0))
    given = augment(digits.images[:8], limits).numpy()
    assert ((8, 28, 28, 1), np.float32) == (given.shape, given.dtype)
    np.testing.assert_allclose(digits.images[:8, :, :, None] / 255, given, atol=1e-5)


def test_augmentation_changes_each_image_a_little(digits: Digits) -> None:
    """Every copy of one image is another one, of about as much ink, in 0..1."""
    copies = np.repeat(digits.images[:1], 32, axis=0)
    given = augment(copies, Augmentation()).numpy()
    assert 0 <= given.min() <= given.max() <= 1.0001
    assert 32 == len({copy.tobytes() for copy in given})
    ink = given.sum(axis=(1, 2, 3)) / (copies[0] / 255).sum()
    assert 0.4 < ink.min() < ink.max() < 2.2


def test_batches_come_without_files(tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoGraph would write one for each function, and a trainer that is killed could not remove them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = Split(digits.images[:8], digits.labels[:8])
    x, y = next(iter(training_batches(data, data, 8, 0.5, Augmentation(), seed=1)))
    assert ((8, 28, 28, 1), (8, 10)) == (x.shape, y.shape)
    assert [] == list(tmp_path.iterdir())
