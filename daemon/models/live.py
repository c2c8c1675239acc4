"""The Keras model: building it from the configuration, and the one that is live.

Importing this module imports TensorFlow (2 s, 560 MB), so nothing that needs no model may import it at its top.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from daemon.config import ConfigError, Layer
from daemon.models.backend import keras, tf
from daemon.models.calibration import Calibration
from daemon.models.folding import fold, refold

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10
LARGEST = 256  # images that are predicted together; more are predicted in parts


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
    _check_finite(model, path)
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
    """A loaded model, traced once for batches of any size, so that no prediction ever waits for a trace.

    Args:
        path: the .h5; what its logits mean is in the manifest beside it.
        identity: the version and digest that results will name.

    Raises:
        ModelError: the file is not a usable digit model.

    """

    def __init__(self, path: Path, identity: ModelIdentity) -> None:
        self.identity = identity
        self._architecture = read_architecture(path)
        self._saved = read_model(path)  # as it was saved: what weights are loaded into
        model = fold(self._saved)  # what predicts
        self._gives_logits = give_logits(model)
        self._model = model
        self._calibration = Calibration.beside(path)
        self._in_use = threading.Lock()
        # Keras' advice for few inputs, model(x), in a graph: a lone image waits 1.7 ms for it, 2.3 for predict_on_batch.
        graph = tf.function(lambda batch: model(batch, training=False))
        self._run = graph.get_concrete_function(tf.TensorSpec((None, *IMAGE_SHAPE), tf.float32))
        for size in (LARGEST, 1):
            self.predict(np.zeros((size, *IMAGE_SHAPE[:2]), np.uint8))

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the calibrated probabilities of the ten digits, and how strange each image is.

        Args:
            images: (n, 28, 28) uint8, ink 255 on paper 0, as `images.load_image` makes them.

        Returns:
            (n, 10) float32, each row summing to 1, and (n,) float32 relative energies: 0 for the median validation digit,
            1 for one stranger than all but 0.5 %, more for what is no digit.

        """
        with self._in_use:
            parts = [self._predict_batch(images[start : start + LARGEST]) for start in range(0, len(images), LARGEST)]
        return self._calibration.apply(np.concatenate(parts) if parts else np.empty((0, CLASSES), np.float32))

    def refill(self, path: Path, identity: ModelIdentity) -> bool:
        """Become another version of the same architecture, without the cost of tracing. Only for a model that is not live.

        Returns:
            False, with nothing changed, where the architecture is another one.

        Raises:
            ModelError: the weights are not finite; this model must not be used any more.

        """
        if read_architecture(path) != self._architecture:
            return False
        with self._in_use:
            self._saved.load_weights(path)
            _check_finite(self._saved, path)
            refold(self._saved, self._model)
            self._calibration = Calibration.beside(path)
            self.identity = identity
        return True

    def _predict_batch(self, images: np.ndarray) -> np.ndarray:
        answers: np.ndarray = self._run(tf.constant(as_input(images))).numpy()
        return answers if self._gives_logits else np.log(np.maximum(answers, 1e-12))


class ModelSlot:
    """The model that is live and the one that was before it, both warm.

    Replacing the live one is replacing one reference: a batch keeps the model it began with. One thread swaps; any thread
    reads `live`. The arguments are LiveModel's: at first both are the same version, so that the first swap has a warm model
    to fill, as every later one has.
    """

    def __init__(self, path: Path, identity: ModelIdentity) -> None:
        self.live = LiveModel(path, identity)
        self._spare: LiveModel | None = LiveModel(path, identity)
        gc.collect()
        gc.freeze()  # TensorFlow's own objects: looking through them held predictions up for 250 ms at each swap

    def swap(self, path: Path, identity: ModelIdentity) -> bool:
        """Make a version live; the one before stays warm, so that going back to it is instant.

        Returns:
            Whether it was the one before.

        Raises:
            ModelError: the file is not a usable digit model; the live model is untouched.

        """
        spare, self._spare = self._spare, None
        back = spare is not None and spare.identity == identity
        if spare is None or not (back or spare.refill(path, identity)):
            spare = LiveModel(path, identity)
        self.live, self._spare = spare, self.live
        gc.collect()  # 0.5 MB a swap without, measured
        return back


def read_architecture(path: Path) -> str:
    """What a saved model is made of: its configuration without the names, which Keras counts up in each process.

    Raises:
        ModelError: it is no Keras model.

    """
    try:
        with h5py.File(path, "r") as file:
            config = json.loads(file.attrs["model_config"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: expected a Keras model in HDF5 form. Received: {error}") from error
    return json.dumps(_without_names(config), sort_keys=True)


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key not in ("name", "keras_history")}
    return [_without_names(value) for value in config] if isinstance(config, list) else config


def _check_finite(model: keras.Model, path: Path) -> None:
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ModelError(f"{path}: expected finite weights. Received: NaN or infinity among them.")
