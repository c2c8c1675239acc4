"""labelling.py: labels that are written, moved and taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.folders import Folder
from daemon.reading.content import InvalidImage
from daemon.training.corrections import list_corrections
from daemon.training.labelling import Labelling
from tests.conftest import files_below


@pytest.fixture
def originals(tmp_path: Path) -> Iterator[Folder]:
    """Three originals, of which two have as many bytes."""
    for name, content in (("a.png", b"aa"), ("b.png", b"bb"), ("sub/a.png", b"ccc")):
        place = tmp_path / "processed" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    with Folder(tmp_path / "processed") as folder:
        yield folder


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    """A folder with a label that was put there by hand."""
    (tmp_path / "corrections" / "3").mkdir(parents=True)
    (tmp_path / "corrections" / "3" / "by-hand.png").write_bytes(b"aa")
    return tmp_path / "corrections"


def test_taking_back_leaves_what_was_there(originals: Folder, corrections: Path) -> None:
    """A new label is removed; one that had moved is where it was; one that was there already stays."""
    before = files_below(corrections)
    with Labelling(corrections, 10) as labels:
        first = labels.label(originals, "b.png", "7")
        again = labels.label(originals, "b.png", "7")
        moved = labels.label(originals, "a.png", "1")
        assert files_below(corrections) == {"7/b.png", "1/a.png"}
        assert (moved.before, again.is_new) == (("3/by-hand.png",), False)
        labels.take_back(again)
        assert "7/b.png" in files_below(corrections)
        for done in (moved, first):
            labels.take_back(done)
    assert files_below(corrections) == before
    assert (corrections / "3/by-hand.png").read_bytes() == b"aa"


def test_a_label_in_the_place_of_a_folder_is_in_nobodys_way(originals: Folder, corrections: Path) -> None:
    """One image was dropped as sub, another one as sub/a.png."""
    (corrections / "7").mkdir()
    (corrections / "7" / "sub").write_bytes(b"another")
    with Labelling(corrections, 10) as labels:
        assert "7/sub~a.png" == labels.label(originals, "sub/a.png", "7").name
        assert not labels.label(originals, "sub/a.png", "7").is_new


def test_what_somebody_labelled_since_is_not_taken_back(originals: Folder, corrections: Path) -> None:
    """Whoever moved the label since keeps it."""
    with Labelling(corrections, 10) as labels:
        done = labels.label(originals, "b.png", "7")
        labels.label(originals, "b.png", "1")
        with pytest.raises(FileNotFoundError):
            labels.take_back(done)
        (corrections / "7" / "b.png").write_bytes(b"xx")
        with pytest.raises(FileNotFoundError, match="another image"):
            labels.take_back(done)
    assert "1/b.png" in files_below(corrections)


def test_only_the_image_that_was_answered_is_labelled(originals: Folder, corrections: Path) -> None:
    """Not another one that has its name by now, nor one that no training would read."""
    with Labelling(corrections, 2) as labels:
        with pytest.raises(FileNotFoundError, match="another one"):
            labels.label(originals, "a.png", "7", "0" * 64)
        with pytest.raises(InvalidImage, match="too_large"):
            labels.label(originals, "sub/a.png", "7")
    assert files_below(corrections) == {"3/by-hand.png"}


def test_a_label_is_never_hidden(originals: Folder, corrections: Path) -> None:
    """Hidden names are passed over in corrections/, and [inbox] ignore may let them into the inbox."""
    for name in (".a.png", ".b/..c.png"):
        (Path(originals.path) / name).parent.mkdir(exist_ok=True)
        (Path(originals.path) / name).write_bytes(name.encode())
    with Labelling(corrections, 1000) as labels:
        done = {labels.label(originals, name, "3").name for name in (".a.png", ".b/..c.png")}
    with Folder(corrections) as folder:
        assert done <= {name for name, _ in list_corrections(folder)}
