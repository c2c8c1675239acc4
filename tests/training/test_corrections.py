"""Corrections: parted for ever, decoded under limits, compared with the answers that were given."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from daemon.config import InboxSettings, Settings
from daemon.telemetry.metrics import Metrics
from daemon.training.corrections import CorrectionWatch, correct, find_result, load_corrections, part_of
from tests.conftest import Digits


def put(folder: Path, digit: int, name: str, content: bytes) -> Path:
    """Label content as a digit."""
    path = folder / str(digit) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def answer(results: Path, name: str, content: bytes, digit: int) -> None:
    """Write the result that the daemon would have written."""
    path = results / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "digit": digit, "model": {"version": "v0001"}}
    path.write_text(json.dumps(held))


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


def test_a_correction_is_compared_with_the_answer_that_its_bytes_were_given(tmp_path: Path, digits: Digits) -> None:
    """Right, wrong and unknown answers are counted once each, across restarts; the live accuracy is their share."""
    folder, results, journal = tmp_path / "corrections", tmp_path / "results", tmp_path / "journal.jsonl"
    for number, (digit, answered) in enumerate([(7, 7), (2, 3), (1, None)]):
        put(folder, digit, f"{number}.png", digits.png(number))
        if answered is not None:
            answer(results, f"batch/{number}.png", digits.png(number), answered)
    metrics = Metrics()
    watch = CorrectionWatch(folder, results, journal, metrics)
    assert watch.run_once() == 0, "a file that was not seen twice may still be being written"
    assert watch.run_once() == 3
    assert watch.run_once() == 0
    counted = {
        agrees: metrics.registry.get_sample_value("digitd_corrections_total", {"agrees": agrees})
        for agrees in ("yes", "no", "unknown")
    }
    assert counted == {"yes": 1, "no": 1, "unknown": 1}
    assert metrics.registry.get_sample_value("digitd_live_accuracy_ratio") == 0.5
    assert metrics.registry.get_sample_value("digitd_live_accuracy_images") == 2
    again = CorrectionWatch(folder, results, journal, Metrics())
    assert [again.run_once(), again.run_once()] == [0, 0]
    assert again.new_since(0.0) == 3


def test_an_answer_to_other_bytes_of_the_same_name_is_not_the_answer(tmp_path: Path, digits: Digits) -> None:
    """The prediction is found by content: the same name with other bytes is somebody else's."""
    answer(tmp_path, "a.png", digits.png(0), 7)
    assert find_result(tmp_path, "a.png", hashlib.sha256(digits.png(1)).hexdigest()) is None
    found = find_result(tmp_path, "a.png", hashlib.sha256(digits.png(0)).hexdigest())
    assert found is not None
    assert found["digit"] == 7


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
