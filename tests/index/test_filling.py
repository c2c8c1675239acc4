"""filling.py: what is found in the folders, and that it is what the daemon had written."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon.answering.publish import prepare, publish_rejection, retire
from daemon.config import Settings
from daemon.drops import Drop, Rejection
from daemon.folders import Folder
from daemon.index import filling
from daemon.index.answers import read_record
from daemon.index.filling import Superseded, fill, start_anew
from daemon.index.looking import digest, past
from daemon.index.queries import Wanted, as_dict, find
from daemon.index.retention import leave
from daemon.index.schema import get_state, open_to_read, open_to_write, put_state
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from tests.conftest import as_ordinary_user
from tests.index.answers import DAY, NOON, answer, put, record, reject
from tests.index.conftest import bare_settings

LONG_AGO = NOON - 1000 * DAY


def rows(settings: Settings) -> list[dict[str, object]]:
    """What is in the index, by time and name."""
    with closing(open_to_read(settings.index)) as connection:
        found = [as_dict(row, settings) for row in find(connection, Wanted())]
    return sorted(found, key=lambda row: (row["answered_at"], row["file"]))


def written_live(settings: Settings, *records: object) -> list[dict[str, object]]:
    """What the daemon itself would have written."""
    index = Index(settings.index, Metrics())
    index.add(list(records))  # type: ignore[arg-type]
    index.close()
    found = rows(settings)
    start_anew(settings.index)
    return found


def make_all(root: Path) -> list[object]:
    """Answers, rejections, taken names, sub-folders."""
    return [
        answer(root, "a.png", b"a", NOON + 0.123457),
        answer(root, "batch7/b.png", b"bb", NOON + 1, outcome="review", reason="low_confidence"),
        answer(root, "a.png", b"other", NOON + 2, json="a~d9298a10.png.json", original="a~d9298a10.png"),
        reject(root, "c.txt", b"text", NOON + 3),
        reject(root, "d.png.json", b"{}", NOON + 4),
    ]


def test_a_lost_index_is_found_in_the_folders(bare: Settings) -> None:
    """Row by row it is what the daemon had written: names, digests, times, sizes and places."""
    expected = written_live(bare, *make_all(bare.root))
    progress: list[tuple[int, int]] = []
    fill(bare.index, bare, lambda done, total: progress.append((done, total)))
    assert expected == rows(bare)
    assert (5, 6) == progress[-1]
    with closing(open_to_read(bare.index)) as connection:
        assert get_state(connection)["since"] is None


def test_what_nests_without_end_is_no_answer(bare: Settings) -> None:
    """Such a JSON, once dropped and rejected, may have lost its own JSON to somebody's clearing up."""
    answer(bare.root, "a.png", b"a", NOON)
    (bare.folder("rejected") / "deep.json").write_bytes(b"[" * 60_000)
    fill(bare.index, bare)
    assert ["a.png"] == [row["file"] for row in rows(bare)]


@pytest.mark.parametrize("length", [246, 251, 255])
def test_what_was_rejected_under_a_long_name_is_found(bare: Settings, length: int) -> None:
    """Its JSON's name, which has but a part of it, leaves no room for another ending; nor is it taken for that JSON."""
    name, sha256 = f"{'a' * (length - 5)}.json", hashlib.sha256(b"{}").hexdigest()
    with Folder(bare.root / "work", make=True) as work, Folder(bare.folder("rejected")) as rejected:
        prepare(bare.folder("rejected"))
        put(bare.root / "work" / name, b"{}")
        rejection = Rejection(Drop(name, NOON), "not_an_image", "Text.", "Drop an image.", sha256)
        kept, _ = publish_rejection(bare.root / "work", bare.folder("rejected"), rejection, NOON)
        retire(work, name, rejected, kept, sha256)
    fill(bare.index, bare)
    assert [name] == [row["file"] for row in rows(bare)]


def test_a_folder_that_is_called_like_an_archived_json_is_none(tmp_path: Path) -> None:
    """The result of `x` has left, and then came `x.json/a.png`."""
    settings = bare_settings(tmp_path, results_days=30, processed_days=30)
    answer(tmp_path, "x", b"x", NOON)
    fill(settings.index, settings)
    leave(settings, NOON + 31 * DAY)
    answer(tmp_path, "x.json/a.png", b"a", NOON + 31 * DAY)
    start_anew(settings.index)
    fill(settings.index, settings)
    assert ["x", "x.json/a.png"] == [row["file"] for row in rows(settings)]


