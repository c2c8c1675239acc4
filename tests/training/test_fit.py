"""fit.py: the network is compiled with what the configuration names; how a training proceeds, and what it is of."""

import numpy as np
import pytest

from daemon.config import Settings
from daemon.models.network import build_model
from daemon.models.registry import Registry
from daemon.training.corrections import Corrections
from daemon.training.dataset import BaseData, Split
from daemon.training.fit import Course, TrainingData, choose_course, choose_model, compile_model
from daemon.training.scans import Scans
from tests.conftest import REPOSITORY

NOTHING = Split(np.empty((0, 28, 28), np.uint8), np.empty(0, np.uint8))


@pytest.mark.parametrize("optimizer", ["adam", "SGD", "rmsprop"])
def test_any_keras_optimizer_can_be_named(settings: Settings, optimizer: str) -> None:
    """The configured loss and optimizer are what the model is compiled with."""
    model = build_model(settings.training.layers)
    compile_model(model, settings.training.model_copy(update={"optimizer": optimizer}), learning_rate=0.01, steps=10)
    assert optimizer.lower() == type(model.optimizer).__name__.lower()
    assert "categorical_crossentropy" == model.loss


def course(settings: Settings, corrections: int) -> Course:
    """The course from the shipped model, with so many corrections to learn from."""
    learnt = Split(np.zeros((corrections, 28, 28), np.uint8), np.zeros(corrections, np.uint8))
    scans = Scans([], np.empty(0, np.uint8), np.empty(0, str))
    data = TrainingData(
        BaseData("none", NOTHING, NOTHING),
        scans,
        NOTHING,
        NOTHING,
        NOTHING,
        NOTHING,
        Corrections(learnt, NOTHING, NOTHING, NOTHING, []),
    )
    champion = Registry(REPOSITORY / "models").version("v0001")
    return choose_course(settings, *choose_model(settings, champion), data)


def test_few_corrections_are_learnt_from_as_configured(settings: Settings) -> None:
    """Up to a hundred: the configured steps, share and learning rate."""
    for count in (0, 20, 100):
        given = course(settings, count)
        assert (12, 100, 0.1, 0.001) == (given.epochs, given.steps, given.share, given.learning_rate)


def test_of_more_corrections_more_is_learnt(settings: Settings) -> None:
    """Four times as many: twice the steps and twice their share in each batch."""
    given = course(settings, 400)
    assert (200, 0.2) == (given.steps, given.share)
    assert 0.001 < given.learning_rate < settings.training.learning_rate


def test_the_most_that_is_learnt_of_corrections(settings: Settings) -> None:
    """However many there are, most of a batch is base data, and a training has an end."""
    given = course(settings, 100_000)
    assert (400, 0.4, 0.002) == (given.steps, given.share, given.learning_rate)
