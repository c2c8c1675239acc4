"""The Keras model: building it from the configuration, and the one that is live.

Importing this module imports TensorFlow (2 s, 560 MB), so nothing that needs no model may import it at its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.backend import keras, tf
from daemon.config import ConfigError, Layer
from daemon.doubt import Calibration

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10


class ModelError(Exception):
    """A model file cannot be used; the message says what was expected and what was received."""


def build_model(layers: Sequence[Layer]) -> keras.Sequential:
    """Build the network that `[[training.layers]]` describes.

    Args:
        layers: class names of keras.layers with their constructor arguments, first to last.

    Returns:
        An uncompiled Sequential from (n, 28, 28, 1) float32 in 0..1 to (n, 10) probabilities.

    Raises:
        ConfigError: Keras knows no such layer, refuses its arguments, or the output is not (n, 10).

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
    return model


def as_input(images: np.ndarray) -> np.ndarray:
    """Turn (n, 28, 28) uint8 images into the network's input, (n, 28, 28, 1) float32 in 0..1."""
    return np.multiply(images[..., None], np.float32(1 / 255), dtype=np.float32)


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
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ModelError(f"{path}: expected finite weights. Received: NaN or infinity among them.")
    return model


def give_logits(model: keras.Model) -> bool:
    """Make a model that was just loaded end before its softmax.

    Returns:
        Whether it could be done: the last layer is one with a softmax activation. Otherwise the model is as it was.

    """
    last = model.layers[-1]
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return False
    last.activation = keras.activations.linear
    return True


def limit_threads(threads: int) -> None:
    """Say how many threads one TensorFlow operation may use; to be called before any model runs."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@dataclass(frozen=True)
class ModelIdentity:
    """What a result says about the model that gave it."""

    version: str
    sha256: str


class LiveModel:
    """A loaded model that is warm on every batch size, so that no prediction ever waits for a trace.

    Args:
        path: the .h5.
        identity: the version and digest that results will name.
        batch_sizes: ascending; a batch is padded to the smallest that holds it.
        calibration: what its logits mean, from its manifest.

    """

    def __init__(
        self, path: Path, identity: ModelIdentity, batch_sizes: Sequence[int], calibration: Calibration | None = None
    ) -> None:
        self.identity = identity
        self._batch_sizes = tuple(batch_sizes)
        self._calibration = calibration or Calibration()
        self._model = read_model(path)
        self._gives_logits = give_logits(self._model)
        for size in self._batch_sizes:
            self._model.predict_on_batch(np.zeros((size, *IMAGE_SHAPE), np.float32))

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the calibrated probabilities of the ten digits, and how strange each image is.

        Args:
            images: (n, 28, 28) uint8, ink 255 on paper 0, as `images.load_image` makes them.

        Returns:
            (n, 10) float32, each row summing to 1, and (n,) float32 relative energies: 0 for the median validation digit,
            1 for one stranger than all but 0.5 %, more for what is no digit.

        """
        largest = self._batch_sizes[-1]
        parts = [self._predict_batch(images[start : start + largest]) for start in range(0, len(images), largest)]
        return self._calibration.apply(np.concatenate(parts) if parts else np.empty((0, CLASSES), np.float32))

    def _predict_batch(self, images: np.ndarray) -> np.ndarray:
        size = next(size for size in self._batch_sizes if size >= len(images))
        batch = np.zeros((size, *IMAGE_SHAPE), np.float32)
        batch[: len(images)] = as_input(images)
        answers: np.ndarray = self._model.predict_on_batch(batch)[: len(images)]
        return answers if self._gives_logits else np.log(np.maximum(answers, 1e-12))
