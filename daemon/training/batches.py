"""What a network is fed while it learns: shuffled, augmented batches, and what early stopping watches."""

from __future__ import annotations

import numpy as np

from daemon.config import Augmentation, TrainingSettings
from daemon.models import CLASSES
from daemon.models.backend import tf
from daemon.models.network import as_input
from daemon.training.augmentation import augment
from daemon.training.dataset import Split, join
from daemon.training.scans import Scans, vary_scans
from daemon.training.synthetic import draw_digits, draw_no_digits

# AutoGraph, for which there is nothing to rewrite here, leaves a file for each function where temporary ones are, if killed.
_as_it_is = tf.autograph.experimental.do_not_convert


def targets(labels: np.ndarray) -> np.ndarray:
    """What the network should answer: (n,) labels to (n, 10) probabilities; for NO_DIGIT all ten digits alike."""
    return np.vstack([np.eye(CLASSES, dtype=np.float32), np.full(CLASSES, 1 / CLASSES, np.float32)])[labels]


def with_hands(data: Split, scans: Scans, settings: TrainingSettings) -> Split:
    """Add scans and their variants, drawn digits, and drawn things labelled NO_DIGIT."""
    return join(
        data,
        vary_scans(scans, settings.scan_variants, settings.seed),
        draw_digits(settings.synthetic_digits, settings.seed),
        draw_no_digits(settings.synthetic_no_digits, settings.seed),
    )


def training_batches(
    base: Split, corrections: Split, batch_size: int, share: float, augmentation: Augmentation, seed: int
) -> tf.data.Dataset:
    """Endless shuffled, augmented batches of (x, y): x (n, 28, 28, 1) float32 in 0..1, y (n, 10) float32.

    Args:
        base: what most of each batch is taken from.
        corrections: what `share` of each batch is taken from, where there are any.
        batch_size: n.
        share: 0 to 1.
        augmentation: how much each image is changed.
        seed: of the shuffling.

    """

    def stream(data: Split, size: int) -> tf.data.Dataset:
        images = tf.data.Dataset.from_tensor_slices((data.x, targets(data.y)))
        return images.shuffle(len(data), seed=seed).repeat().batch(size)

    corrected = max(1, round(share * batch_size)) if len(corrections) else 0
    batches = stream(base, batch_size - corrected)
    if corrected:
        batches = tf.data.Dataset.zip(batches, stream(corrections, corrected)).map(
            _as_it_is(lambda one, other: (tf.concat([one[0], other[0]], 0), tf.concat([one[1], other[1]], 0)))
        )
    augmented = _as_it_is(lambda x, y: (augment(x, augmentation), y))
    return batches.map(augmented, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def validation_data(base: Split, corrections: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, weights) that early stopping watches: the corrections, if any, weigh as much as all of the base data."""
    x = np.concatenate([base.x, corrections.x])
    y = np.concatenate([base.y, corrections.y])
    weights = np.ones(len(x), np.float32)
    if len(corrections):
        weights[len(base) :] = len(base) / len(corrections)
    return as_input(x), targets(y), weights