def test_filling_twice_changes_nothing(bare: Settings) -> None:
    """What is in the index already is not doubled."""
    expected = written_live(bare, *make_all(bare.root))
    fill(bare.index, bare)
    with closing(open_to_write(bare.index, 0)) as connection:
        put_state(connection, since=0.0)
    fill(bare.index, bare)
    assert expected == rows(bare)


def test_only_what_is_younger_is_looked_at(bare: Settings) -> None:
    """After a crash, folders and JSONs that did not change since the last answer are passed over."""
    answer(bare.root, "old/a.png", b"a", LONG_AGO)
    answer(bare.root, "b.png", b"b", LONG_AGO + 1)
    for path in ("results/old/a.png.json", "results/old", "results/b.png.json"):
        os.utime(bare.root / path, (LONG_AGO, LONG_AGO))
    answer(bare.root, "new/c.png", b"c", NOON)
    with closing(open_to_write(bare.index, 0)) as connection:
        put_state(connection, since=NOON - 1)
    fill(bare.index, bare)
    assert ["new/c.png"] == [row["file"] for row in rows(bare)]


def test_what_the_daemon_has_answered_since_it_began_is_not_looked_at(bare: Settings) -> None:
    """It was added by itself; what was written while the clock was ahead may have been before that."""
    now = time.time()
    for name, at in (("before.png", now - 100), ("since.png", now - 10), ("wrong clock.png", now + 1000)):
        answer(bare.root, name, at=at)
        os.utime(bare.root / "results" / f"{name}.json", (at, at))
    with closing(open_to_write(bare.index, 0)) as connection:
        put_state(connection, since=0.0, until=now - 50)
    fill(bare.index, bare)
    assert ["before.png", "wrong clock.png"] == [row["file"] for row in rows(bare)]


@pytest.mark.parametrize(
    "there", ["results/a/b.png.json", "rejected/a.txt", "corrections/7/a.png", "archive/2026-11-25.tar"]
)
def test_only_where_nothing_is_nobody_can_have_answered(bare: Settings, there: str) -> None:
    """Anything in results, rejections, corrections or archives says that somebody may have, until now."""
    (bare.root / "results" / ".tmp").mkdir()
    (bare.root / "corrections" / "7").mkdir()
    assert past(bare) is None
    put(bare.root / there, b"something")
    assert time.time() == pytest.approx(past(bare) or 0.0, abs=10)


def test_an_answer_given_meanwhile_stays(bare: Settings) -> None:
    """A filling that has read an answer just before it was given anew does not bring the old one back."""
    answer(bare.root, "a.png", b"a", NOON)
    index = Index(bare.index, Metrics())
    index.add([record("a.png", b"a", NOON + 1)])
    index.run_once(100.0)
    fill(bare.index, bare)
    index.run_once(200.0)
    assert ["2025-11-25T12:00:01.000000Z"] == [row["answered_at"] for row in rows(bare)]
    index.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0",
        b"{",
        b"[]",
        b"{}",
        b'{"file": "a.png", "sha256": 5}',
        b'{"file": "a.png", "sha256": null, "digit": "x"}',
        b'{"file": "a.png", "sha256": null, "reason": "\\ud800", "rejected_at": "2025-11-25T12:00:00Z"}',
        b'{"file": "a.png", "sha256": null, "reason": "blank", "rejected_at": "9999-12-31T23:59:59-23:59"}',
        b'{"file": "a.png", "sha256": null, "reason": "blank", "rejected_at": "0001-01-01T00:00:00Z"}',
    ],
)
def test_what_is_no_json_of_ours_is_passed_over(bare: Settings, content: bytes) -> None:
    """What a power cut or a person left there ends nothing."""
    put(bare.root / "results" / "a.png.json", content)
    put(bare.root / "rejected" / "b.json", content)
    answer(bare.root, "c.png")
    fill(bare.index, bare)
    assert ["c.png"] == [row["file"] for row in rows(bare)]


