"""restore.py: `digitd restore`."""

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.index.archive import Day, extend
from daemon.index.filling import fill
from daemon.index.retention import leave
from daemon.index.schema import ORIGINAL, open_to_write
from tests.conftest import Digits, Run, files_below
from tests.index.answers import DAY, NOON, answer
from tests.index.conftest import bare_settings, has_gone_steadily

NOBODY = 65534


def test_what_was_archived_comes_back(ask: Run, answered: Settings, tmp_path: Path) -> None:
    """The original and its JSON, byte for byte, in a folder of the caller's; nothing that is there is replaced."""
    content = (answered.root / "results" / "batch7" / "b.png.json").read_bytes()
    leave(bare_settings(answered.root, processed_days=1, results_days=1), NOON + 10 * DAY)
    assert set() == files_below(answered.root / "processed")
    code, out, err = ask("restore", "batch7/b.png", "--to", tmp_path / "back")
    assert (0, "") == (code, err)
    assert [str(tmp_path / "back" / name) for name in ("batch7/b.png", "batch7/b.png.json")] == out.splitlines()
    assert (b"b", content) == tuple(Path(line).read_bytes() for line in out.splitlines())
    code, _, err = ask("restore", "batch7/b.png", "--to", tmp_path / "back")
    assert (1, True) == (code, "one that is taken" in err)


def test_a_pattern_fetches_many(ask: Run, tmp_path: Path) -> None:
    """From the folders as well."""
    assert 0 == ask("restore", "*.png", "--to", tmp_path / "back")[0]
    expected = {"a.png", "a.png.json", "batch7/b.png", "batch7/b.png.json", "=c.png", "=c.png.json"}
    assert expected == files_below(tmp_path / "back")


def test_what_was_deleted_is_told(ask: Run, answered: Settings, tmp_path: Path) -> None:
    """What is left is fetched; what is nowhere is said, and so is a name that never was."""
    has_gone_steadily(answered, NOON + 10 * DAY)
    leave(bare_settings(answered.root, processed_days=1, archive=""), NOON + 10 * DAY)
    code, _, err = ask("restore", "a.png", "--to", tmp_path / "back")
    assert (1, "a.png: it was deleted\n") == (code, err)
    assert {"a.png.json"} == files_below(tmp_path / "back")
    assert "Received: 'b.png'" in ask("restore", "b.png")[2]


def test_nothing_is_restored_elsewhere(ask: Run, answered: Settings, tmp_path: Path) -> None:
    """Who writes the index and the archives may want whoever restores, root perhaps, to write where he may not."""
    tar = answered.root / "archive" / "2025-11-25.tar"
    (tmp_path / "content").write_bytes(b"a")
    with Day(tar) as day:
        extend(tar, day, [("processed/../escaped", (tmp_path / "content").open("rb"))])
    with closing(open_to_write(answered.index, 1.0)) as index:
        index.execute(
            "UPDATE answers SET archive = ?, gone = ?, original = '../escaped' WHERE name = 'a.png'", (tar.name, ORIGINAL)
        )
    code, _, err = ask("restore", "a.png", "--to", tmp_path / "back")
    assert (1, True) == (code, err.startswith("../escaped: "))
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("command", ["find", "restore", "correct"])
def test_a_name_that_is_not_utf8_is_one_like_any_other(ask: Run, answered: Settings, digits: Digits, command: str) -> None:
    """What people type is found, in whole or as a pattern, and what is said of it can be shown."""
    name = os.fsdecode(b"a\xff.png")
    answer(answered.root, name, digits.png(0), NOON + 3)
    with closing(open_to_write(answered.index, 1.0)) as index:
        index.execute("UPDATE state SET value = 0 WHERE key = 'since'")
    fill(answered.index, answered)
    arguments = {"find": [name], "restore": [f"{name[:2]}*", "--to", answered.root / "back"], "correct": [name, "7"]}[
        command
    ]
    code, out, err = ask(command, *arguments)
    assert (0, "") == (code, err)
    assert "a\\xff.png" in out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read what its owner may not")
def test_nothing_of_roots_is_restored(ask: Run, answered: Settings, tmp_path: Path) -> None:
    """Whose folders they are may put a link in the place of one: it is opened as that user."""
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "secret" / "a.png").write_bytes(b"a secret")
    shutil.rmtree(answered.root / "processed")
    (answered.root / "processed").symlink_to(tmp_path / "secret")
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(0o755)
    for path in (answered.root, *answered.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    code, _, err = ask("restore", "a.png", "--to", tmp_path / "back")
    assert (1, True) == (code, "Permission denied" in err)
    assert {"a.png.json"} == files_below(tmp_path / "back")
    assert (0, 0) == (os.geteuid(), (tmp_path / "back" / "a.png.json").stat().st_uid)
