"""What the model's logits mean."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.models.calibration import Calibration, calibrate, energy, softmax


def made_up(count: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from just the probabilities that the logits divided by `scale` give."""
    random = np.random.default_rng(1)
    honest = random.normal(0, 3, (count, 10))
    digits = (softmax(honest).cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return (honest * scale).astype(np.float32), digits


def test_softmax_of_large_logits_is_finite() -> None:
    """No logit overflows, and rows sum to one."""
    probabilities = softmax(np.array([[1e4, 0, -1e4], [0, 0, 0]]))
    np.testing.assert_allclose(probabilities, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_energy_is_the_negative_log_sum_exp() -> None:
    """As in its definition, also where the exponential overflows."""
    np.testing.assert_allclose(energy(np.array([[0.0, 0.0], [2000.0, 0.0]])), [-np.log(2), -2000])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_over_and_under_confidence(scale: float) -> None:
    """Logits that are too large or too small by a factor get that factor back."""
    logits, digits = made_up(20_000, scale)
    assert calibrate(logits, digits).temperature == pytest.approx(scale, rel=0.05)


def test_relative_energy_is_one_for_one_digit_in_two_hundred() -> None:
    """The scale comes from the validation data, so that a threshold means the same for every model."""
    logits, digits = made_up(10_000, 1)
    _, energies = calibrate(logits, digits).apply(logits)
    assert np.median(energies) == pytest.approx(0, abs=1e-3)
    assert np.mean(energies > 1) == pytest.approx(0.005, abs=1e-3)


def test_without_a_calibration_nothing_is_strange() -> None:
    """Not even ten logits that are all alike."""
    _, energies = Calibration().apply(np.zeros((1, 10), np.float32))
    assert energies[0] <= 1


def test_what_is_no_number_is_doubt() -> None:
    """As of a foreign model whose sums overflow: its answer is accepted nowhere, and all others are what they were."""
    logits = np.array([[1.0, *[0.0] * 9], [np.inf, *[0.0] * 9], [np.nan] * 10], np.float32)
    with np.errstate(invalid="ignore"):
        probabilities, energies = Calibration().apply(logits)
    np.testing.assert_allclose(probabilities, [softmax(logits[:1])[0], [0.1] * 10, [0.1] * 10], rtol=1e-6)
    assert np.isfinite(energies).all()
