"""`digitd correct`: the original of an answer becomes a label."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from daemon.commands.correct import correct, print_correct
from daemon.config import Settings
from daemon.drops import with_ending
from daemon.training.corrections import list_usable
from tests.conftest import Digits, leased
from tests.training.test_correction_watch import answer
from tests.training.test_corrections import put


@pytest.mark.parametrize("name", ["a.png", "a.png.json", "results/a.png.json"])
def test_correct_copies_the_original_of_the_answer(root: Path, settings: Settings, digits: Digits, name: str) -> None:
    """By the image's or the result's name, from any folder, the result's original lands in corrections/<digit>/."""
    answer(settings.folder("results"), "a.png", digits.png(1), 7)
    (root / "processed").mkdir(exist_ok=True)
    (root / "processed" / "a.png").write_bytes(digits.png(0))  # older bytes of the same name
    tag = hashlib.sha256(digits.png(1)).hexdigest()[:8]
    (root / "processed" / f"a~{tag}.png").write_bytes(digits.png(1))
    target = correct(settings, name, "2")
    assert target == settings.folder("corrections") / "2" / f"a~{tag}.png"
    assert target.read_bytes() == digits.png(1)


def test_names_that_others_have_taken_hinder_no_label(settings: Settings, digits: Digits) -> None:
    """Neither the original's, which has the third then, nor the label's, which has the fourth."""
    content = digits.png(1)
    digest = hashlib.sha256(content).hexdigest()
    answer(settings.folder("results"), "a.png", content, 7)
    for tag in ("", f"~{digest[:8]}", f"~{digest}"):
        put(settings.root, "processed", f"a{tag}.png", digits.png(0))
        put(settings.folder("corrections"), 2, f"a~{digest}{tag}.png", digits.png(0))
    put(settings.root, "processed", f"a~{digest}.png", content)
    assert content == correct(settings, "a.png", "2").read_bytes()
    assert 4 == len(labels(settings))


def test_an_answer_with_a_long_name_is_labelled_by_it(settings: Settings, digits: Digits) -> None:
    """The JSON's name has but a part of it."""
    name = f"{'x' * 247}.png"
    answer(settings.folder("results"), name, digits.png(1), 7)
    put(settings.root, "processed", name, digits.png(1))
    assert digits.png(1) == correct(settings, with_ending(name, "", ".json"), "2").read_bytes()


def test_correct_says_what_it_expected(settings: Settings) -> None:
    """An unknown name is refused with what was received."""
    with pytest.raises(FileNotFoundError, match=r"Received: 'nothing\.png'.*; see `digitd find`\.$"):
        correct(settings, "nothing.png", "2")


def labels(settings: Settings) -> list[str]:
    """The files that are labels."""
    return list_usable(settings.folder("corrections"), pytest.fail)


def test_a_label_moves(settings: Settings, digits: Digits) -> None:
    """Labelled again, the image has the new label alone, under whatever name it had the old one."""
    answer(settings.folder("results"), "a.png", digits.png(1), 7)
    put(settings.folder("processed").parent, "processed", "a.png", digits.png(1))
    put(settings.folder("corrections"), 3, "by-hand/b.png", digits.png(1))
    other = put(settings.folder("corrections"), 3, "other.png", digits.png(2))
    for label in ("7", "none", "2", "2"):
        target = correct(settings, "a.png", label)
        assert sorted(labels(settings)) == sorted([f"{label}/a.png", "3/other.png"])
        assert target.read_bytes() == digits.png(1)
    assert other.read_bytes() == digits.png(2)
    assert [path.name for path in target.parent.iterdir()] == ["a.png"]


def test_another_image_of_the_same_name_keeps_its_label(settings: Settings, digits: Digits) -> None:
    """Once the first a.png was retired, the next may have its name: both are labels."""
    for number in (1, 2):
        answer(settings.folder("results"), "a.png", digits.png(number), 7)
        put(settings.folder("processed").parent, "processed", "a.png", digits.png(number))
        assert correct(settings, "a.png", "4").read_bytes() == digits.png(number)
    assert len(labels(settings)) == 2


def test_a_label_does_not_follow_links(settings: Settings, digits: Digits, tmp_path: Path) -> None:
    """Where corrections/<digit> was made a link, nothing is written beyond it."""
    answer(settings.folder("results"), "a.png", digits.png(1), 7)
    put(settings.folder("processed").parent, "processed", "a.png", digits.png(1))
    (tmp_path / "elsewhere").mkdir()
    (settings.folder("corrections") / "7").rmdir()
    (settings.folder("corrections") / "7").symlink_to(tmp_path / "elsewhere")
    assert print_correct(settings, "a.png", "7") == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_cannot_be_read_holds_no_label_up(settings: Settings, digits: Digits) -> None:
    """Though it be as long as the image, and perhaps another label of it."""
    answer(settings.folder("results"), "a.png", digits.png(1), 7)
    put(settings.folder("processed").parent, "processed", "a.png", digits.png(1))
    with leased(put(settings.folder("corrections"), 3, "b.png", digits.png(1))):
        assert print_correct(settings, "a.png", "7") == 0
