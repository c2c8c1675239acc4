"""Batch normalisation folded into the layer before it, for inference: the same answers with fewer passes over memory.

At inference a normalisation is y = gamma * (x - mean) / sqrt(variance + epsilon) + beta with constants, which a convolution
or dense layer before it can do with other weights (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daemon.models.backend import keras

layers = keras.layers


# Layers of which configuration and weights say all that they do, so that one can be made anew from them. Others may keep a
# state besides, such as Normalization, whose mean is no weight once it is adapted.
KNOWN = {
    layers.Activation,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Conv2D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.MaxPooling2D,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.Reshape,
    layers.Softmax,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
}


def fold(model: keras.Model) -> keras.Sequential | None:
    """Give a model of its own for inference that answers as this one does.

    Args:
        model: as `load_model` gives it.

    Returns:
        None for a model that is no Sequential of KNOWN layers in float32.

    """
    if not isinstance(model, keras.Sequential) or not all(
        type(layer) in KNOWN and layer.dtype_policy.name == "float32" for layer in model.layers
    ):
        return None
    parts = [keras.Input(model.input_shape[1:])]
    for layer, normalisation in _steps(model):
        config = layer.get_config()
        parts.append(type(layer).from_config(config | {"use_bias": True} if normalisation else config))
    folded = keras.Sequential(parts)  # at once: with each layer that is added to one, Keras makes all of it anew
    refold(model, folded)
    return folded


def refold(model: keras.Sequential, folded: keras.Sequential) -> None:
    """Bring the weights of what `fold` gave up to date with those of the model."""
    for (layer, normalisation), target in zip(_steps(model), folded.layers, strict=True):
        target.set_weights(_fold_weights(layer, normalisation) if normalisation else layer.get_weights())


def _steps(model: keras.Sequential) -> Iterator[tuple[keras.Layer, keras.keras.layers.BatchNormalization | None]]:
    """Each layer that does something at inference, with the normalisation that can be folded into it."""
    active = [layer for layer in model.layers if not isinstance(layer, layers.Dropout)]
    folded = None
    for layer, following in zip(active, [*active[1:], None], strict=True):
        if layer is folded:
            continue
        folded = following if _can_take(layer, following) else None
        yield layer, folded


def _can_take(layer: keras.Layer, following: keras.Layer | None) -> bool:
    return (
        type(layer) in (layers.Conv2D, layers.Dense)
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and isinstance(following, layers.BatchNormalization)
        and following.axis in (-1, len(layer.output.shape) - 1)
    )


def _fold_weights(layer: keras.Layer, normalisation: keras.layers.BatchNormalization) -> list[np.ndarray]:
    kernel, *bias = layer.get_weights()
    factor = 1 / np.sqrt(np.asarray(normalisation.moving_variance) + normalisation.epsilon)
    if normalisation.scale:
        factor = factor * np.asarray(normalisation.gamma)
    offset = ((bias[0] if bias else 0) - np.asarray(normalisation.moving_mean)) * factor
    if normalisation.center:
        offset = offset + np.asarray(normalisation.beta)
    return [kernel * factor, offset]
