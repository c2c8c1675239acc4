"""What the metrics say of answers; it comes after what somebody waits for."""

from __future__ import annotations

from collections import Counter

import numpy as np

from daemon.drops import Predictions
from daemon.telemetry.metrics import Metrics


def count_answers(metrics: Metrics, batch: Predictions, now: float) -> None:
    """Count a batch whose results have appeared.

    Args:
        batch: what was published.
        now: when, in seconds since the epoch.

    """
    digits = batch.probabilities.argmax(axis=1)
    for digit, count in enumerate(np.bincount(digits, minlength=10).tolist()):
        metrics.predictions.labels(str(digit)).inc(count)
    for confidence in batch.probabilities.max(axis=1).tolist():
        metrics.confidence.observe(confidence)
    for drop in batch.drops:
        metrics.image_seconds.observe(max(0.0, now - drop.received))
    reasons = Counter(reason for reason in batch.review_reasons if reason)
    for reason, count in reasons.items():
        metrics.reviews.labels(reason).inc(count)
    metrics.images.labels("review").inc(reasons.total())
    metrics.images.labels("accepted").inc(len(batch.drops) - reasons.total())
