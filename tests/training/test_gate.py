"""The gate: what is promoted, what is refused, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.config import GateSettings
from daemon.training.gate import (
    INSUFFICIENT,
    PROMOTED,
    REFUSED,
    Best,
    Evidence,
    PairedAnswers,
    Verdict,
    decide,
    mcnemar_p,
    non_inferiority_p,
)

SETTINGS = GateSettings()
NONE = PairedAnswers(*(np.empty(0, bool) for _ in range(3)))  # nothing that shows no digit


def judge(
    holdout: PairedAnswers,
    corrections: PairedAnswers,
    none: PairedAnswers = NONE,
    *,
    best: Best | None = None,
    holdout_held: PairedAnswers | None = None,
    corrections_held: PairedAnswers | None = None,
    settings: GateSettings = SETTINGS,
) -> Verdict:
    """The gate's verdict; unless told otherwise, nothing that shows a digit is held back by either."""
    held = [
        given or reviews(0, 0, len(of.truth)) for given, of in ((holdout_held, holdout), (corrections_held, corrections))
    ]
    return decide(Evidence(holdout, held[0], corrections, held[1], none), best or Best(0.996), settings)


def reviews(champion: int, candidate: int, n: int) -> PairedAnswers:
    """Of n images of digits, the first ones are held back by the champion, and by the candidate."""
    return PairedAnswers(np.zeros(n, bool), np.arange(n) < champion, np.arange(n) < candidate)


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
    verdict = judge(answers(10_000, 40, 42), answers(20, 8, 1))
    assert verdict.verdict == PROMOTED
    assert "99.60% to 99.58%" in verdict.reason
    assert "8 newly right, 1 newly wrong" in verdict.reason


def test_a_loss_beyond_the_margin_is_refused() -> None:
    """0.3 points lost on the hold-out are more than the margin of 0.25, however much was learnt."""
    verdict = judge(answers(10_000, 40, 70), answers(20, 10, 0))
    assert verdict.verdict == REFUSED


def test_a_loss_that_may_be_beyond_the_margin_is_no_evidence() -> None:
    """A hold-out too small to exclude a loss beyond the margin keeps the champion."""
    verdict = judge(answers(1_000, 3, 3), answers(20, 10, 0), best=Best(0.997))
    assert verdict.verdict == INSUFFICIENT


def test_small_losses_do_not_add_up() -> None:
    """A candidate just below the champion is refused where the champion is already below the best that ever was live."""
    assert judge(answers(10_000, 60, 65), answers(20, 8, 1), best=Best(0.9940)).verdict == PROMOTED
    assert judge(answers(10_000, 60, 65), answers(20, 8, 1), best=Best(0.9965)).verdict == REFUSED


def test_a_digit_that_is_no_longer_read_is_refused() -> None:
    """Recall below the floor for one digit is refused, even within the margin of the whole."""
    verdict = judge(
        answers(10_000, 5, 29, digit=4), answers(20, 8, 1), best=Best(0.997), settings=GateSettings(recall_floor=0.98)
    )
    assert verdict.verdict == REFUSED
    assert "4s" in verdict.reason


def test_worse_on_the_corrections_is_refused() -> None:
    """What people corrected must not be read worse than before."""
    assert judge(answers(10_000, 40, 40), answers(40, 1, 9)).verdict == REFUSED
    assert judge(answers(10_000, 40, 40), answers(40, 1, 2)).verdict == INSUFFICIENT


def test_too_few_corrections_are_no_evidence_unless_the_holdout_speaks() -> None:
    """With 4 corrections only a real gain on the hold-out promotes."""
    assert judge(answers(10_000, 40, 40), answers(4, 3, 0)).verdict == INSUFFICIENT
    assert judge(answers(10_000, 60, 30), answers(4, 3, 0), best=Best(0.994)).verdict == PROMOTED


def doubts(champion: int, candidate: int, n: int = 20) -> PairedAnswers:
    """Of n images of no digit, the first ones are held back by the champion, and by the candidate."""
    return PairedAnswers(np.ones(n, bool), np.arange(n) < champion, np.arange(n) < candidate)


def test_what_shows_no_digit_has_its_say() -> None:
    """Held-back images of no digit are evidence alone; a candidate that accepts more of them is not promoted."""
    holdout, few = answers(10_000, 40, 40), answers(4, 3, 0)
    verdict = judge(holdout, few, doubts(8, 20))
    assert verdict.verdict == PROMOTED
    assert "no digit: 40.0% to 100.0% held back for review of 20 (12 newly held back, 0 newly accepted)" in verdict.reason
    assert judge(holdout, answers(20, 8, 1), doubts(20, 10)).verdict == REFUSED
    assert judge(holdout, answers(20, 8, 1), doubts(20, 19)).verdict == INSUFFICIENT
    assert judge(holdout, answers(0, 0, 0), doubts(2, 4, n=4)).verdict == INSUFFICIENT


def test_a_candidate_that_has_people_look_at_more_digits_is_refused() -> None:
    """0.9 points more of the hold-out held back for review are within the margin, two are not; and it says so."""
    holdout, corrections = answers(10_000, 40, 40), answers(20, 8, 1)
    verdict = judge(holdout, corrections, holdout_held=reviews(60, 150, 10_000))
    assert verdict.verdict == PROMOTED
    assert "0.60% to 1.50% held back for review" in verdict.reason
    verdict = judge(holdout, corrections, holdout_held=reviews(60, 260, 10_000))
    assert verdict.verdict == REFUSED
    assert "0.60% to 2.60% held back for review" in verdict.reason
    assert "People would look at more digits than before, by more than the margin of 1.00%" in verdict.reason


def test_a_little_more_to_look_at_does_not_add_up() -> None:
    """A candidate that holds back little more than the champion is refused where others held back much less."""
    holdout, corrections, held = answers(10_000, 40, 40), answers(20, 8, 1), reviews(150, 200, 10_000)
    assert judge(holdout, corrections, holdout_held=held, best=Best(0.996, held=0.012)).verdict == PROMOTED
    verdict = judge(holdout, corrections, holdout_held=held, best=Best(0.996, held=0.006))
    assert verdict.verdict == REFUSED
    assert "or than the fewest ever live, 0.60%" in verdict.reason


def test_corrections_are_not_put_into_review_instead_of_read() -> None:
    """A candidate that holds back many more of the held-back corrections is refused, one or two more may be chance."""
    holdout, corrections = answers(10_000, 40, 40), answers(20, 8, 1)
    assert judge(holdout, corrections, corrections_held=reviews(3, 5, 20)).verdict == PROMOTED
    verdict = judge(holdout, corrections, corrections_held=reviews(3, 10, 20))
    assert verdict.verdict == REFUSED
    assert "15.0% to 50.0% held back for review" in verdict.reason


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
    assert mcnemar_p(3, 1) == pytest.approx((4 / 2 + 1) / 16)


def test_mcnemar_knows_thousands_of_discordant_pairs() -> None:
    """More than floats can count."""
    assert mcnemar_p(5_000, 5_000) == pytest.approx(0.5)
    assert mcnemar_p(2_900, 40) == pytest.approx(0.0)
    assert mcnemar_p(40, 2_900) == pytest.approx(1.0)


def test_a_champion_that_held_very_much_back_can_be_followed() -> None:
    """A third of the hold-out, as a foreign model that is little sure: a better candidate is promoted."""
    verdict = judge(answers(10_000, 800, 40), answers(20, 8, 1), holdout_held=reviews(3_000, 60, 10_000))
    assert verdict.verdict == PROMOTED
    assert "30.00% to 0.60% held back for review" in verdict.reason
