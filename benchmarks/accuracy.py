"""How well images are read, how honest the confidence is, and what is held back: `python -m benchmarks.accuracy`.

Prints, for each set: how many are right (a refused digit counts as wrong), how many are accepted, which share of those is
wrong, the expected calibration error (15 bins), and CPU microseconds an image from its bytes to its 28x28 pixels. Sets of
real handwriting, whose writers no training saw, come first and apart; what a program drew flatters. For what is no digit:
how much is rejected or goes to review.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import devset, hands, scenes
from daemon.answering.choice import answer
from daemon.config import Settings, load_settings
from daemon.models.live import LiveModel, load
from daemon.models.registry import Registry
from daemon.reading.content import InvalidImage
from daemon.reading.decode import load_content
from daemon.reading.mnist import Reading
from daemon.reading.readings import Readings

WORST = 120  # images on the contact sheet
FEW_DRAWN, FEW_NO_DIGITS = 220, 120  # images a set: drawing one takes 20 to 90 ms
WRITERS = hands.SETS | scenes.SETS  # sets whose kinds are who wrote them
REAL = {"mnist": devset.plain} | WRITERS
DRAWN = {name: make for name, make in devset.DIGITS.items() if make is not devset.plain}


@dataclass(frozen=True)
class Answers:
    """What the daemon makes of a set; every array is (n,).

    Attributes:
        truth: the digit, -1 where there is none.
        answer: the digit read, -1 where the image was rejected.
        confidence: 0 where the image was rejected.
        held: rejected, or sent to review.
        microseconds: of CPU an image, decoding and normalisation.

    """

    truth: np.ndarray
    answer: np.ndarray
    confidence: np.ndarray
    energy: np.ndarray
    doubt: list[str | None]
    held: np.ndarray
    pixels: np.ndarray
    cases: list[devset.Case]
    microseconds: float


def read(cases: Iterable[devset.Case], model: LiveModel, settings: Settings) -> Answers:
    """Decode, normalise, predict and decide as the daemon does."""
    cases = list(cases)
    nothing = (Reading(np.zeros((28, 28), np.uint8), "not_a_digit"),)
    readings = []
    rejected = np.zeros(len(cases), bool)
    started = time.process_time()
    for index, case in enumerate(cases):
        try:
            image = load_content(case.data, settings.inbox.max_pixels)
        except InvalidImage:
            rejected[index] = True
            readings.append(nothing)
        else:
            readings.append(image.readings)
    microseconds = (time.process_time() - started) / max(1, len(cases)) * 1e6
    answers = answer(model, Readings.of(readings))
    confidence = np.where(rejected, 0, answers.probabilities.max(axis=1))
    held = np.array([reason is not None for reason in answers.review_reasons(settings.inference)])
    truth = np.array([-1 if case.digit is None else case.digit for case in cases])
    digit = np.where(rejected, -1, answers.probabilities.argmax(axis=1))
    return Answers(truth, digit, confidence, answers.energies, answers.doubts, held, answers.pixels, cases, microseconds)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error over 15 bins of equal width, 0 to 1 (Guo et al. 2017)."""
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in np.unique(bins)]
    return float(sum(gaps) / len(confidence))


