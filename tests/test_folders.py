"""folders.py: what is below a folder is reached without following a link, whatever happens to the names meanwhile."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.folders import FOLDER, Folder, _walk_beneath, open_beneath, rename, rename_to_free_name, try_renames
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """An open folder, with a secret outside of it."""
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    with Folder(tmp_path / "top") as opened:
        yield opened


@pytest.mark.parametrize("walk", [open_beneath, _walk_beneath])
@pytest.mark.parametrize("kind", ["link", "link above", "dots", "file"])
def test_what_leads_out_is_no_folder(tmp_path: Path, kind: str, walk: Callable[[int, str, int], int]) -> None:
    """By the kernel's call and by our own walk: a link, a file and ".." are not entered."""
    top = tmp_path / "top"
    top.mkdir()
    (tmp_path / "outside").mkdir()
    name, expected = "a/b", errno.ENOTDIR
    match kind:
        case "link":
            (top / "a").mkdir()
            (top / "a" / "b").symlink_to(tmp_path / "outside")
        case "link above":
            (tmp_path / "outside" / "b").mkdir()
            (top / "a").symlink_to(tmp_path / "outside")
        case "dots":
            (top / "a").mkdir()
            name, expected = "a/../../outside", errno.EXDEV
        case "file":
            (top / "a").touch()
    descriptor = os.open(top, os.O_PATH)
    for flags in (FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW):
        with pytest.raises(OSError, match=os.strerror(expected)) as caught:
            walk(descriptor, name, flags)
        assert caught.value.errno == expected
    os.close(descriptor)


@pytest.mark.parametrize("walk", [open_beneath, _walk_beneath])
def test_a_real_sub_folder_is_entered(folder: Folder, tmp_path: Path, walk: Callable[[int, str, int], int]) -> None:
    """Both ways give the folder itself."""
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    top = os.open(folder.path, os.O_PATH)
    descriptor = walk(top, "a/b", FOLDER)
    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "top" / "a" / "b").stat())
    os.close(descriptor)
    os.close(top)


