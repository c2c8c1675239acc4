"""Honest doubt: calibrated probabilities, an energy that tells digits from the rest. Pure numpy.

Confidence is the largest probability after temperature scaling (Guo et al. 2017, arXiv:1706.04599). Energy is the negative
log-sum-exp of the logits (Liu et al. 2020, arXiv:2010.03759): low for what the model has learned, high for what is strange
to it. Its scale differs from model to model, so it is given relative to the digits of the validation data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

STRANGE_QUANTILE = 0.995  # of the validation digits' energies; the energy of 1.0
TEMPERATURES = np.geomspace(0.25, 4, 161)  # that are tried, 1.7 % apart


@dataclass(frozen=True)
class Calibration:
    """What a model's logits mean; kept in its manifest.

    Attributes:
        temperature: logits are divided by it before the softmax.
        energy_median: half of the validation digits have less energy.
        energy_limit: all but 0.5 % of the validation digits have less energy.

    """

    temperature: Annotated[float, Field(ge=0.01, le=100)] = 1.0  # far beyond those that are tried, answers are no numbers
    energy_median: float = 0.0
    energy_limit: float = float("inf")

    def apply(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the calibrated probabilities (n, 10) and the relative energies (n,), float32.

        A relative energy is 0 for the median digit of the validation data and 1 for a digit stranger than all but 0.5 %.
        What is no number, as where a foreign model's sums overflow, is doubt: all ten digits alike.
        """
        relative = (energy(logits) - self.energy_median) / max(self.energy_limit - self.energy_median, 1e-6)
        if math.isnan(relative.sum()):
            return self.apply(np.where(np.isnan(relative)[:, None], 0.0, logits))
        return softmax(logits, self.temperature).astype(np.float32), relative.astype(np.float32)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Turn (n, 10) logits into (n, 10) float64 probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    probabilities: np.ndarray = scaled / scaled.sum(axis=1, keepdims=True)
    return probabilities


def energy(logits: np.ndarray) -> np.ndarray:
    """Turn (n, 10) logits into (n,) float64 energies, low for digits."""
    logits = np.asarray(logits, np.float64)
    largest = logits.max(axis=1)
    energies: np.ndarray = -(largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)))
    return energies


def calibrate(logits: np.ndarray, digits: np.ndarray) -> Calibration:
    """Fit temperature and energy scale to data that the model was not trained on.

    Args:
        logits: (n, 10) of the validation data.
        digits: (n,) their labels.

    """
    of_truth = np.arange(len(digits)), digits.astype(np.intp)
    losses = [-np.log(np.maximum(softmax(logits, t)[of_truth], 1e-12)).mean() for t in TEMPERATURES]
    energies = energy(logits)
    return Calibration(
        round(float(TEMPERATURES[int(np.argmin(losses))]), 6),
        round(float(np.median(energies)), 6),
        round(float(np.quantile(energies, STRANGE_QUANTILE)), 6),
    )
