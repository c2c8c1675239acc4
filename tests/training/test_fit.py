"""fit.py: the network is compiled with what the configuration names."""

import pytest

from daemon.config import Settings
from daemon.models.network import build_model
from daemon.training.fit import compile_model


@pytest.mark.parametrize("optimizer", ["adam", "SGD", "rmsprop"])
def test_any_keras_optimizer_can_be_named(settings: Settings, optimizer: str) -> None:
    """The configured loss and optimizer are what the model is compiled with."""
    model = build_model(settings.training.layers)
    compile_model(model, settings.training.model_copy(update={"optimizer": optimizer}), learning_rate=0.01, steps=10)
    assert optimizer.lower() == type(model.optimizer).__name__.lower()
    assert "categorical_crossentropy" == model.loss
