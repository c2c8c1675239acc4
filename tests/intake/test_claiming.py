"""claiming.py: how folders are looked through, whatever those who drop have made of them."""

import errno
from itertools import islice
from pathlib import Path

from daemon.folders import MOST_LEVELS, Folder
from daemon.intake.claiming import EVERYWHERE, paths_below
from tests.conftest import peak_of


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
