"""claiming.py: how folders are looked through, whatever those who drop have made of them."""

import errno
import os
from itertools import islice
from pathlib import Path

import pytest

from daemon.folders import MOST_LEVELS, Folder
from daemon.intake.claiming import EVERYWHERE, claim, left_claims, paths_below, take_over
from tests.conftest import files_below, peak_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")


def test_folders_are_listed_one_after_the_other(tmp_path: Path) -> None:
    """Of however many somebody makes in one, memory holds no more at once than are looked into."""
    for number in range(5000):
        (tmp_path / f"{number:0200}").mkdir()
    with Folder(tmp_path) as folder:
        assert 200_000 > peak_of(lambda: list(islice(paths_below(folder, EVERYWHERE), 10)))


def test_folders_in_each_other_keep_only_so_many_descriptors_open(tmp_path: Path) -> None:
    """What is nested deeper than anybody needs waits, and that is said."""
    (tmp_path / "/".join("a" * (MOST_LEVELS + 5))).mkdir(parents=True)
    said: list[tuple[str, int | None]] = []
    with Folder(tmp_path) as folder:
        found = list(paths_below(folder, EVERYWHERE, closed=lambda name, error: said.append((name, error.errno))))
    assert MOST_LEVELS + 1 == len(found)
    assert [(found[-1], errno.EMLINK)] == said


@pytest.mark.parametrize("folder", [f"{'a/' * (MOST_LEVELS + 1)}", f"{'a' * 250}/" * 4 + f"{'a' * 25}/"])
def test_what_is_not_listed_is_not_claimed_by_its_name_either(tmp_path: Path, folder: str) -> None:
    """An event may tell it; after a crash nobody would find it in work/, and it would stay there for good."""
    (tmp_path / "inbox" / folder).mkdir(parents=True)
    (tmp_path / "inbox" / folder / "a.png").touch()
    (tmp_path / "work").mkdir()
    with Folder(tmp_path / "inbox") as inbox, Folder(tmp_path / "work", own=True) as work:
        with pytest.raises(FileNotFoundError):
            claim(inbox, work, f"{folder}a.png")
        assert [] == list(left_claims(work))
    assert set() == files_below(tmp_path / "work")


@pytest.mark.parametrize("folder", [f"{'a/' * MOST_LEVELS}", f"{'a' * 250}/" * 4 + f"{'a' * 19}/"])
def test_what_a_killed_stream_claimed_is_found_however_deep(tmp_path: Path, folder: str) -> None:
    """Its task's folder is no part of the path: what may be claimed may be taken over."""
    (tmp_path / "inbox" / folder).mkdir(parents=True)
    (tmp_path / "inbox" / folder / "a.png").touch()
    with Folder(tmp_path / "inbox") as inbox, Folder(tmp_path / "work", make=True, own=True) as work:
        with Folder(tmp_path / "work/.stream/b1-0", make=True, own=True) as task:
            claim(inbox, task, f"{folder}a.png")
        take_over(work, inbox)
    assert {f"{folder}a.png"} == files_below(tmp_path / "work")


@needs_root
def test_a_folder_that_a_killed_stream_had_claimed_is_given_back(tmp_path: Path) -> None:
    """Somebody had exchanged it for a file; what he had in it is found in the inbox."""
    theirs = stranger(tmp_path / "work/.stream/b1-0/sub/of")
    (tmp_path / "inbox").mkdir()
    with Folder(tmp_path / "work", own=True) as work, Folder(tmp_path / "inbox") as inbox:
        take_over(work, inbox)
    assert not theirs.exists()
    assert {"sub/of/bobs.png"} == files_below(tmp_path / "inbox")


@needs_root
def test_nothing_is_taken_over_from_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    """A stream's tasks have folders of the daemon's own; whoever owns another one may put anything into its place."""
    theirs = stranger(tmp_path / "work/.stream/b1-0")
    (tmp_path / "inbox").mkdir()
    with Folder(tmp_path / "work", own=True) as work, Folder(tmp_path / "inbox") as inbox:
        take_over(work, inbox)
    assert {"bobs.png"} == files_below(theirs)


def stranger(folder: Path) -> Path:
    """A folder of another user's with a file in it."""
    folder.mkdir(parents=True)
    (folder / "bobs.png").touch()
    os.chown(folder, 4321, 4321)
    return folder
