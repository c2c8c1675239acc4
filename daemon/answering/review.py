"""When a person should look at an answer."""

from __future__ import annotations

from daemon.config import InferenceSettings


def review_reason(confidence: float, relative_energy: float, doubt: str | None, limits: InferenceSettings) -> str | None:
    """Why a person should look at an answer, or None.

    Args:
        confidence: the largest calibrated probability.
        relative_energy: as `Calibration.apply` gives it.
        doubt: what normalisation found.
        limits: confidence below `review_below` is low, relative energy above `not_a_digit_above` is no digit's.

    """
    if doubt is not None:
        return doubt
    if relative_energy > limits.not_a_digit_above:
        return "not_a_digit"
    return "low_confidence" if confidence < limits.review_below else None