def test_no_link_is_followed(bare: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link in the folders leads nowhere, to a file or to a folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    answer(elsewhere, "a.png")
    (bare.root / "results" / "sub").symlink_to(elsewhere / "results")
    (bare.root / "results" / "a.png.json").symlink_to(elsewhere / "results" / "a.png.json")
    os.mkfifo(bare.root / "results" / "fifo.json")
    (bare.root / "corrections" / "7").symlink_to(elsewhere / "processed")
    fill(bare.index, bare)
    assert [] == rows(bare)
    with closing(open_to_read(bare.index)) as connection:
        assert [] == connection.execute("SELECT * FROM labels").fetchall()


def test_labels_are_found(bare: Settings) -> None:
    """Each image in corrections/<digit>/ is a label of its bytes; in corrections/none/ it says that there is no digit."""
    for path, content in (
        ("7/a.png", b"a"),
        ("none/sub/b.png", b"b"),
        ("7/.hidden", b"c"),
        ("10/d.png", b"d"),
        ("e.png", b"e"),
    ):
        put(bare.root / "corrections" / path, content)
    fill(bare.index, bare)
    with closing(open_to_read(bare.index)) as connection:
        found = connection.execute("SELECT sha256, digit, file FROM labels ORDER BY file").fetchall()
    assert [(record("", b"a").sha256, 7, "7/a.png"), (record("", b"b").sha256, None, "none/sub/b.png")] == [
        tuple(row) for row in found
    ]


def test_what_people_hide_in_corrections_holds_nothing_up(open_path: Path) -> None:
    """A folder and a file that the daemon has no right to are no labels; the index is whole all the same."""
    settings = bare_settings(open_path)
    for path in ("3/hidden/a.png", "4/b.png", "7/c.png"):
        put(open_path / "corrections" / path, path.encode())
    (open_path / "corrections" / "3" / "hidden").chmod(0)
    (open_path / "corrections" / "4" / "b.png").chmod(0)
    open_path.chmod(0o777)
    with as_ordinary_user():
        fill(settings.index, settings)
    with closing(open_to_read(settings.index)) as connection:
        assert ["7/c.png"] == [file for (file,) in connection.execute("SELECT file FROM labels")]
        assert get_state(connection)["since"] is None


def test_a_filling_of_an_index_that_began_anew_is_void(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes it anew fills it; the one that came before stops and claims nothing."""
    monkeypatch.setattr(filling, "IN_ONE_TRANSACTION", 1)
    make_all(bare.root)
    anew: list[Callable[[], None]] = [lambda: start_anew(bare.index)]

    def interfere(_done: int, _total: int) -> None:
        if anew:
            anew.pop()()

    with pytest.raises(Superseded):
        fill(bare.index, bare, interfere)
    with closing(open_to_read(bare.index)) as connection:
        assert 0.0 == get_state(connection)["since"]


def test_a_filling_that_was_killed_goes_on(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it found is kept, what is missing is found by the next one, and nothing twice."""
    monkeypatch.setattr(filling, "IN_ONE_TRANSACTION", 2)
    expected = written_live(bare, *make_all(bare.root))

    class Killed(BaseException):
        pass

    def kill(_done: int, _total: int) -> None:
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            fill(bare.index, bare, kill)
    fill(bare.index, bare)
    assert expected == rows(bare)


@pytest.mark.parametrize("path", ["../a.json", "/etc/a.json", "sub/../../a.json"])
def test_no_answer_is_outside_of_the_folders(path: str) -> None:
    """Whatever a tar that somebody laid into archive/ calls its members: `digitd restore` writes under these names."""
    text = b'{"file": "a", "sha256": null, "reason": "blank", "rejected_at": "2025-11-25T12:00:00Z"}'
    assert read_record(text, "a.json", True, lambda _: None)
    assert read_record(text, path, True, lambda _: None) is None


def test_a_correction_that_was_exchanged_for_one_without_an_end_is_passed_over(tmp_path: Path) -> None:
    """Between the look at its size and its reading; nor is a pipe waited for."""
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 43)
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    with Folder(tmp_path) as folder:
        assert digest(folder, "a.png", 100) is None
        assert digest(folder, "pipe", 100) is None
    os.close(writer)
