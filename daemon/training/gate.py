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
        truth, champion, candidate: (n,) digits; of what shows none, whether it is held back for review.

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


def recall_by_digit(truth: np.ndarray, answers: np.ndarray) -> list[float]:
    """The share of each digit's images that were read as that digit; 1.0 for a digit without images."""
    right = np.bincount(truth[answers == truth], minlength=CLASSES)
    count = np.bincount(truth, minlength=CLASSES)
    return [float(r / c) if c else 1.0 for r, c in zip(right, count, strict=True)]


def decide(
    holdout: PairedAnswers, corrections: PairedAnswers, none: PairedAnswers, best_accuracy: float, settings: GateSettings
) -> Verdict:
    """Compare a candidate with the champion.

    Args:
        holdout: answers on the frozen hold-out.
        corrections: answers on the corrections that are kept for the gate, and show a digit.
        none: on those that show none: whether they are held back for review.
        best_accuracy: on the hold-out, of any version that was ever live: many small losses must not add up.
        settings: margin, significance, floors.

    Returns:
        `promoted` if it is non-inferior on the hold-out and not worse on the corrections; `refused` where it is shown to
        be worse on either; else `insufficient_evidence`.

    """
    (champion, candidate), (lost, won) = holdout.accuracies, holdout.discordant
    story = (
        f"Hold-out: {champion:.2%} to {candidate:.2%} right of {len(holdout.truth)} images "
        f"({won} newly right, {lost} newly wrong)."
    )
    p_inferior = non_inferiority_p(won, lost, len(holdout.truth), settings.margin)
    if candidate - champion < -settings.margin or candidate < best_accuracy - settings.margin:
        return Verdict(
            REFUSED,
            f"{story} That is more than the margin of {settings.margin:.2%} below "
            f"{'the champion' if candidate - champion < -settings.margin else f'the best ever live, {best_accuracy:.2%}'}.",
        )
    for digit, (before, after) in enumerate(
        zip(
            recall_by_digit(holdout.truth, holdout.champion),
            recall_by_digit(holdout.truth, holdout.candidate),
            strict=True,
        )
    ):
        if after < min(settings.recall_floor, before):
            return Verdict(
                REFUSED,
                f"{story} Only {after:.2%} of the {digit}s are read as such; the floor is {settings.recall_floor:.2%}.",
            )
    if p_inferior >= settings.significance:
        return Verdict(
            INSUFFICIENT,
            f"{story} It may be worse by more than the margin of {settings.margin:.2%} (p = {p_inferior:.3f}).",
        )
    return _decide_on_corrections(story, corrections, none, won, lost, settings)


def _decide_on_corrections(
    story: str, corrections: PairedAnswers, none: PairedAnswers, won: int, lost: int, settings: GateSettings
) -> Verdict:
    count = len(corrections.truth) + len(none.truth)
    if count < settings.min_corrections:
        if won > lost and mcnemar_p(won, lost) < settings.significance:
            return Verdict(PROMOTED, f"{story} It is better there, and there are too few corrections ({count}) to ask.")
        return Verdict(
            INSUFFICIENT,
            f"{story} Only {count} corrections are kept for the gate, {settings.min_corrections} are needed to tell "
            "whether it is better.",
        )
    told = [
        (corrections, "Held-back corrections", "right", "newly right", "newly wrong"),
        (none, "Held-back images of no digit", "held back for review", "newly held back", "newly accepted"),
    ]
    for answers, which, what, newly, no_longer in told:
        if len(answers.truth):
            (champion, candidate), (unlearnt, learnt) = answers.accuracies, answers.discordant
            story += (
                f" {which}: {champion:.1%} to {candidate:.1%} {what} of {len(answers.truth)} "
                f"({learnt} {newly}, {unlearnt} {no_longer})."
            )
    losses = [answers.discordant for answers in (corrections, none)]
    p_worse = min((mcnemar_p(unlearnt, learnt) for unlearnt, learnt in losses if unlearnt > learnt), default=None)
    if p_worse is None:
        return Verdict(PROMOTED, f"{story} It is not worse on either.")
    if p_worse < settings.significance:
        return Verdict(REFUSED, f"{story} It is worse on them (p = {p_worse:.3f}).")
    return Verdict(INSUFFICIENT, f"{story} It may be worse on them (p = {p_worse:.3f}).")


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
    tail = sum(math.comb(n, k) for k in range(more, n + 1))
    return (tail - 0.5 * math.comb(n, more)) / 2**n
