"""How a model does on a data set: loss, accuracy, confusion matrix, recall of each digit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.models.backend import keras
from daemon.models.live import CLASSES, as_input, give_logits, read_model
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
    """Load what was saved, and give its logits (n, 10) as a live model has them."""
    model = read_model(path)
    gives = give_logits(model)
    answers: np.ndarray = model.predict(as_input(data.x), batch_size=256, verbose=0)
    return answers if gives else np.log(np.maximum(answers, 1e-12))


def evaluate(model: keras.Model, data: Split) -> Evaluation:
    """Compare a model's answers with the labels of a data set."""
    if not len(data):
        return Evaluation(0.0, 0.0, np.zeros((CLASSES, CLASSES), np.int64), np.empty(0, np.int64))
    probabilities = model.predict(as_input(data.x), batch_size=256, verbose=0)
    answers = probabilities.argmax(axis=1)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (data.y.astype(np.int64), answers), 1)
    losses = keras.losses.sparse_categorical_crossentropy(data.y, probabilities)
    return Evaluation(float(np.mean(losses)), float(np.mean(answers == data.y)), confusion, answers)
