"""The gate: whether a candidate may take the champion's place. Pure arithmetic on answers; no model, no files."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from daemon.config import GateSettings
from daemon.models import CLASSES

VERDICTS = PROMOTED, REFUSED, INSUFFICIENT = "promoted", "refused", "insufficient_evidence"


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why, in words.

    Attributes:
        verdict: "promoted", "refused" or "insufficient_evidence".
        reason: one or more sentences.

    """

    verdict: str
    reason: str


@dataclass(frozen=True)
class PairedAnswers:
    """What two models said to the same n images.

    Attributes:
        truth, champion, candidate: (n,) digits; or whether each is held back for review, which what shows no digit should
            be, and what shows one should not.

    """

    truth: np.ndarray
    champion: np.ndarray
    candidate: np.ndarray

    @property
    def accuracies(self) -> tuple[float, float]:
        """Share of right answers of (champion, candidate); 0.0 without images."""
        n = max(1, len(self.truth))
        return float((self.champion == self.truth).sum() / n), float((self.candidate == self.truth).sum() / n)

    @property
    def discordant(self) -> tuple[int, int]:
        """How many images (only the champion, only the candidate) read rightly."""
        champion, candidate = self.champion == self.truth, self.candidate == self.truth
        return int((champion & ~candidate).sum()), int((candidate & ~champion).sum())


@dataclass(frozen=True)
class Evidence:
    """What two models said to images that neither has learnt from.

    Attributes:
        holdout, corrections: how they read the frozen hold-out, and the corrections kept for the gate that show a digit.
        holdout_held, corrections_held: whether they hold the same images back for review.
        none: whether they hold back the corrections kept for the gate that show no digit.

    """

    holdout: PairedAnswers
    holdout_held: PairedAnswers
    corrections: PairedAnswers
    corrections_held: PairedAnswers
    none: PairedAnswers


@dataclass(frozen=True)
class Best:
    """The best of all versions that were ever live on this hold-out: many small losses must not add up.

    Attributes:
        accuracy: the share of the hold-out that was read rightly.
        held: the share that was held back for review, under these limits; 1.0 where nobody knows.

    """

    accuracy: float
    held: float = 1.0


def recall_by_digit(truth: np.ndarray, answers: np.ndarray) -> list[float]:
    """The share of each digit's images that were read as that digit; 1.0 for a digit without images."""
    right = np.bincount(truth[answers == truth], minlength=CLASSES)
    count = np.bincount(truth, minlength=CLASSES)
    return [float(r / c) if c else 1.0 for r, c in zip(right, count, strict=True)]


def decide(evidence: Evidence, best: Best, settings: GateSettings) -> Verdict:
    """Compare a candidate with the champion.

    Args:
        evidence: what both said.
        best: of all that were ever live.
        settings: margins, significance, floors.

    Returns:
        `promoted` if it is non-inferior on the hold-out, not worse on the corrections, and holds back no more digits than a
        margin allows; `refused` where it is shown to be worse on one of them; else `insufficient_evidence`.

    """
    holdout = evidence.holdout
    (champion, candidate), (lost, won) = holdout.accuracies, holdout.discordant
    story = f"{_tell('Hold-out', holdout, evidence.holdout_held, decimals=2, unit=' images')}."
    p_inferior = non_inferiority_p(won, lost, len(holdout.truth), settings.margin)
    if candidate - champion < -settings.margin or candidate < best.accuracy - settings.margin:
        return Verdict(
            REFUSED,
            f"{story} That is more than the margin of {settings.margin:.2%} below "
            f"{'the champion' if candidate - champion < -settings.margin else f'the best ever live, {best.accuracy:.2%}'}.",
        )
    recalls = (recall_by_digit(holdout.truth, answers) for answers in (holdout.champion, holdout.candidate))
    for digit, (before, after) in enumerate(zip(*recalls, strict=True)):
        if after < min(settings.recall_floor, before):
            return Verdict(
                REFUSED,
                f"{story} Only {after:.2%} of the {digit}s are read as such; the floor is {settings.recall_floor:.2%}.",
            )
    if _holds_back_more(evidence.holdout_held, best.held, settings):
        return Verdict(REFUSED, f"{story} {_more_work(best.held, settings)}")
    if p_inferior >= settings.significance:
        return Verdict(
            INSUFFICIENT,
            f"{story} It may be worse by more than the margin of {settings.margin:.2%} (p = {p_inferior:.3f}).",
        )
    return _decide_on_corrections(story, evidence, settings)


