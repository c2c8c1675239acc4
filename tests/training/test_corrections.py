"""corrections.py: parted for ever, decoded under limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from daemon.config import InboxSettings
from daemon.folders import Folder
from daemon.training.corrections import are_alike, choose, list_usable, load_corrections, make_folders, part_of
from daemon.training.dataset import NO_DIGIT
from tests.conftest import Digits, as_ordinary_user, encode


def put(folder: Path, digit: int | str, name: str, content: bytes) -> Path:
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
    assert loaded.left_out == ["one image is labelled as 3 and as 8: 3/a.png, 8/b.png"]


def test_what_is_no_digit_has_a_place_of_its_own(tmp_path: Path, digits: Digits) -> None:
    """Parted as the digits are; what is held back is kept apart from them, and what is no usable image is named."""
    for number in range(60):
        put(tmp_path, "none", f"batch/{number}.png", digits.png(number))
    put(tmp_path, 3, "a.png", digits.png(0))
    put(tmp_path, "none", "blank.png", encode(np.full((28, 28), 255, np.uint8)))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert {NO_DIGIT} == set(np.concatenate([loaded.train.y, loaded.validation.y, loaded.gate_none.y]).tolist())
    assert (len(loaded), len(loaded.gate), 3 < len(loaded.gate_none) < 25) == (59, 0, True)
    assert [reason.split(":")[0] for reason in sorted(loaded.left_out)] == [
        "none/blank.png",
        "one image is labelled as 3 and as none",
    ]


def test_the_folders_of_all_labels_are_made(tmp_path: Path) -> None:
    """Whoever may write to corrections/ may write to them."""
    (tmp_path / "corrections").mkdir()
    (tmp_path / "corrections").chmod(0o775)
    for _ in range(2):
        with Folder(tmp_path / "corrections") as folder:
            make_folders(folder)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "corrections").iterdir()}
    assert modes == dict.fromkeys([*map(str, range(10)), "none"], 0o775)


def test_what_is_no_image_is_reported_and_left_out(tmp_path: Path, digits: Digits) -> None:
    """A text file among the corrections is named with its reason; the others are loaded."""
    put(tmp_path, 3, "notes.png", b"remember the milk")
    put(tmp_path, digits.labels[0], "good.png", digits.png(0))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert len(loaded) == 1
    assert loaded.left_out[0].startswith("3/notes.png: not_an_image")


def test_one_picture_is_in_one_part_in_whatever_format_it_came(tmp_path: Path, digits: Digits) -> None:
    """As PNG and as BMP it is one correction; as a JPEG, which differs a little, it is not learnt if it is held back."""
    for number in range(60):
        put(tmp_path, digits.labels[number], f"{number}.png", digits.png(number))
        put(tmp_path, digits.labels[number], f"{number}.bmp", encode(digits.images[number], "BMP"))
    once = load_corrections(tmp_path, InboxSettings())
    assert (len(once), once.left_out) == (60, [])
    for number in range(60):
        put(tmp_path, digits.labels[number], f"{number}.jpg", encode(digits.images[number], "JPEG", quality=80))
    loaded = load_corrections(tmp_path, InboxSettings())
    learnt = np.concatenate([loaded.train.x, loaded.validation.x])
    assert not are_alike(learnt, loaded.gate.x).any()
    assert len(loaded.train) > len(once.train)
    assert {reason.split(": ")[1] for reason in loaded.left_out} == {"it looks like an image that is held back"}


def test_an_image_of_a_hold_out_is_not_learnt(tmp_path: Path, digits: Digits) -> None:
    """Labelled as it may be, and in whatever format it came; others are, and it may be held back."""
    for number in range(40):
        put(tmp_path, digits.labels[number], f"{number}.jpg", encode(digits.images[number], "JPEG", quality=80))
    loaded = load_corrections(tmp_path, InboxSettings(), [digits.images[:20], digits.images[9000:]])
    learnt = np.concatenate([loaded.train.x, loaded.validation.x])
    assert not are_alike(learnt, digits.images[:20]).any()
    assert are_alike(learnt, digits.images[20:40]).all()
    assert 10 < len(learnt) == 40 - len(loaded.gate) - len(loaded.left_out)


def test_digits_of_two_people_are_not_alike(digits: Digits) -> None:
    """Only an image itself is like it, among a thousand."""
    images = digits.images[:1000]
    assert are_alike(images, images).all()
    for number in range(0, 1000, 50):
        assert not are_alike(images[number : number + 1], np.delete(images, number, axis=0)).any()
    assert not are_alike(images[:3], images[:0]).any()


def test_two_formats_under_two_digits_are_a_conflict(tmp_path: Path, digits: Digits) -> None:
    """The same picture is the same image, and teaches nothing while it has two labels."""
    put(tmp_path, 3, "a.png", digits.png(0))
    put(tmp_path, 8, "a.bmp", encode(digits.images[0], "BMP"))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert (len(loaded), loaded.left_out) == (0, ["one image is labelled as 3 and as 8: 3/a.png, 8/a.bmp"])


def test_links_are_not_followed(tmp_path: Path, digits: Digits) -> None:
    """Neither a link to a file, nor one to a folder, nor one in the place of a digit's folder is learnt; each is named."""
    elsewhere = put(tmp_path / "elsewhere", 7, "a.png", digits.png(1)).parent
    corrections = tmp_path / "corrections"
    put(corrections, digits.labels[0], "good.png", digits.png(0))
    (corrections / "1").symlink_to(elsewhere)
    (corrections / "2").mkdir()
    (corrections / "2" / "file.png").symlink_to(elsewhere / "a.png")
    (corrections / "2" / "folder").symlink_to(elsewhere)
    loaded = load_corrections(corrections, InboxSettings())
    assert len(loaded) == 1
    assert [reason.split(":")[0] for reason in sorted(loaded.left_out)] == ["1", "2/file.png", "2/folder"]


