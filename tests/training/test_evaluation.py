"""evaluation.py: how a model does, counted."""

import numpy as np
import pytest

from daemon.models.network import read_model
from daemon.training.dataset import Split
from daemon.training.evaluation import evaluate
from tests.conftest import REPOSITORY, Digits


def test_evaluation_counts_truth_by_answer(digits: Digits) -> None:
    """Accuracy, recall and confusion matrix agree with the model's answers, one by one."""
    model = read_model(REPOSITORY / "models" / "v0001.h5")
    labels = np.array(digits.labels[:300])
    labels[:30] = (labels[:30] + 1) % 10
    result = evaluate(model, Split(digits.images[:300], labels))
    assert 300 == result.confusion.sum()
    np.testing.assert_array_equal(np.bincount(labels, minlength=10), result.confusion.sum(axis=1))
    assert result.confusion.trace() / 300 == pytest.approx(result.accuracy)
    assert 0.89 <= result.accuracy <= 0.9
    assert result.loss > 0.3
    assert result.confusion[3, 3] / result.confusion[3].sum() == pytest.approx(result.recall[3])
