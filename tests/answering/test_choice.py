"""choice.py: which reading of an image is answered."""

import numpy as np
import pytest

from daemon.answering.choice import Chosen, answer
from daemon.answering.second_look import write_again
from daemon.models.version import ModelIdentity
from daemon.reading.components import Doubt
from daemon.reading.mnist import Reading
from daemon.reading.readings import Readings


class Told:
    """A model that says of an image what its first pixel asks for."""

    def __init__(self, *says: tuple[int, float, float]) -> None:
        self.says = says  # digit, confidence, relative energy

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, ModelIdentity]:
        """Give what is to be said."""
        said = [self.says[image[0, 0]] for image in images]
        rows = np.zeros((len(images), 10), np.float32)
        for row, (digit, confidence, _) in zip(rows, said, strict=True):
            row[:] = (1 - confidence) / 9
            row[digit] = confidence
        return rows, np.array([energy for _, _, energy in said], np.float32), ModelIdentity("v0001", "")


def reading(number: int, doubt: Doubt | None = None) -> Reading:
    """An image of which the model says what is in this place."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[0, 0] = number
    return Reading(pixels, doubt, as_sent=True)


def digits(chosen: Chosen) -> list[int]:
    """What is answered."""
    found: list[int] = chosen.probabilities.argmax(axis=1).tolist()
    return found


def test_an_image_with_one_reading_is_answered_by_it() -> None:
    """Where there is nothing to choose, all goes through as it is."""
    model = Told((3, 0.9, 0.0), (4, 0.2, 5.0))
    readings = Readings.of([(reading(0),), (reading(1, "not_a_digit"),)])
    answers = answer(model, readings)
    assert [3, 4] == digits(answers)
    assert [None, "not_a_digit"] == answers.doubts
    assert np.array_equal(readings.pixels, answers.pixels)


def test_the_reading_that_is_doubted_least_is_answered() -> None:
    """Confidence, strangeness and what normalisation found all count, for each image alone."""
    model = Told((1, 0.6, 0.0), (7, 0.99, 0.0), (5, 0.99, 2.0))
    images = [(reading(0), reading(1)), (reading(2), reading(1)), (reading(1, "several_digits"), reading(0)), (reading(2),)]
    answers = answer(model, Readings.of(images))
    assert [7, 7, 1, 5] == digits(answers)
    assert [None] * 4 == answers.doubts
    assert [1, 1, 0, 2] == answers.pixels[:, 0, 0].tolist()


def test_the_likelier_reading_wins_a_tie() -> None:
    """A little more confidence is not enough to go against what the picture itself tells."""
    model = Told((1, 0.95, 0.2), (7, 1.0, 0.0))
    assert [1] == digits(answer(model, Readings.of([(reading(0), reading(1))])))


def test_readings_that_differ_are_doubt() -> None:
    """A second reading that is as sure of another digit takes confidence away, and one that agrees does not."""
    model = Told((3, 0.99, 0.0), (8, 1.0, 0.0), (8, 0.3, 0.0))
    images = [(reading(0), reading(1)), (reading(0), reading(0)), (reading(0), reading(2)), (reading(0),)]
    probabilities = answer(model, Readings.of(images)).probabilities
    differing, agreeing, clear, alone = probabilities.max(axis=1).tolist()
    assert 0.5 < differing < 0.75
    assert 0.99 == pytest.approx(alone) == pytest.approx(agreeing) == pytest.approx(clear, abs=0.02)
    assert [3] * 4 == probabilities.argmax(axis=1).tolist()
    assert np.allclose(probabilities.sum(axis=1), 1)


class Asked(Told):
    """One that knows how many images it was asked about, and says the first thing of what has lost its first pixel."""

    def __init__(self, *says: tuple[int, float, float]) -> None:
        super().__init__(*says)
        self.asked: list[int] = []

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, ModelIdentity]:
        """Give what is to be said."""
        self.asked.append(len(images))
        return super().predict(images)


def test_what_is_not_sure_is_looked_at_again_in_other_hands() -> None:
    """A guess that does not stand has less confidence, or is another's; what is sure, or was sent like this, stays."""
    model = Asked((8, 0.9, 0.0), (3, 0.97, 0.5), (5, 1.0, 0.0))
    images = [(reading(number)._replace(as_sent=as_sent),) for number, as_sent in ((1, False), (2, False), (1, True))]
    answers = answer(model, Readings.of(images))
    assert [3, 3] == model.asked
    assert [8, 5, 3] == digits(answers)
    assert 0.6 < answers.probabilities[0, 8] < 0.8
    assert np.allclose(answers.probabilities.sum(axis=1), 1)
    assert [1, 2, 1] == answers.pixels[:, 0, 0].tolist()
    assert 0.5 == answers.energies[0]


def test_another_hand_writes_narrower_and_slanted() -> None:
    """Three hands, each image in each; the digit stays in the middle, and its ink is as much, or less where narrower."""
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 4:24, 8:20] = images[1, 10:18, 13:15] = 255
    narrow, right, left = write_again(images).reshape(3, 2, 28, 28).astype(float)
    for hand, share in ((narrow, 0.82), (right, 1), (left, 1)):
        assert hand[0].sum() == pytest.approx(share * images[0].sum(dtype=float), rel=0.02)
    assert np.array_equal(right[:, ::-1], left)
    middles = [(row * np.arange(28)).sum() / row.sum() for row in right[0, 4:24]]
    assert 0.18 * 19 == pytest.approx(abs(middles[-1] - middles[0]), abs=0.1)


def test_nothing_is_answered_with_nothing() -> None:
    """An empty batch is a batch."""
    assert [] == digits(answer(Told(), Readings.of([])))