def _decide_on_corrections(story: str, evidence: Evidence, settings: GateSettings) -> Verdict:
    corrections, none = evidence.corrections, evidence.none
    count = len(corrections.truth) + len(none.truth)
    if count < settings.min_corrections:
        lost, won = evidence.holdout.discordant
        if won > lost and mcnemar_p(won, lost) < settings.significance:
            return Verdict(PROMOTED, f"{story} It is better there, and there are too few corrections ({count}) to ask.")
        return Verdict(
            INSUFFICIENT,
            f"{story} Only {count} corrections are kept for the gate, {settings.min_corrections} are needed to tell "
            "whether it is better.",
        )
    if len(corrections.truth):
        story += f" {_tell('Held-back corrections', corrections, evidence.corrections_held)}."
    if len(none.truth):
        (champion, candidate), (unlearnt, learnt) = none.accuracies, none.discordant
        story += (
            f" Held-back images of no digit: {champion:.1%} to {candidate:.1%} held back for review of {len(none.truth)} "
            f"({learnt} newly held back, {unlearnt} newly accepted)."
        )
    losses = [answers.discordant for answers in (corrections, none)]
    p_worse = min((mcnemar_p(unlearnt, learnt) for unlearnt, learnt in losses if unlearnt > learnt), default=None)
    if p_worse is not None and p_worse < settings.significance:
        return Verdict(REFUSED, f"{story} It is worse on them (p = {p_worse:.3f}).")
    if _holds_back_more(evidence.corrections_held, 1.0, settings):
        return Verdict(REFUSED, f"{story} {_more_work(1.0, settings)}")
    if p_worse is None:
        return Verdict(PROMOTED, f"{story} It is not worse on either.")
    return Verdict(INSUFFICIENT, f"{story} It may be worse on them (p = {p_worse:.3f}).")


def _tell(which: str, read: PairedAnswers, held: PairedAnswers, decimals: int = 1, unit: str = "") -> str:
    """How two models read images that show a digit, and how many of them they have a person look at."""
    (champion, candidate), (lost, won) = read.accuracies, read.discordant
    before, after = (1 - accepted for accepted in held.accuracies)
    return (
        f"{which}: {champion:.{decimals}%} to {candidate:.{decimals}%} right of {len(read.truth)}{unit} "
        f"({won} newly right, {lost} newly wrong), {before:.{decimals}%} to {after:.{decimals}%} held back for review"
    )


def _holds_back_more(held: PairedAnswers, fewest: float, settings: GateSettings) -> bool:
    """Whether more images of digits are held back than the margin allows, and not by chance."""
    before, after = (1 - accepted for accepted in held.accuracies)
    more, fewer = held.discordant
    by_chance = mcnemar_p(more, fewer) >= settings.significance
    return (after - before > settings.review_margin and not by_chance) or after > fewest + settings.review_margin


def _more_work(fewest: float, settings: GateSettings) -> str:
    known = f" or than the fewest ever live, {fewest:.2%}" if fewest < 1 else ""
    return f"People would look at more digits than before{known}, by more than the margin of {settings.review_margin:.2%}."


def non_inferiority_p(won: int, lost: int, n: int, margin: float) -> float:
    """One-sided p of "the candidate is worse than the champion by `margin` or more", from paired answers.

    The score test of Tango (1998), Statistics in Medicine 17:891-908: z is the observed difference's distance from -margin,
    in standard errors under that hypothesis, whose nuisance probability is its restricted maximum-likelihood estimate.

    Args:
        won: images that only the candidate read rightly.
        lost: images that only the champion read rightly.
        n: all images.
        margin: the largest loss that counts as none, as a share; > 0.

    Returns:
        p, 0 to 1; small where the candidate is shown to be non-inferior. 1.0 without images.

    """
    if n == 0:
        return 1.0
    difference = -margin
    a = 2 * n
    b = 2 * n * difference - won * (1 + difference) - lost * (1 - difference)
    c = -lost * difference * (1 - difference)
    q = (-b + math.sqrt(max(0.0, b * b - 4 * a * c))) / (2 * a)  # P(only the champion is right)
    variance = n * (2 * q + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if won - lost > n * difference else 1.0
    z = (won - lost - n * difference) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))


def mcnemar_p(more: int, fewer: int) -> float:
    """One-sided mid-p of McNemar's exact test: as many as `more` of the discordant pairs, by a fair coin.

    Fagerland, Lydersen, Laake (2013), BMC Medical Research Methodology 13:91.
    """
    n = more + fewer
    if n == 0:
        return 1.0
    tail = first = term = math.comb(n, more)  # whole numbers to the end: from 1,029 pairs on, they are too large for floats
    for k in range(more, n):
        term = term * (n - k) // (k + 1)
        tail += term
    return (2 * tail - first) / 2 ** (n + 1)
