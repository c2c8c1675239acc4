"""Batch normalisation folded into the layer before it, for inference: the same answers with fewer passes over memory.

At inference a normalisation is y = gamma * (x - mean) / sqrt(variance + epsilon) + beta with constants, which a convolution
or dense layer before it can do with other weights (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daemon.models.backend import keras


def fold(model: keras.Model) -> keras.Model:
    """Give a model for inference that answers as this one does.

    Args:
        model: as `load_model` gives it. One that is no Sequential comes back as it is.

    """
    if not isinstance(model, keras.Sequential):
        return model
    folded = keras.Sequential([keras.Input(model.input_shape[1:])])
    for layer, normalisation in _steps(model):
        config = layer.get_config()
        folded.add(type(layer).from_config(config | {"use_bias": True} if normalisation else config))
    refold(model, folded)
    return folded


def refold(model: keras.Model, folded: keras.Model) -> None:
    """Bring the weights of what `fold` gave up to date with those of the model."""
    if folded is model:
        return
    for (layer, normalisation), target in zip(_steps(model), folded.layers, strict=True):
        target.set_weights(_fold_weights(layer, normalisation) if normalisation else layer.get_weights())


def _steps(model: keras.Sequential) -> Iterator[tuple[keras.layers.Layer, keras.layers.BatchNormalization | None]]:
    """Each layer that does something at inference, with the normalisation that can be folded into it."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Dropout)]
    folded = None
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if layer is folded:
            continue
        folded = following if _can_take(layer, following) else None
        yield layer, folded


def _can_take(layer: keras.layers.Layer, following: keras.layers.Layer | None) -> bool:
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.Dense)
        and layer.activation is keras.activations.linear
        and isinstance(following, keras.layers.BatchNormalization)
        and following.axis in (-1, len(layer.output.shape) - 1)
    )


def _fold_weights(layer: keras.layers.Layer, normalisation: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = layer.get_weights()
    factor = 1 / np.sqrt(np.asarray(normalisation.moving_variance) + normalisation.epsilon)
    if normalisation.scale:
        factor = factor * np.asarray(normalisation.gamma)
    offset = ((bias[0] if bias else 0) - np.asarray(normalisation.moving_mean)) * factor
    if normalisation.center:
        offset = offset + np.asarray(normalisation.beta)
    return [kernel * factor, offset]
