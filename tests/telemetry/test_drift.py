"""The population stability index of what comes in, against the model's validation data."""

import math

import numpy as np
import pytest

from daemon.telemetry.drift import (
    FEATURES,
    MINIMUM,
    WINDOW,
    Drift,
    describe_reference,
    drift_of_answers,
    population_stability_index,
)


def images(n: int, seed: int, ink: float = 1.0) -> np.ndarray:
    """Random blobs whose darkness and size vary."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((n, 28, 28), np.uint8)
    for image, half in zip(pixels, rng.integers(3, 10, n), strict=True):
        image[14 - half : 14 + half, 14 - half : 14 + half] = np.clip(rng.integers(150, 256) * ink, 0, 255)
    return pixels


def answers(n: int, seed: int, digits: int = 10, concentration: float = 60.0) -> np.ndarray:
    """Rows of probabilities whose digits are below `digits`."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(10), n) + concentration * np.eye(10)[rng.integers(0, digits, n)] * rng.random((n, 1))
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def reference() -> dict:
    """The distributions of 6,000 images and answers."""
    return describe_reference(images(6000, 1), answers(6000, 1))


def test_a_reference_holds_shares_that_sum_to_one(reference: dict) -> None:
    """Every distribution of a reference is whole, and the digits have ten bins."""
    binned = [reference["confidence"], reference["ink"]["mean"], reference["ink"]["share"]]
    assert len(reference["digits"]) == 10
    for shares in (reference["digits"], *(part["shares"] for part in binned)):
        assert sum(shares) == pytest.approx(1, abs=1e-4)
    for part in binned:
        assert len(part["shares"]) == len(part["edges"]) + 1
        assert part["edges"] == sorted(set(part["edges"]))


def test_the_same_population_gives_a_small_index(reference: dict) -> None:
    """Other images of the same kind stay well under 0.1."""
    drift = Drift(reference)
    drift.add(images(1000, 2), answers(1000, 2))
    assert {feature: drift.psi(feature) < 0.1 for feature in FEATURES} == dict.fromkeys(FEATURES, True)


@pytest.mark.parametrize(
    ("feature", "pixels", "probabilities"),
    [
        ("digit", images(1000, 3), answers(1000, 3, digits=3)),
        ("confidence", images(1000, 4), answers(1000, 4, concentration=1.0)),
        ("ink_mean", images(1000, 5, ink=0.6), answers(1000, 5)),
        ("ink_share", images(1000, 6, ink=0.4), answers(1000, 6)),
    ],
)
def test_another_population_shows_in_its_feature(
    reference: dict, feature: str, pixels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Only three digits, unsure answers, faint ink: each pushes its own index over 0.25."""
    drift = Drift(reference)
    drift.add(pixels, probabilities)
    assert drift.psi(feature) > 0.25


def test_no_index_before_the_minimum_sample(reference: dict) -> None:
    """One image fewer than MINIMUM says nothing; one more says something."""
    drift = Drift(reference)
    drift.add(images(MINIMUM - 1, 7), answers(MINIMUM - 1, 7))
    assert math.isnan(drift.psi("digit"))
    drift.add(images(1, 8), answers(1, 8))
    assert not math.isnan(drift.psi("digit"))


def test_the_window_slides(reference: dict) -> None:
    """What is older than WINDOW images no longer counts, whatever the batches' sizes."""
    drift = Drift(reference)
    for start in range(0, WINDOW, 250):
        drift.add(images(250, 100 + start, ink=0.4), answers(250, 100 + start, digits=2))
    assert drift.psi("digit") > 0.25
    for start in range(0, WINDOW + 250, 50):
        drift.add(images(50, 200 + start), answers(50, 200 + start))
    assert max(drift.psi(feature) for feature in FEATURES) < 0.1


def test_a_new_model_begins_with_an_empty_window(reference: dict) -> None:
    """After a swap nothing is held against the new reference until enough images were answered by it."""
    drift = Drift(reference)
    drift.add(images(1000, 9), answers(1000, 9))
    drift.follow(reference)
    assert math.isnan(drift.psi("digit"))


def test_a_model_without_reference_has_no_index() -> None:
    """A manifest made elsewhere may have no reference; batches are then let pass."""
    drift = Drift(None)
    drift.add(images(1000, 10), answers(1000, 10))
    assert math.isnan(drift.psi("digit"))


def test_the_index_is_the_textbook_one() -> None:
    """Two bins, 50:50 expected and 80:20 seen: (0.3) ln 1.6 + (-0.3) ln 0.4."""
    expected = 0.3 * math.log(1.6) - 0.3 * math.log(0.4)
    assert population_stability_index(np.array([0.5, 0.5]), np.array([80_000, 20_000])) == pytest.approx(expected, rel=1e-3)


def test_a_bin_that_the_reference_never_saw_gives_a_finite_index() -> None:
    """Empty bins on either side are no division by zero."""
    assert 1 < population_stability_index(np.array([1.0, 0.0]), np.array([0, 1000])) < 20


def test_answers_that_were_kept_drift_as_they_did_when_they_were_given(reference: dict) -> None:
    """By digit and confidence; of too few nothing is said."""
    drift, probabilities = Drift(reference), answers(1000, 3, digits=3)
    drift.add(images(1000, 3), probabilities)
    kept = list(zip(probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist(), strict=True))
    expected = {feature: pytest.approx(drift.psi(feature)) for feature in ("digit", "confidence")}
    assert expected == drift_of_answers(reference, kept)
    assert {} == drift_of_answers(reference, kept[: MINIMUM - 1])
