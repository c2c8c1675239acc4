"""`digitd correct`: the original of an answer becomes a label."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from daemon.commands.correct import correct
from daemon.config import Settings
from tests.conftest import Digits
from tests.training.test_correction_watch import answer


@pytest.mark.parametrize("name", ["a.png", "a.png.json", "results/a.png.json"])
def test_correct_copies_the_original_of_the_answer(root: Path, settings: Settings, digits: Digits, name: str) -> None:
    """By the image's or the result's name, from any folder, the result's original lands in corrections/<digit>/."""
    answer(settings.folder("results"), "a.png", digits.png(1), 7)
    (root / "processed").mkdir(exist_ok=True)
    (root / "processed" / "a.png").write_bytes(digits.png(0))  # older bytes of the same name
    tag = hashlib.sha256(digits.png(1)).hexdigest()[:8]
    (root / "processed" / f"a~{tag}.png").write_bytes(digits.png(1))
    target = correct(settings, name, 2)
    assert target == settings.folder("corrections") / "2" / f"a~{tag}.png"
    assert target.read_bytes() == digits.png(1)


def test_correct_says_what_it_expected(settings: Settings) -> None:
    """An unknown name is refused with what was received."""
    with pytest.raises(FileNotFoundError, match=r"Received: 'nothing\.png'"):
        correct(settings, "nothing.png", 2)
