"""The suite itself: versions of the daemon with an error seeded into them, each of which it must catch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import test_claims, test_kills, test_power
from tests.faults.harness import REPOSITORY, Nursery, Violation, mounted, needs_root
from tests.faults.test_power import machine

__all__ = ["machine"]
pytestmark = [needs_root, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Wrong:
    """A seeded error.

    Attributes:
        title: what is wrong.
        file: of daemon/.
        replacements: pairs of the right text and the wrong one.
        by: the test that must catch it.
        says: what it says then, so that a mere time-out is no catch.

    """

    title: str
    file: str
    replacements: tuple[tuple[str, str], ...]
    by: Callable[[Nursery, test_power.Machine, Path], None]
    says: str


def by_kills(nursery: Nursery, _machine: test_power.Machine, tmp_path: Path) -> None:
    """Catch it by killing the daemon at the write of a result."""
    with mounted("ext4", megabytes=256) as place:
        test_kills.test_killed_as_it_writes_a_result_it_leaves_no_half_one(nursery, place, tmp_path)


def by_dropping_again(nursery: Nursery, _machine: test_power.Machine, tmp_path: Path) -> None:
    """Catch it by dropping another file under the name that is being claimed."""
    test_claims.test_a_name_dropped_again_as_it_is_claimed_is_a_second_drop(nursery, tmp_path)


AFTER_A_CUT = "should be in 1 place|has no JSON|is not whole|disagree on"
SYNC = "            self._sync()\n"
RETIRE = """            work, processed = Folder(self._folders.work), Folder(self._folders.processed, make=True)
            for answered in group:
                retire(work, answered.name, processed, answered.kept, answered.sha256)
"""
COPY = """    shutil.copyfile(f"{inbox.path}/{name}", f"{work.path}/{name}")
    inbox.unlink(name)
"""
WRONG = [
    Wrong(
        "the original is moved before its result is durable",
        "answering/retirement.py",
        ((SYNC, RETIRE + SYNC),),
        test_power.test_a_power_cut_during_the_sync_loses_nothing,
        AFTER_A_CUT,
    ),
    Wrong(
        "nothing is synced",
        "files.py",
        (("_libc.syncfs(descriptor) != 0", "descriptor < 0"),),
        test_power.test_a_power_cut_right_after_retiring_loses_nothing,
        AFTER_A_CUT,
    ),
    Wrong(
        "results are written in place",
        "answering/publish.py",
        (
            (
                '    temporary = f"{TEMPORARY}/{writer_name()}.json"\n',
                "    temporary = otherwise()\n    folder.make_parents(temporary)\n",
            ),
            (
                (
                    "        if rename_to_free_name(folder, temporary, folder, usual):\n"
                    "            return usual\n"
                    "        folder.make_parents(name := otherwise())\n"
                    "        if rename_to_free_name(folder, temporary, folder, name):\n"
                    "            return name\n"
                    "        name = otherwise()  # it holds its JSON already, or another host was faster: the next\n"
                    "        rename(folder, temporary, folder, name)\n"
                ),
                "        name = temporary\n",
            ),
        ),
        by_kills,
        "is not whole",
    ),
    Wrong(
        "files are claimed by copying",
        "intake/claiming.py",
        (
            ("    rename(inbox, name, work, name)\n", COPY),
            ("import os\n", "import os\nimport shutil\n"),
        ),
        by_dropping_again,
        "should be in 1 place|kept are",
    ),
]


def seed(wrong: Wrong, code: Path) -> None:
    """Make a copy of the daemon with an error in it."""
    shutil.copytree(REPOSITORY / "daemon", code / "daemon", ignore=shutil.ignore_patterns("__pycache__"))
    (code / "models").symlink_to(REPOSITORY / "models")  # what is shipped need not be vetted
    file = code / "daemon" / wrong.file
    text = file.read_text()
    for right, error in wrong.replacements:
        assert right in text, f"{wrong.file} has changed; seed this error anew: {right!r}"
        text = text.replace(right, error)
    file.write_text(text)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.title)
def test_a_wrong_version_is_caught(nursery: Nursery, machine: test_power.Machine, tmp_path: Path, wrong: Wrong) -> None:
    """A version of the daemon with this error does not pass the suite."""
    seed(wrong, tmp_path / "code")
    with pytest.raises(Violation, match=wrong.says) as caught:
        wrong.by(nursery.with_code(tmp_path / "code"), machine, tmp_path)
    print(f"\n{wrong.title}: caught: {caught.value}")
