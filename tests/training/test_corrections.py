"""corrections.py: parted for ever, decoded under limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from daemon.config import InboxSettings
from daemon.training.corrections import load_corrections, part_of
from tests.conftest import Digits


def put(folder: Path, digit: int, name: str, content: bytes) -> Path:
    """Label content as a digit."""
    path = folder / str(digit) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_one_in_five_goes_to_the_gate_for_ever() -> None:
    """The part of a correction depends on its content alone, and about a fifth belongs to the gate."""
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5_000)]
    parts = [part_of(digest) for digest in digests]
    assert 0.18 < parts.count("gate") / 5_000 < 0.22
    assert 0.08 < parts.count("validation") / 5_000 < 0.12
    assert parts == [part_of(digest) for digest in digests]


def test_corrections_are_loaded_and_no_image_is_in_two_parts(tmp_path: Path, digits: Digits) -> None:
    """Each image is in exactly one part, under the digit of its folder; sub-folders count, twins count once."""
    for number in range(30):
        put(tmp_path, digits.labels[number], f"batch/{number}.png", digits.png(number))
    put(tmp_path, digits.labels[0], "twin.png", digits.png(0))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert len(loaded) == 30
    assert (len(loaded.gate) > 0, len(loaded.train) > 0) == (True, True)
    assert sorted(int(digit) for part in (loaded.train, loaded.validation, loaded.gate) for digit in part.y) == sorted(
        digits.labels[:30]
    )


def test_a_conflict_is_named_and_left_out(tmp_path: Path, digits: Digits) -> None:
    """The same image under two digits teaches nothing, and both places are named."""
    put(tmp_path, 3, "a.png", digits.png(0))
    put(tmp_path, 8, "b.png", digits.png(0))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert len(loaded) == 0
    assert loaded.conflicts == ["one image is labelled as 3 and as 8: 3/a.png, 8/b.png"]


def test_what_is_no_image_is_reported_and_left_out(tmp_path: Path, digits: Digits) -> None:
    """A text file among the corrections is named with its reason; the others are loaded."""
    put(tmp_path, 3, "notes.png", b"remember the milk")
    put(tmp_path, digits.labels[0], "good.png", digits.png(0))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert len(loaded) == 1
    assert loaded.refused[0].startswith("3/notes.png: not_an_image")
