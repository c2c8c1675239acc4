"""How a model does on a data set: loss, accuracy, confusion matrix, recall of each digit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.models import CLASSES
from daemon.models.backend import keras
from daemon.models.calibration import Calibration
from daemon.models.live import LiveModel
from daemon.models.network import as_input
from daemon.models.version import ModelIdentity
from daemon.training.dataset import Split


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a data set of n images.

    Attributes:
        loss: the mean cross-entropy.
        accuracy: the share of right answers.
        confusion: (10, 10) counts of truth x answer.
        answers: (n,) digits.

    """

    loss: float
    accuracy: float
    confusion: np.ndarray
    answers: np.ndarray

    @property
    def recall(self) -> list[float]:
        """The share of each digit's images that were read as that digit; 1.0 for a digit without images."""
        counts = self.confusion.sum(axis=1)
        return [
            float(right / count) if count else 1.0 for right, count in zip(self.confusion.diagonal(), counts, strict=True)
        ]


def saved_logits(path: Path, data: Split) -> np.ndarray:
    """The logits (n, 10) that a live model made of what was saved has."""
    return LiveModel(path, ModelIdentity("", ""), Calibration()).logits(data.x)


def evaluate(model: keras.Model, data: Split) -> Evaluation:
    """Compare a model's answers with the labels of a data set."""
    if not len(data):
        return Evaluation(0.0, 0.0, np.zeros((CLASSES, CLASSES), np.int64), np.empty(0, np.int64))
    probabilities = model.predict(as_input(data.x), batch_size=256, verbose=0)
    return compare(probabilities, data.y)


def compare(probabilities: np.ndarray, digits: np.ndarray) -> Evaluation:
    """Compare (n, 10) answers with (n,) labels, n > 0."""
    answers = probabilities.argmax(axis=1)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (digits.astype(np.int64), answers), 1)
    losses = keras.losses.sparse_categorical_crossentropy(digits, probabilities)
    return Evaluation(float(np.mean(losses)), float(np.mean(answers == digits)), confusion, answers)
