"""review.py: when a person is asked."""

from __future__ import annotations

import pytest

from daemon.answering.review import review_reason
from daemon.config import InferenceSettings

LIMITS = InferenceSettings(review_below=0.6, not_a_digit_above=1.5)


@pytest.mark.parametrize(
    ("confidence", "relative_energy", "doubt", "expected"),
    [
        (0.99, 0.2, None, None),
        (0.59, 0.2, None, "low_confidence"),
        (0.99, 1.6, None, "not_a_digit"),
        (0.30, 1.6, None, "not_a_digit"),
        (0.99, 0.2, "several_digits", "several_digits"),
    ],
)
def test_the_reason_to_ask_a_person(
    confidence: float, relative_energy: float, doubt: str | None, expected: str | None
) -> None:
    """Normalisation's doubt comes first, then strangeness, then low confidence."""
    assert expected == review_reason(confidence, relative_energy, doubt, LIMITS)
