"""The model that is live: loaded, folded, traced, compared with what was saved; and the one that was live before it."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from daemon.models import CLASSES
from daemon.models.backend import tf
from daemon.models.calibration import Calibration, softmax
from daemon.models.canary import canary_digits
from daemon.models.folding import fold, refold
from daemon.models.graph import Graph, Weights
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

LARGEST = 256  # images that are predicted together, a power of 2; more are predicted in parts
LEAST_PART = 4  # images that take about as long as beginning a part anew
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
    """A loaded model: its graph, traced once for batches of any size, and the weights that go into it. Never changes.

    Args:
        path: the .h5.
        identity: the version and digest that its answers will name.
        calibration: what its logits mean.

    Raises:
        ModelError: the file is not a usable digit model, or does not answer in a graph as it was saved.

    """

    def __init__(self, path: Path, identity: ModelIdentity, calibration: Calibration) -> None:
        self.identity, self._calibration = identity, calibration
        self._saved = read_model(path)  # as it was saved; of versions of one architecture, the one that was loaded last
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
            self._graph = Graph(model)
            self._weights = self._graph.weights()
            self._gives_probabilities = self._are_probabilities(expected)
            for size in (LARGEST, 1):
                self.logits(np.zeros((size, *IMAGE_SHAPE[:2]), np.uint8))
            if self._answers_like(expected, self._weights):
                return
            if model is folded:
                log.warning("%s: folded, it answers differently; it predicts as it was saved", path)
        raise ModelError(
            f"{path}: expected the answers that the model was saved with. Received: others, in a graph or to one alone."
        )

    def predict(self, images: np.ndarray) -> Answers:
        """Say which digits they are: (n, 28, 28) uint8, ink 255 on paper 0, as `decode.load_image` makes them."""
        return Answers(*self._calibration.apply(self.logits(images)), self.identity)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """What `predict` calibrates: (n, 28, 28) uint8 to (n, 10) float32."""
        raw = [self._graph.run(as_input(part), self._weights) for part in _parts(images)]
        answers = np.concatenate(raw)[: len(images)] if raw else np.empty((0, CLASSES), np.float32)
        return np.log(np.maximum(answers, 1e-12)) if self._gives_probabilities else answers

    @property
    def parameters(self) -> int:
        """How many the network has, as it was saved."""
        return int(self._saved.count_params())

    def other(self, version: Version) -> LiveModel | None:
        """Another version of the same architecture, in the same graph. For one thread at a time; others predict meanwhile.

        Returns:
            None where that cannot be done.

        Raises:
            ModelError: the weights are not finite.

        """
        if self._model is self._saved or read_architecture(version.path) != self._architecture:
            return None
        try:
            self._saved.load_weights(version.path)
        except Exception as error:  # h5py and Keras raise almost anything on a damaged file
            raise ModelError(f"{version.path}: expected a Keras model in HDF5 form. Received: {error}") from error
        check_finite(self._saved, version.path)
        refold(self._saved, self._model)
        weights = self._graph.weights()
        expected = answer(self._saved, canary_digits()[0])
        if self._are_probabilities(expected) != self._gives_probabilities or not self._answers_like(expected, weights):
            return None
        other = copy.copy(self)
        other.identity, other._calibration, other._weights = version.identity, version.calibration, weights  # noqa: SLF001
        return other

    def _are_probabilities(self, expected: np.ndarray) -> bool:
        """Whether what the model says that was saved is taken for probabilities, and not for logits."""
        return not self._ends_in_softmax and bool(((expected >= 0) & (expected <= 1)).all())

    def _answers_like(self, expected: np.ndarray, weights: Weights) -> bool:
        """Whether the graph says to the canary digits what the model says that was saved, and to one alone the same."""
        digits, _ = canary_digits()
        received = np.concatenate([self._graph.run(as_input(part), weights) for part in (digits, digits[:1])])
        expected = np.concatenate([expected, expected[:1]])
        if self._ends_in_softmax:
            received = softmax(received)
        return np.allclose(expected, received, rtol=TOLERANCE, atol=TOLERANCE)


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """(n, 28, 28) images in parts of 1, 2, 4, … LARGEST; the last is filled up with empty ones where few are missing.

    TensorFlow keeps kernels for each number of images that it ever saw, 0.8 MB each: those come by and by, for hours.
    """
    start = 0
    while left := len(images) - start:
        size = min(LARGEST, 1 << (left - 1).bit_length())
        if size - left > max(LEAST_PART, size // 8):
            size //= 2
        part = images[start : start + size]
        if missing := size - len(part):
            part = np.concatenate([part, np.zeros((missing, *images.shape[1:]), np.uint8)])
        yield part
        start = min(start + size, len(images))


class ModelSlot:
    """The model that is live and the one that was before it, both warm.

    Replacing the live one is replacing one reference: a batch keeps the model it began with. One thread swaps; any thread
    reads `live`. At first there was none before it.

    Raises:
        ModelError: the file is not a usable digit model.

    """

    def __init__(self, version: Version) -> None:
        self.live = self._before = load(version)
        gc.collect()
        gc.freeze()  # what came with them stays: looking through it all held predictions up for 250 ms at each swap
        give_back_memory()

    def swap(self, version: Version) -> bool:
        """Make a version live; the one before stays warm, so that going back to it is instant.

        Returns:
            Whether it was the one before.

        Raises:
            ModelError: the file is not a usable digit model; the live model is untouched.

        """
        back = self._before.identity == version.identity
        model = self._before if back else self.live.other(version) or load(version)
        self.live, self._before = model, self.live
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
