"""The model that is live: loaded, folded, traced, compared with what was saved; and the one that was live before it."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daemon.models import CLASSES
from daemon.models.backend import keras, tf
from daemon.models.calibration import Calibration, softmax
from daemon.models.canary import canary_digits
from daemon.models.folding import fold, refold
from daemon.models.network import (
    IMAGE_SHAPE,
    ModelError,
    answer,
    as_input,
    check_finite,
    give_logits,
    read_architecture,
    read_model,
)
from daemon.models.version import ModelIdentity, Version
from daemon.processes import give_back_memory

log = logging.getLogger(__name__)

LARGEST = 256  # images that are predicted together; more are predicted in parts
TOLERANCE = 1e-3  # of a probability, or relative of a logit: folding changes the order of float32 sums, no more


class Answers(NamedTuple):
    """What a model says to n images.

    Attributes:
        probabilities: (n, 10) float32, calibrated, each row summing to 1.
        energies: (n,) float32: 0 for the median validation digit, 1 for an image stranger than all but 0.5 % of them, more
            for what is no digit.
        identity: whose answers they are.

    """

    probabilities: np.ndarray
    energies: np.ndarray
    identity: ModelIdentity


class LiveModel:
    """A loaded model, traced once for batches of any size, so that no prediction ever waits for a trace.

    Args:
        path: the .h5.
        identity: the version and digest that its answers will name.
        calibration: what its logits mean.

    Raises:
        ModelError: the file is not a usable digit model, or does not answer in a graph as it was saved.

    """

    def __init__(self, path: Path, identity: ModelIdentity, calibration: Calibration) -> None:
        self._identity, self._calibration = identity, calibration
        self._in_use = threading.Lock()
        self._saved = read_model(path)  # as it was saved: what weights are loaded into
        self._architecture = read_architecture(path)
        try:
            self._prepare(path)
        except ModelError:
            raise
        except Exception as error:  # TensorFlow and Keras raise almost anything for a network that fits no other batch
            raise ModelError(f"{path}: expected a model that predicts any number of images. Received: {error}") from error

    def _prepare(self, path: Path) -> None:
        """Fold and trace it, or only trace it where folding changes what it says."""
        digits, _ = canary_digits()
        expected = answer(self._saved, digits)
        folded = fold(self._saved)
        for model in (folded, self._saved) if folded else (self._saved,):
            self._model = model
            self._ends_in_softmax = give_logits(model)
            self._run = _traced(model)
            self._gives_probabilities = not self._ends_in_softmax and bool(((expected >= 0) & (expected <= 1)).all())
            for size in (LARGEST, 1):
                self.logits(np.zeros((size, *IMAGE_SHAPE[:2]), np.uint8))
            if self._answers_like(expected):
                return
            if model is folded:
                log.warning("%s: folded, it answers differently; it predicts as it was saved", path)
        raise ModelError(f"{path}: expected the answers that the model was saved with. Received: others, in a graph.")

    def predict(self, images: np.ndarray) -> Answers:
        """Say which digits they are: (n, 28, 28) uint8, ink 255 on paper 0, as `decode.load_image` makes them."""
        with self._in_use:
            logits, identity, calibration = self._logits(images), self._identity, self._calibration
        return Answers(*calibration.apply(logits), identity)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """What `predict` calibrates: (n, 28, 28) uint8 to (n, 10) float32."""
        with self._in_use:
            return self._logits(images)

    @property
    def parameters(self) -> int:
        """How many the network has, as it was saved."""
        return int(self._saved.count_params())

    @property
    def identity(self) -> ModelIdentity:
        """Which version it is now; of answers, see there."""
        return self._identity

    def refill(self, version: Version) -> bool:
        """Become another version of the same architecture, without the cost of tracing. Only for a model that is not live.

        Returns:
            False, with nothing changed, where that cannot be done.

        Raises:
            ModelError: the weights are not finite; nothing has changed.

        """
        if self._model is self._saved or read_architecture(version.path) != self._architecture:
            return False
        with self._in_use:
            try:
                self._saved.load_weights(version.path)
            except Exception as error:  # h5py and Keras raise almost anything on a damaged file
                raise ModelError(f"{version.path}: expected a Keras model in HDF5 form. Received: {error}") from error
            check_finite(self._saved, version.path)
            before = self._model.get_weights()
            refold(self._saved, self._model)
            if not self._answers_like(answer(self._saved, canary_digits()[0])):
                self._model.set_weights(before)
                return False
            self._identity, self._calibration = version.identity, version.calibration
        return True

    def _logits(self, images: np.ndarray) -> np.ndarray:
        raw = [self._raw(images[start : start + LARGEST]) for start in range(0, len(images), LARGEST)]
        answers = np.concatenate(raw) if raw else np.empty((0, CLASSES), np.float32)
        return np.log(np.maximum(answers, 1e-12)) if self._gives_probabilities else answers

    def _raw(self, images: np.ndarray) -> np.ndarray:
        answers: np.ndarray = self._run(tf.constant(as_input(images))).numpy()
        return answers

    def _answers_like(self, expected: np.ndarray) -> bool:
        """Whether it says to the canary digits what the model says that was saved."""
        received = self._raw(canary_digits()[0])
        if self._ends_in_softmax:
            received = softmax(received)
        return np.allclose(expected, received, rtol=TOLERANCE, atol=TOLERANCE)


def _traced(model: keras.Model) -> tf.types.experimental.ConcreteFunction:
    """Keras' advice for few inputs, model(x), in a graph: a lone image waits 1.7 ms for it, 2.3 for predict_on_batch.

    The model is a variable of this function and no argument of the graph's: with one, each call spelt its images out as
    text first, which took 8 ms. Without AutoGraph, which writes a Python file for temporary files' folder to keep.
    """
    graph = tf.function(lambda batch: model(batch, training=False), autograph=False)
    return graph.get_concrete_function(tf.TensorSpec((None, *IMAGE_SHAPE), tf.float32))


class ModelSlot:
    """The model that is live and the one that was before it, both warm.

    Replacing the live one is replacing one reference: a batch keeps the model it began with. One thread swaps; any thread
    reads `live`. At first both are the same version, so that the first swap has a warm model to fill, as later ones have.

    Raises:
        ModelError: the file is not a usable digit model.

    """

    def __init__(self, version: Version) -> None:
        self.live = load(version)
        self._spare: LiveModel | None = load(version)
        gc.collect()
        gc.freeze()  # TensorFlow's own objects: looking through them held predictions up for 250 ms at each swap
        give_back_memory()

    def swap(self, version: Version) -> bool:
        """Make a version live; the one before stays warm, so that going back to it is instant.

        Returns:
            Whether it was the one before.

        Raises:
            ModelError: the file is not a usable digit model; the live model is untouched.

        """
        spare, self._spare = self._spare, None
        back = spare is not None and spare.identity == version.identity
        if spare is None or not (back or spare.refill(version)):
            spare = load(version)
        self.live, self._spare = spare, self.live
        gc.collect()  # 0.5 MB a swap without, measured
        if not back:
            give_back_memory()  # what weights passed through lies between what stays: 60 MB after 100 swaps without
        return back


def load(version: Version) -> LiveModel:
    """Load a version, warm."""
    return LiveModel(version.path, version.identity, version.calibration)


def limit_threads(threads: int) -> None:
    """Say how many threads one TensorFlow operation may use; to be called before any model runs."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
