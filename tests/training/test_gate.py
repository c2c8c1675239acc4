"""The gate: what is promoted, what is refused, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.config import GateSettings
from daemon.training.gate import INSUFFICIENT, PROMOTED, REFUSED, PairedAnswers, decide, mcnemar_p, non_inferiority_p

SETTINGS = GateSettings()
NONE = PairedAnswers(*(np.empty(0, bool) for _ in range(3)))  # nothing that shows no digit


def answers(n: int, champion_wrong: int, candidate_wrong: int, digit: int | None = None) -> PairedAnswers:
    """Answers to n images; the two models are wrong on different ones, spread over the digits or all on one of them."""
    truth = np.arange(n) % 10
    wrong = (truth + 1) % 10
    order = np.random.default_rng(0).permutation(n if digit is None else np.flatnonzero(truth == digit))
    champion, candidate = truth.copy(), truth.copy()
    first, second = order[:champion_wrong], order[champion_wrong : champion_wrong + candidate_wrong]
    champion[first], candidate[second] = wrong[first], wrong[second]
    return PairedAnswers(truth, champion, candidate)


def test_a_candidate_that_learnt_and_forgot_nothing_is_promoted() -> None:
    """As good on the hold-out, better on the corrections: promoted, and the reason has the figures."""
    verdict = decide(answers(10_000, 40, 42), answers(20, 8, 1), NONE, 0.996, SETTINGS)
    assert verdict.verdict == PROMOTED
    assert "99.60% to 99.58%" in verdict.reason
    assert "8 newly right, 1 newly wrong" in verdict.reason


def test_a_loss_beyond_the_margin_is_refused() -> None:
    """0.3 points lost on the hold-out are more than the margin of 0.25, however much was learnt."""
    verdict = decide(answers(10_000, 40, 70), answers(20, 10, 0), NONE, 0.996, SETTINGS)
    assert verdict.verdict == REFUSED


def test_a_loss_that_may_be_beyond_the_margin_is_no_evidence() -> None:
    """A hold-out too small to exclude a loss beyond the margin keeps the champion."""
    verdict = decide(answers(1_000, 3, 3), answers(20, 10, 0), NONE, 0.997, SETTINGS)
    assert verdict.verdict == INSUFFICIENT


def test_small_losses_do_not_add_up() -> None:
    """A candidate just below the champion is refused where the champion is already below the best that ever was live."""
    assert decide(answers(10_000, 60, 65), answers(20, 8, 1), NONE, 0.9940, SETTINGS).verdict == PROMOTED
    assert decide(answers(10_000, 60, 65), answers(20, 8, 1), NONE, 0.9965, SETTINGS).verdict == REFUSED


def test_a_digit_that_is_no_longer_read_is_refused() -> None:
    """Recall below the floor for one digit is refused, even within the margin of the whole."""
    verdict = decide(answers(10_000, 5, 29, digit=4), answers(20, 8, 1), NONE, 0.997, GateSettings(recall_floor=0.98))
    assert verdict.verdict == REFUSED
    assert "4s" in verdict.reason


def test_worse_on_the_corrections_is_refused() -> None:
    """What people corrected must not be read worse than before."""
    assert decide(answers(10_000, 40, 40), answers(40, 1, 9), NONE, 0.996, SETTINGS).verdict == REFUSED
    assert decide(answers(10_000, 40, 40), answers(40, 1, 2), NONE, 0.996, SETTINGS).verdict == INSUFFICIENT


def test_too_few_corrections_are_no_evidence_unless_the_holdout_speaks() -> None:
    """With 4 corrections only a real gain on the hold-out promotes."""
    assert decide(answers(10_000, 40, 40), answers(4, 3, 0), NONE, 0.996, SETTINGS).verdict == INSUFFICIENT
    assert decide(answers(10_000, 60, 30), answers(4, 3, 0), NONE, 0.994, SETTINGS).verdict == PROMOTED


def doubts(champion: int, candidate: int, n: int = 20) -> PairedAnswers:
    """Of n images of no digit, the first ones are held back by the champion, and by the candidate."""
    return PairedAnswers(np.ones(n, bool), np.arange(n) < champion, np.arange(n) < candidate)


def test_what_shows_no_digit_has_its_say() -> None:
    """Held-back images of no digit are evidence alone; a candidate that accepts more of them is not promoted."""
    holdout, few = answers(10_000, 40, 40), answers(4, 3, 0)
    verdict = decide(holdout, few, doubts(8, 20), 0.996, SETTINGS)
    assert verdict.verdict == PROMOTED
    assert "no digit: 40.0% to 100.0% held back for review of 20 (12 newly held back, 0 newly accepted)" in verdict.reason
    assert decide(holdout, answers(20, 8, 1), doubts(20, 10), 0.996, SETTINGS).verdict == REFUSED
    assert decide(holdout, answers(20, 8, 1), doubts(20, 19), 0.996, SETTINGS).verdict == INSUFFICIENT
    assert decide(holdout, answers(0, 0, 0), doubts(2, 4, n=4), 0.996, SETTINGS).verdict == INSUFFICIENT


def test_a_candidate_one_point_worse_is_promoted_at_most_once_in_a_hundred() -> None:
    """Of 2,000 simulated gates on 10,000 images, with a candidate truly 1 point worse, none to 1 in 100 promotes."""
    rng = np.random.default_rng(1)
    pairs = rng.multinomial(10_000, [0.004, 0.014, 0.982], size=2_000)  # only the candidate right, only the champion, else
    promoted = sum(non_inferiority_p(won, lost, 10_000, SETTINGS.margin) < SETTINGS.significance for won, lost, _ in pairs)
    assert promoted <= 20


@pytest.mark.parametrize(("n", "margin", "discordant"), [(10_000, 0.0025, 0.008), (1_000, 0.01, 0.04)])
def test_the_non_inferiority_test_errs_as_often_as_it_says(n: int, margin: float, discordant: float) -> None:
    """At the margin itself, Tango's test at 5 % calls 4 to 6 % of 20,000 simulated candidates non-inferior."""
    rng = np.random.default_rng(2)
    won, lost = (discordant - margin) / 2, (discordant + margin) / 2
    pairs = rng.multinomial(n, [won, lost, 1 - won - lost], size=20_000)
    unique, counts = np.unique(pairs[:, :2], axis=0, return_counts=True)
    wrongly = sum(count for (a, b), count in zip(unique, counts, strict=True) if non_inferiority_p(a, b, n, margin) < 0.05)
    assert 0.04 < wrongly / 20_000 < 0.06


def test_mcnemar_is_the_binomial_mid_p() -> None:
    """7 of 7 discordant pairs: half of 1/128; none: no evidence at all."""
    assert mcnemar_p(7, 0) == pytest.approx(0.5 / 128)
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == pytest.approx(0.5)
