"""How a model does on a data set: loss, accuracy, confusion matrix, recall of each digit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.answering.review import review_reason
from daemon.config import InferenceSettings
from daemon.models import CLASSES
from daemon.models.backend import keras
from daemon.models.calibration import Calibration
from daemon.models.live import LiveModel
from daemon.models.network import as_input
from daemon.models.version import ModelIdentity
from daemon.training.dataset import Split
from daemon.training.gate import recall_by_digit


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a data set of n images.

    Attributes:
        truth, answers: (n,) int64 digits.
        loss: the mean cross-entropy; 0.0 without images.

    """

    truth: np.ndarray
    answers: np.ndarray
    loss: float

    @property
    def accuracy(self) -> float:
        """The share of right answers; 0.0 without images."""
        return float(np.mean(self.answers == self.truth)) if len(self.truth) else 0.0

    @property
    def recall(self) -> list[float]:
        """The share of each digit's images that were read as that digit."""
        return recall_by_digit(self.truth, self.answers)

    @property
    def confusion(self) -> np.ndarray:
        """(10, 10) counts of truth x answer."""
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        np.add.at(counts, (self.truth, self.answers), 1)
        return counts

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "images": len(self.truth),
            "loss": round(self.loss, 6),
            "accuracy": round(self.accuracy, 6),
            "recall": [round(value, 6) for value in self.recall],
            "confusion": self.confusion.tolist(),
        }


def evaluate(model: keras.Model, data: Split) -> Evaluation:
    """Compare a model's answers with the labels of a data set."""
    if not len(data):
        return Evaluation(data.y.astype(np.int64), data.y.astype(np.int64), 0.0)
    return compare(model.predict(as_input(data.x), batch_size=256, verbose=0), data.y)


def compare(probabilities: np.ndarray, digits: np.ndarray) -> Evaluation:
    """Compare (n, 10) answers with (n,) labels, n > 0."""
    truth = digits.astype(np.int64)
    losses = keras.losses.sparse_categorical_crossentropy(truth, probabilities)
    return Evaluation(truth, probabilities.argmax(axis=1), float(np.mean(losses)))


def held_back(
    path: Path, calibration: Calibration, data: dict[str, Split], limits: InferenceSettings
) -> dict[str, np.ndarray]:
    """Of which images a person should look at the answer that a saved model gives, live: (n,) bool for each data set.

    By the model alone: what speaks against a page speaks against it whatever the model says.
    """
    model = LiveModel(path, ModelIdentity("", ""), calibration)
    held = {}
    for name, split in data.items():
        answers = model.predict(split.x)
        doubts = zip(answers.probabilities.max(axis=1).tolist(), answers.energies.tolist(), strict=True)
        held[name] = np.array([review_reason(*one, None, limits) is not None for one in doubts], bool)
    return held


def saved_logits(path: Path, data: Split) -> np.ndarray:
    """The logits (n, 10) that a live model made of what was saved has."""
    return LiveModel(path, ModelIdentity("", ""), Calibration()).logits(data.x)