def test_nothing_is_done_behind_a_link(folder: Folder, tmp_path: Path) -> None:
    """No file behind a link below the folder is seen, opened, moved, replaced or removed."""
    outside, top = tmp_path / "outside", tmp_path / "top"
    (top / "sub").symlink_to(outside)
    (top / "own").write_bytes(b"own")
    with pytest.raises(NotADirectoryError):
        folder.open("sub/secret", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        folder.unlink("sub/secret")
    with pytest.raises(NotADirectoryError):
        rename(folder, "sub/secret", folder, "taken")
    with pytest.raises(NotADirectoryError):
        rename(folder, "own", folder, "sub/secret")
    with pytest.raises(NotADirectoryError):
        rename(folder, "own", folder, "sub/new/name")
    with pytest.raises(NotADirectoryError):
        list(folder.entries("sub"))
    assert not rename_to_free_name(folder, "own", folder, "sub/new")
    assert not folder.holds("sub/secret")
    assert [b"secret"] == [path.read_bytes() for path in outside.iterdir()]
    assert b"own" == (top / "own").read_bytes()


def test_a_link_itself_is_named_moved_and_removed(folder: Folder, tmp_path: Path) -> None:
    """As the last component a link is a thing like any other, but cannot be opened."""
    (tmp_path / "top" / "a").symlink_to(tmp_path / "outside" / "secret")
    assert folder.holds("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        folder.open("a", os.O_RDONLY)
    rename(folder, "a", folder, "deep/er/b")
    folder.unlink("deep/er/b")
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"


def test_an_open_sub_folder_stays_itself(folder: Folder, tmp_path: Path) -> None:
    """A sub-folder that is swapped for a link while it is in use changes nothing; afterwards the link is no folder."""
    top = tmp_path / "top"
    (top / "sub").mkdir()
    (top / "sub" / "a").write_bytes(b"a")
    folder.status("sub/a")
    (top / "sub").rename(top / "moved")
    (top / "sub").symlink_to(tmp_path / "outside")
    rename(folder, "sub/a", folder, "sub/b")
    assert (top / "moved" / "b").read_bytes() == b"a"
    folder.renew()
    assert not folder.holds("sub/secret")


def test_the_folder_itself_may_be_a_link_and_be_replaced(tmp_path: Path) -> None:
    """Its own path is the administrator's: a link is followed there, and what is made anew is found by `renew`."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    (tmp_path / "top").symlink_to("one")
    with Folder(tmp_path / "top") as folder:
        assert folder.holds("one")
        (tmp_path / "top").unlink()
        (tmp_path / "top").symlink_to("two")
        assert folder.holds("one")
        folder.renew()
        assert folder.holds("two")
        (tmp_path / "top").unlink()
        with pytest.raises(FileNotFoundError):
            folder.renew()
        (tmp_path / "top").symlink_to("one")
        folder.renew()
        assert folder.holds("one")


def test_all_folders_above_what_is_entered_are_closed_to_others(tmp_path: Path) -> None:
    """Whoever could write to one would exchange what is below it; one of somebody else's is not passed through."""
    (tmp_path / "top" / "a" / "b" / "c").mkdir(parents=True)
    for name in ("a", "a/b"):
        (tmp_path / "top" / name).chmod(0o777)
    with Folder(tmp_path / "top", own=True) as folder:
        folder.at("a/b/c/x.png")
        assert [0o755, 0o755] == [(tmp_path / "top" / name).stat().st_mode & 0o777 for name in ("a", "a/b")]
        if os.geteuid() == 0:
            os.chown(tmp_path / "top" / "a", 65534, 65534)
            folder.forget()
            with pytest.raises(NotADirectoryError, match="somebody else"):
                folder.at("a/b/c/x.png")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """However many sub-folders were named, closing lets go of all."""
    before = len(os.listdir("/proc/self/fd"))
    with Folder(tmp_path / "top", make=True) as folder:
        for number in range(100):
            folder.make_parents(f"{number}/a")
            assert not folder.holds(f"{number}/a")
            assert [] == list(folder.entries(str(number)))
        assert len(os.listdir("/proc/self/fd")) < before + 30
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_missing_sub_folder_is_made_once_more(folder: Folder, tmp_path: Path) -> None:
    """Also where it was open, and was removed."""
    for name in ("a", "b"):
        (tmp_path / "top" / name).touch()
    rename(folder, "a", folder, "sub/a")
    folder.unlink("sub/a")
    (tmp_path / "top" / "sub").rmdir()
    rename(folder, "b", folder, "sub/b")
    assert (tmp_path / "top" / "sub" / "b").exists()


def test_renames_that_work_leave_nothing_behind(tmp_path: Path) -> None:
    """Trying is seen by nobody afterwards."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    try_renames(tmp_path / "a", tmp_path / "b")
    assert ([], []) == (os.listdir(tmp_path / "a"), os.listdir(tmp_path / "b"))


def test_whoever_may_write_to_the_other_folder_cannot_spoil_the_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the names that he has put there, nor by taking away at once what comes."""
    for name in ("a", "b", "away"):
        (tmp_path / name).mkdir()
    for number in range(os.getpid() - 50, os.getpid() + 50):
        (tmp_path / "b" / f".digitd-probe-{number}" / "x").mkdir(parents=True)
    real = os.rename

    def take_away(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        for path in (tmp_path / "b").iterdir():
            if not any(path.iterdir()):
                real(path, tmp_path / "away" / path.name)

    monkeypatch.setattr(os, "rename", take_away)
    try_renames(tmp_path / "a", tmp_path / "b")
    assert [] == os.listdir(tmp_path / "a")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_two_mounts_of_one_file_system_are_told(tmp_path: Path) -> None:
    """Their device is the same, and yet nothing can be moved between them."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    trial = "from pathlib import Path; from daemon.folders import try_renames\n"
    trial += "assert Path('a').stat().st_dev == Path('b').stat().st_dev\ntry_renames('a', 'b')"
    mounted = f'mount --bind a a && mount --bind b b && exec "$0" -c "{trial}"'
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted, sys.executable],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert os.strerror(errno.EXDEV) in tried.stderr