def test_a_file_without_an_end_does_not_keep_the_rest_from_being_learnt(tmp_path: Path, digits: Digits) -> None:
    """It takes no disk, and nobody could wait until it is read; it is named and left out."""
    with put(tmp_path, 3, "endless.png", b"").open("wb") as file:
        file.truncate(1 << 43)
    put(tmp_path, digits.labels[0], "good.png", digits.png(0))
    loaded = load_corrections(tmp_path, InboxSettings())
    assert len(loaded) == 1
    assert loaded.left_out == ["3/endless.png: too_large: Expected at most 67108864 bytes. Received: 8796093022208."]


def test_a_folder_that_cannot_be_looked_into_does_not_keep_the_rest_from_being_learnt(
    open_path: Path, digits: Digits
) -> None:
    """It is named; what is beside it is used."""
    put(open_path, 4, "a.png", digits.png(2)).parent.chmod(0)
    put(open_path, digits.labels[0], "good.png", digits.png(0))
    told: list[str] = []
    with as_ordinary_user():
        assert [f"{digits.labels[0]}/good.png"] == list_usable(open_path, told.append)
    assert ["4: expected a folder that can be looked into. Received: Permission denied"] == told


def test_a_folder_that_may_only_be_listed_does_not_keep_the_rest_from_being_learnt(open_path: Path, digits: Digits) -> None:
    """Its names can be read, and nothing about them."""
    put(open_path, 4, "batch/a.png", digits.png(2)).parent.chmod(0o444)
    put(open_path, digits.labels[0], "good.png", digits.png(0))
    told: list[str] = []
    with as_ordinary_user():
        assert [f"{digits.labels[0]}/good.png"] == list_usable(open_path, told.append)
    assert ["4/batch/a.png: Permission denied"] == told


def test_of_too_many_the_newest_are_used_and_of_rare_labels_all() -> None:
    """Each label has an equal share, and what one does not use goes to the others."""
    changed = {f"1/{number}.png": float(number) for number in range(100)}
    changed |= {f"7/{number}.png": float(number) for number in range(50)}
    changed |= {f"none/{number}.png": float(number) for number in range(4)}
    chosen = choose(changed, 24)
    assert {f"1/{number}.png" for number in range(90, 100)} == {name for name in chosen if name.startswith("1/")}
    assert {f"7/{number}.png" for number in range(40, 50)} == {name for name in chosen if name.startswith("7/")}
    assert 24 == len(chosen)
    assert set(changed) == choose(changed, 154)


def test_more_corrections_than_a_training_may_use_are_said_to_be_left_out(tmp_path: Path, digits: Digits) -> None:
    """With how many there are, and the key that says so."""
    for number in range(12):
        put(tmp_path, digits.labels[number], f"{number}.png", digits.png(number))
    loaded = load_corrections(tmp_path, InboxSettings(), most=5)
    assert 5 == len(loaded) + len(loaded.left_out) - 1
    assert loaded.left_out[0].startswith("7 of 12 corrections: more than [retrain] most_corrections, 5;")
