"""Batches are predicted by the model that is live as each begins: a few images at once, many in a thread of their own."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from daemon.answering.choice import answer
from daemon.answering.walks import Elsewhere, Then, ended
from daemon.config import InferenceSettings
from daemon.drops import Predictions
from daemon.models.live import LiveModel
from daemon.reading.chunks import Decoded
from daemon.telemetry.metrics import Metrics


class Predicting:
    """Predicts what was decoded.

    Args:
        model: gives the model that is live now; asked once for each batch, which keeps it to its end.
        metrics: told how many were predicted together, and how long it took.

    """

    def __init__(self, model: Callable[[], LiveModel], metrics: Metrics) -> None:
        self._model, self._seconds, self._sizes = model, metrics.stage_seconds.labels("predict"), metrics.batch_size
        self._waiting: queue.SimpleQueue[tuple[Callable[[], object], Then]] = queue.SimpleQueue()

    def run_once(self, longest: float) -> None:
        """Predict one batch that is to be predicted by this thread, or wait for one for at most `longest` seconds."""
        try:
            task, then = self._waiting.get(timeout=longest)
        except queue.Empty:
            return
        then(ended(task()))

    async def elsewhere(self, decoded: Decoded, claimed: float, limits: InferenceSettings) -> tuple[Predictions, np.ndarray]:
        """Predict a batch, as `here` does, in the thread that makes the passes."""
        task = partial(self.here, decoded, claimed, limits)
        return await Elsewhere(lambda then: self._waiting.put((task, then)))

    def here(self, decoded: Decoded, claimed: float, limits: InferenceSettings) -> tuple[Predictions, np.ndarray]:
        """Predict a batch.

        Args:
            decoded: at least one image.
            claimed: when, in seconds since the epoch.
            limits: when a person should look at an answer.

        Returns:
            The predictions, and what they were made of, (n, 28, 28) uint8.

        """
        started = time.monotonic()
        answers = answer(self._model(), decoded.readings)
        self._seconds.observe(time.monotonic() - started)
        self._sizes.observe(len(decoded.drops))
        reasons, identity = answers.review_reasons(limits), answers.identity
        batch = Predictions(
            decoded.drops,
            decoded.images,
            answers.probabilities,
            reasons,
            identity.version,
            identity.sha256,
            claimed,
            time.time(),
        )
        return batch, answers.pixels