def contact_sheet(answers: list[Answers], path: Path) -> None:
    """Draw the wrong answers and accepted non-digits that were given with the most confidence, beside what the model saw."""
    worst = [
        (float(a.confidence[i]), a, i)
        for a in answers
        for i in range(len(a.truth))
        if (a.answer[i] != a.truth[i] if a.truth[i] >= 0 else not a.held[i])
    ]
    worst.sort(key=lambda item: -item[0])
    sheet = Image.new("RGB", (12 * 130, -(-min(len(worst), WORST) // 12) * 66), "white")
    for place, (_, a, i) in enumerate(worst[:WORST]):
        picture = devset.shown(a.cases[i].data)
        picture.thumbnail((62, 62))
        x, y = place % 12 * 130, place // 12 * 66
        sheet.paste(picture, (x, y))
        sheet.paste(Image.fromarray(a.pixels[i]).resize((62, 62), Image.Resampling.NEAREST), (x + 64, y))
    sheet.save(path)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=Path("config.toml"))
    parser.add_argument("--model", type=Path, default=Path("models/current.h5"), help="with its manifest .json beside it")
    parser.add_argument(
        "--limit",
        type=int,
        help=f"images a set; 0 for all; unless given, all that are real, {FEW_DRAWN} drawn and {FEW_NO_DIGITS} of no digit",
    )
    parser.add_argument("--kinds", action="store_true", help="also print each set's kinds that were read worst")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the worst answers, a PNG")
    chosen = parser.parse_args()
    settings = load_settings(chosen.config)
    path = chosen.model.resolve() if chosen.model.exists() else Path("models/v0001.h5")
    model = load(Registry(path.parent).version(path.stem))
    mnist = devset.Mnist()
    if packages := devset.missing():
        print(f"not installed: apt-get install {' '.join(packages)}")

    everything = []
    limits = (None, FEW_DRAWN, FEW_NO_DIGITS) if chosen.limit is None else (chosen.limit or None,) * 3
    for title, sets, limit in (("real", REAL, limits[0]), ("drawn", DRAWN, limits[1])):
        columns = f"{'images':>6} {'right':>7} {'accepted':>9} {'of those wrong':>15} {'ECE':>6}  %  {'us/image':>8}"
        print(f"\n{title:<12} {columns}")
        for name, a in read_all(sets, mnist, model, settings, limit):
            print_row(name, a, slice(None))
            if name in WRITERS:
                print_writers(a)
            elif chosen.kinds:
                print_kinds(a, a.answer == a.truth)
            everything.append(a)
    print(f"\n{'no digit':<12} {'images':>6} {'held back':>9} {'rejected':>8} {'by doubt':>8}  %")
    for name, a in read_all(devset.NO_DIGITS, mnist, model, settings, limits[2]):
        doubted = np.array([doubt is not None for doubt in a.doubt])
        print(
            f"{name:<12} {len(a.held):>6} {100 * a.held.mean():>9.2f} {100 * (a.answer < 0).mean():>8.2f} "
            f"{100 * (doubted & (a.answer >= 0)).mean():>8.2f}",
            flush=True,
        )
        if chosen.kinds:
            print_kinds(a, a.held)
        everything.append(a)
    if chosen.sheet:
        contact_sheet(everything, chosen.sheet)
    return 0


def read_all(
    sets: devset.Sets, mnist: devset.Mnist, model: LiveModel, settings: Settings, limit: int | None
) -> Iterator[tuple[str, Answers]]:
    """Make and read one set after the other; what needs a package that is missing is passed over."""
    for name, make in sets.items():
        answers = read(islice(make(mnist), limit), model, settings)
        if answers.cases:
            yield name, answers


def print_writers(answers: Answers) -> None:
    """Print one line for each writer of a set."""
    writers = np.array([case.kind for case in answers.cases])
    for writer in np.unique(writers):
        print_row(f"  {writer}", answers, np.flatnonzero(writers == writer))


def print_row(name: str, answers: Answers, chosen: slice | np.ndarray) -> None:
    """Print one line of the table, of a set or of some of its images."""
    right, accepted = (answers.answer == answers.truth)[chosen], ~answers.held[chosen]
    wrong = 100 * (1 - right[accepted].mean()) if accepted.any() else 0.0
    print(
        f"{name:<12} {len(right):>6} {100 * right.mean():>7.2f} {100 * accepted.mean():>9.2f} {wrong:>15.2f} "
        f"{100 * calibration_error(answers.confidence[chosen], right):>6.2f}     {answers.microseconds:>8.0f}",
        flush=True,
    )


def print_kinds(answers: Answers, good: np.ndarray) -> None:
    """Print the kinds of a set of which the smallest share is good."""
    kinds = np.array([case.kind for case in answers.cases])
    shares = sorted((float(good[kinds == kind].mean()), kind) for kind in np.unique(kinds))
    print("    " + ", ".join(f"{kind} {100 * share:.0f}" for share, kind in shares[:8] if share < 1))


if __name__ == "__main__":
    sys.exit(main())
