"""Which reading of an image was right: the one that the model doubts least; the others have some weight. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from daemon.answering.review import review_reason
from daemon.answering.second_look import HANDS, SURE, join, write_again
from daemon.config import InferenceSettings
from daemon.models.version import ModelIdentity
from daemon.reading.readings import Readings

# Fitted on cut-out and whole scans of 13 writers, thin strokes that fill their picture, and the drawn pages of forms.
USUAL_ENERGY = 0.5  # a relative energy; up to this a digit is not strange
LEAD = 0.1  # by which a later reading must be better: what is likely without the model is likely with it
# A reading that is worse by so much has 1/e of the weight: where two differ and both look right, that is doubt.
SPREAD = 0.15


class Model(Protocol):
    """What predicts, as `LiveModel` does."""

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, ModelIdentity]:
        """Give (n, 10) probabilities and (n,) relative energies of (n, 28, 28) uint8 images, and whose answers they are."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a model says of n images, each by its chosen reading.

    Attributes:
        pixels: (n, 28, 28) uint8.
        doubts: n, what normalisation found.
        probabilities: (n, 10) float32, of all its readings, weighed.
        energies: (n,) float32, relative.
        identity: whose answers they are.

    """

    pixels: np.ndarray
    doubts: list[str | None]
    probabilities: np.ndarray
    energies: np.ndarray
    identity: ModelIdentity

    def review_reasons(self, limits: InferenceSettings) -> list[str | None]:
        """For each of the n, why a person should look at it, or None."""
        confidences, energies = self.probabilities.max(axis=1).tolist(), self.energies.tolist()
        return [review_reason(*one, limits) for one in zip(confidences, energies, self.doubts, strict=True)]


def answer(model: Model, readings: Readings) -> Chosen:
    """Predict all readings together, and choose one for each image; its probabilities are of all its readings, weighed.

    What is not sure is predicted again in other hands, and has the mean of all; but what came in MNIST's form costs no more.
    """
    probabilities, energies, identity = model.predict(readings.pixels)
    unsure = np.flatnonzero(~readings.as_sent & (probabilities.max(axis=1, initial=0) < SURE))
    if len(unsure):
        again, _, _ = model.predict(write_again(readings.pixels[unsure]))
        looks = np.stack([probabilities[unsure], *np.split(again, len(HANDS))])
        probabilities[unsure] = join(looks)
    everything = Chosen(readings.pixels, [*readings.doubts], probabilities, energies, identity)
    if len(readings.pixels) == len(readings):
        return everything
    merits = probabilities.max(axis=1) - np.maximum(energies - USUAL_ENERGY, 0)
    merits -= [doubt is not None for doubt in readings.doubts]
    merits[readings.first] += LEAD
    best = np.repeat(np.maximum.reduceat(merits, readings.first), np.diff(readings.first, append=len(merits)))
    weights = np.exp((merits - best) / SPREAD)[:, None].astype(np.float32)
    mixed = np.add.reduceat(weights * probabilities, readings.first) / np.add.reduceat(weights, readings.first)
    ends = [*readings.first[1:], len(merits)]
    chosen = np.array([start + merits[start:end].argmax() for start, end in zip(readings.first, ends, strict=True)])
    return replace(
        everything,
        pixels=readings.pixels[chosen],
        doubts=[readings.doubts[number] for number in chosen],
        probabilities=mixed,
        energies=energies[chosen],
    )
