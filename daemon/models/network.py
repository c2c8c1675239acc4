"""The network: building it from the configuration, reading a saved one.

Importing this module imports TensorFlow (2 s, 560 MB), so nothing that needs no model may import it at its top.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from daemon.config import ConfigError, Layer
from daemon.models import CLASSES
from daemon.models.backend import keras
from daemon.models.canary import canary_digits

IMAGE_SHAPE = (28, 28, 1)


class ModelError(Exception):
    """A model file cannot be used; the message says what was expected and what was received."""


def build_model(layers: Sequence[Layer]) -> keras.Sequential:
    """Build the network that `[[training.layers]]` describes.

    Args:
        layers: class names of keras.layers with their constructor arguments, first to last.

    Returns:
        An uncompiled Sequential from (n, 28, 28, 1) float32 in 0..1 to (n, 10) probabilities.

    Raises:
        ConfigError: Keras knows no such layer, refuses its arguments, or the output is not ten probabilities.

    """
    model = keras.Sequential([keras.Input(IMAGE_SHAPE)])
    for number, spec in enumerate(layers, start=1):
        kind = getattr(keras.layers, spec.layer, None)
        if not (isinstance(kind, type) and issubclass(kind, keras.layers.Layer)):
            raise ConfigError(
                f"[[training.layers]] number {number}: layer: expected the name of a class in keras.layers, such as "
                f'"Dense". Received: {spec.layer!r}.'
            )
        try:
            model.add(kind(**spec.arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"[[training.layers]] number {number} ({spec.layer}): expected arguments that Keras accepts. "
                f"Received: {spec.arguments}. Keras says: {error}"
            ) from error
    if model.output_shape != (None, CLASSES):
        raise ConfigError(
            f"[[training.layers]]: expected an output of shape (n, {CLASSES}), one probability a digit. "
            f"Received: {model.output_shape}. End with a Dense layer of {CLASSES} units and softmax."
        )
    if not are_probabilities(answer(model, canary_digits()[0][:CLASSES])):
        raise ConfigError(
            f"[[training.layers]] number {len(layers)} ({layers[-1].layer}): expected a last layer that gives {CLASSES} "
            f'probabilities, which sum to 1. Received: numbers that do not. Give it activation = "softmax".'
        )
    return model


def as_input(images: np.ndarray) -> np.ndarray:
    """Turn (n, 28, 28) uint8 images into the network's input, (n, 28, 28, 1) float32 in 0..1."""
    return np.multiply(images[..., None], np.float32(1 / 255), dtype=np.float32)


def answer(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a model says to (n, 28, 28) uint8 images, layer by layer and without a graph: (n, 10) float32."""
    answers: np.ndarray = keras.ops.convert_to_numpy(model(as_input(images), training=False))
    return answers


def are_probabilities(answers: np.ndarray) -> bool:
    """Whether each row of (n, 10) numbers is ten probabilities."""
    return bool((answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < 1e-4)


def read_model(path: Path) -> keras.Model:
    """Load an .h5 for inference, in Keras' safe mode, and check that it is a digit model.

    Raises:
        ModelError: it is no Keras model, has other shapes, or weights that are not finite.

    """
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # h5py and Keras raise almost anything on a damaged file
        raise ModelError(f"{path}: expected a Keras model in HDF5 form. Received: {error}") from error
    if model.input_shape != (None, *IMAGE_SHAPE) or model.output_shape != (None, CLASSES):
        raise ModelError(
            f"{path}: expected a model from (None, 28, 28, 1) to (None, {CLASSES}). "
            f"Received: {model.input_shape} to {model.output_shape}."
        )
    check_finite(model, path)
    return model


def give_logits(model: keras.Model) -> bool:
    """Make a model that was just loaded end before its softmax.

    Returns:
        Whether it could be done: the last layer is one with a softmax activation, and what it gives is the answer. Otherwise
        the model is as it was.

    """
    last = model.layers[-1]
    if getattr(last, "activation", None) is not keras.activations.softmax or last.output is not model.outputs[0]:
        return False
    last.activation = keras.activations.linear
    return True


def read_architecture(path: Path) -> str | None:
    """What a saved Sequential is made of: each layer's class and configuration, without the names, which Keras counts up in
    each process. None for another kind of model, whose layers' names say how they are connected.

    Raises:
        ModelError: it is no Keras model.

    """
    try:
        with h5py.File(path, "r") as file:
            saved = json.loads(file.attrs["model_config"])
        if saved["class_name"] != "Sequential":
            return None
        layers = [(layer["class_name"], layer["config"] | {"name": None}) for layer in saved["config"]["layers"]]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected a Keras model in HDF5 form. Received: {error}") from error
    return json.dumps(layers, sort_keys=True)


def check_finite(model: keras.Model, path: Path) -> None:
    """Raise ModelError unless all weights are finite: Keras loads NaN without a word."""
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ModelError(f"{path}: expected finite weights. Received: NaN or infinity among them.")
