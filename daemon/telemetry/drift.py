"""Drift: how far the images of late, and the answers to them, are from those that the model was validated on.

Measured as a population stability index, PSI = sum((p - q) * ln(p / q)) over bins, with q the reference's shares and p those
of a sliding window: under 0.1 nothing of note, over 0.25 a different population (Siddiqi, Credit Risk Scorecards, 2006).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

WINDOW = 2000  # images
MINIMUM = 500  # images; among fewer, chance alone gives an index of (bins - 1) / n > 0.02
FEATURES = ("digit", "confidence", "ink_mean", "ink_share")
DIGIT_EDGES = np.arange(1, 10)
CONFIDENCE_EDGES = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)  # fixed: most answers of a good model are in the last bin
INK_BINS = 10  # of equal shares in the reference
INK = 128  # a pixel this dark is ink
SMALLEST_SHARE = 1e-4  # of the reference: a bin that was empty there must not make the index infinite


def describe_reference(pixels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What a manifest keeps under "reference": the distributions on validation data.

    Args:
        pixels: (n, 28, 28) uint8, ink 255 on paper 0.
        probabilities: (n, 10), the model's answers to them.

    Returns:
        {"images": n, "digits": [10 shares], "confidence": {"edges", "shares"}, "ink": {"mean": {…}, "share": {…}}};
        one share more than edges.

    """
    digit, confidence, *ink = _features(pixels, probabilities)

    def binned(values: np.ndarray, edges: np.ndarray) -> dict[str, list[float]]:
        return {"edges": [round(float(edge), 6) for edge in edges], "shares": _shares(values, edges)}

    inner = np.linspace(0, 1, INK_BINS + 1)[1:-1]
    mean, share = (binned(values, np.unique(np.quantile(values, inner).round(6))) for values in ink)
    return {
        "images": len(pixels),
        "digits": _shares(digit, DIGIT_EDGES),
        "confidence": binned(confidence, np.array(CONFIDENCE_EDGES)),
        "ink": {"mean": mean, "share": share},
    }


def drift_of_answers(reference: dict[str, Any], answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """The index of digits and confidences that were kept, without their images.

    Args:
        reference: of `describe_reference`.
        answers: digit and confidence.

    Returns:
        By the first two of FEATURES; nothing for fewer than MINIMUM answers.

    """
    if len(answers) < MINIMUM:
        return {}
    digits, confidences = np.array(answers).T
    parts = (
        (reference["digits"], DIGIT_EDGES, digits),
        (reference["confidence"]["shares"], np.array(reference["confidence"]["edges"]), confidences),
    )
    return {
        name: population_stability_index(np.array(shares), _count(values, edges))
        for name, (shares, edges, values) in zip(FEATURES, parts, strict=False)
    }


class Drift:
    """The index of each feature over the last WINDOW images. One thread adds; any thread may ask.

    Args:
        reference: of the model that answers; None for one whose manifest has none.

    """

    def __init__(self, reference: dict[str, Any] | None) -> None:
        self._window = _Window(reference)

    def follow(self, reference: dict[str, Any] | None) -> None:
        """Begin anew with the reference of a model that has just become live. Any thread may call this."""
        self._window = _Window(reference)

    def add(self, pixels: np.ndarray, probabilities: np.ndarray) -> None:
        """Take a batch in: (n, 28, 28) uint8 and (n, 10)."""
        self._window.add(pixels, probabilities)

    def psi(self, feature: str) -> float:
        """The index of one of FEATURES; NaN without a reference or while fewer than MINIMUM images are in the window."""
        return self._window.psi(feature)


class _Window:
    """Counts by feature and bin, a table a batch, so that the oldest can be taken off again."""

    def __init__(self, reference: dict[str, Any] | None) -> None:
        self._edges: list[np.ndarray] = []
        self._expected: dict[str, np.ndarray] = {}
        if reference is not None:
            parts = (reference["confidence"], reference["ink"]["mean"], reference["ink"]["share"])
            self._edges = [DIGIT_EDGES, *(np.array(part["edges"]) for part in parts)]
            shares = (reference["digits"], *(part["shares"] for part in parts))
            self._expected = {name: np.array(values) for name, values in zip(FEATURES, shares, strict=True)}
        self._batches: deque[tuple[int, list[np.ndarray]]] = deque()
        self._images = 0
        self._counts = [np.zeros(len(edges) + 1, np.int64) for edges in self._edges]

    def add(self, pixels: np.ndarray, probabilities: np.ndarray) -> None:
        if not self._edges:
            return
        features = _features(pixels, probabilities)
        batch = [_count(values, edges) for values, edges in zip(features, self._edges, strict=True)]
        self._batches.append((len(pixels), batch))
        images, counts = self._images + len(pixels), _sum(self._counts, batch, 1)
        while images - self._batches[0][0] >= WINDOW:
            oldest, batch = self._batches.popleft()
            images, counts = images - oldest, _sum(counts, batch, -1)
        self._images, self._counts = images, counts

    def psi(self, feature: str) -> float:
        counts = self._counts
        if feature not in self._expected or self._images < MINIMUM:
            return float("nan")
        return population_stability_index(self._expected[feature], counts[FEATURES.index(feature)])


def population_stability_index(expected: np.ndarray, counts: np.ndarray) -> float:
    """PSI of counts by bin against expected shares; half an image is added to each bin, so that none is empty."""
    q = np.maximum(expected, SMALLEST_SHARE)
    q = q / q.sum()
    p = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return float(np.sum((p - q) * np.log(p / q)))


def _features(pixels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, ...]:
    """One value an image, in the order of FEATURES."""
    flat = pixels.reshape(len(pixels), -1)
    ink_share = np.count_nonzero(flat >= INK, axis=1) / flat.shape[1]
    return probabilities.argmax(axis=1), probabilities.max(axis=1), flat.mean(axis=1), ink_share


def _count(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def _shares(values: np.ndarray, edges: np.ndarray) -> list[float]:
    return [round(float(share), 6) for share in _count(values, edges) / len(values)]


def _sum(counts: list[np.ndarray], batch: list[np.ndarray], sign: int) -> list[np.ndarray]:
    return [total + sign * part for total, part in zip(counts, batch, strict=True)]
