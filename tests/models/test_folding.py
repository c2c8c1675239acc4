"""folding.py: batch normalisation folded into the layer before it."""

import numpy as np
import pytest

from daemon.models.backend import keras
from daemon.models.folding import fold, refold

layers = keras.layers


def disturb(model: keras.Model, seed: int) -> None:
    """Give every weight, and so every mean and variance, a value of its own."""
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.2, 1.2, weight.shape).astype(np.float32) for weight in model.get_weights()])


def network(*between: keras.layers.Layer) -> keras.Sequential:
    """A Sequential from (28, 28, 1) to 10 logits with these layers in it."""
    return keras.Sequential([keras.Input((28, 28, 1)), *between, layers.Flatten(), layers.Dense(10)])


FOLDING = {
    "without a bias": [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()],
    "with a bias": [layers.Conv2D(4, 3), layers.BatchNormalization(epsilon=0.1)],
    "neither scaled nor centred": [layers.Conv2D(4, 3), layers.BatchNormalization(scale=False, center=False)],
    "after a dense layer": [layers.Flatten(), layers.Dense(5), layers.BatchNormalization(), layers.ReLU()],
    "after dropout": [layers.Conv2D(4, 3), layers.Dropout(0.5), layers.BatchNormalization()],
}
STAYING = {
    "after an activation": [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()],
    "first of all": [layers.BatchNormalization(), layers.Conv2D(4, 3)],
    "over rows": [layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)],
}


@pytest.mark.parametrize("between", (FOLDING | STAYING).values(), ids=(FOLDING | STAYING).keys())
def test_a_folded_model_answers_alike(between: list[keras.layers.Layer]) -> None:
    """Whatever stands around a normalisation, the answers stay the same; also with weights that were filled in later."""
    model = network(*[type(layer).from_config(layer.get_config()) for layer in between])
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    disturb(model, 1)
    folded = fold(model)
    np.testing.assert_allclose(model.predict_on_batch(images), folded.predict_on_batch(images), rtol=1e-4)
    disturb(model, 2)
    refold(model, folded)
    np.testing.assert_allclose(model.predict_on_batch(images), folded.predict_on_batch(images), rtol=1e-4)


@pytest.mark.parametrize("between", FOLDING.values(), ids=FOLDING.keys())
def test_folding_leaves_no_normalisation(between: list[keras.layers.Layer]) -> None:
    """A normalisation after a convolution or a dense layer is gone."""
    folded = fold(network(*[type(layer).from_config(layer.get_config()) for layer in between]))
    assert not any(isinstance(layer, layers.BatchNormalization | layers.Dropout) for layer in folded.layers)


def test_a_model_that_is_no_sequential_is_left_alone() -> None:
    """A functional model, which may branch, is not folded."""
    entry = keras.Input((28, 28, 1))
    model = keras.Model(entry, layers.Dense(10)(layers.Flatten()(layers.BatchNormalization()(entry))))
    assert fold(model) is None
