"""publish.py: what is written of an image, under which name, and where its original goes."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.answering.publish import (
    prediction_json,
    prepare,
    publish_predictions,
    publish_rejection,
    rejection_json,
    to_line,
)
from daemon.answering.publish import (
    retire as retire_file,
)
from daemon.clock import timestamp
from daemon.drops import Drop, ImageFacts, Predictions, Rejection
from daemon.files import writer_name
from daemon.folders import Folder
from tests.conftest import LONG_AGO, REPOSITORY, files_below, leased
from tests.faults.harness import why_no_root

SEVEN = [0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.991, 0.001, 0.001]


def sha(content: bytes) -> str:
    """The digest that names this content."""
    return hashlib.sha256(content).hexdigest()


def batch(name: str, content: bytes, row: list[float] = SEVEN, reason: str | None = None) -> Predictions:
    """The prediction of one image."""
    facts = ImageFacts(sha(content), "PNG", 600, 800)
    rows = np.array([row], np.float32)
    return Predictions([Drop(name, 1000.0)], [facts], rows, [reason], "v0003", "m" * 64, 1000.25, 1000.5)


def rejection(name: str, content: bytes | None) -> Rejection:
    """The rejection of one file."""
    return Rejection(Drop(name, 1.0), "not_an_image", "Text.", "Drop an image.", content and sha(content))


def put(folder: Path, name: str, content: bytes) -> None:
    """Write a file, with the folders above it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def retire(name: str, sha256: str | None, work: Path, folder: Path, kept: str = "") -> None:
    """Retire one file, to its own name where no other is given."""
    with Folder(work) as source, Folder(folder) as target:
        retire_file(source, name, target, kept or name, sha256)


def contents(folder: Path) -> dict[str, bytes]:
    """Every visible file below a folder."""
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results/."""
    folder = tmp_path / "results"
    prepare(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An empty work/ and processed/."""
    for name in ("work", "processed"):
        (tmp_path / name).mkdir()
    return tmp_path / "work", tmp_path / "processed"


def test_a_result_has_the_keys_of_the_contract() -> None:
    """A result is exactly what the contract shows, in its order."""
    (result,) = prediction_json(batch("batch7/a.png", b"x", reason="low_confidence"))
    expected: dict[str, Any] = {
        "schema": 1,
        "file": "batch7/a.png",
        "sha256": sha(b"x"),
        "digit": 7,
        "confidence": 0.991,
        "probabilities": SEVEN,
        "decision": "review",
        "review_reason": "low_confidence",
        "model": {"version": "v0003", "sha256": "m" * 64},
        "image": {"format": "PNG", "width": 600, "height": 800},
        "received_at": "1970-01-01T00:16:40.000000Z",
        "predicted_at": "1970-01-01T00:16:40.500000Z",
        "seconds": {"waiting": 0.25, "total": 0.5},
    }
    assert expected == result
    assert list(expected) == list(result)


def test_an_accepted_result_has_no_reason() -> None:
    """Without a review reason the decision is "accepted"."""
    (result,) = prediction_json(batch("a.png", b"x"))
    assert ("accepted", None) == (result["decision"], result["review_reason"])


def test_rounding_does_not_change_the_digit() -> None:
    """Two probabilities that print alike: the digit is the one that is really more probable."""
    (result,) = prediction_json(batch("a.png", b"x", [0, 0, 0, 0.4999998, 0, 0, 0, 0, 0.5000002, 0]))
    assert result["digit"] == 8


def test_a_clock_that_jumps_back_gives_no_negative_time() -> None:
    """A file that seems to come from the future has waited for 0 seconds."""
    future = batch("a.png", b"x")
    future.drops[0] = Drop("a.png", 5000.0)
    (result,) = prediction_json(future)
    assert {"waiting": 0.0, "total": 0.0} == result["seconds"]


def test_a_rejection_has_the_keys_of_the_contract() -> None:
    """A rejection is exactly what the contract shows."""
    expected = {
        "schema": 1,
        "file": "a.png",
        "sha256": None,
        "reason": "not_an_image",
        "detail": "Text.",
        "hint": "Drop an image.",
        "rejected_at": "1970-01-01T00:00:02.500000Z",
    }
    assert expected == rejection_json(rejection("a.png", None), 2.5)


def test_json_is_one_line_of_utf8() -> None:
    """A name that is not UTF-8 is escaped; the line ends in a line feed."""
    (result,) = prediction_json(batch(os.fsdecode(b"\xff\n.png"), b"x"))
    line = to_line(result)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["file"] == r"\xff\n.png"


def test_timestamps_are_utc_with_microseconds() -> None:
    """Seconds since the epoch become RFC 3339."""
    assert timestamp(1_795_420_800.123456) == "2026-11-23T08:00:00.123456Z"


def test_a_result_appears_in_its_sub_folder(results: Path) -> None:
    """batch7/a.png gets results/batch7/a.png.json, and nothing temporary is left."""
    publish_predictions(results, batch("batch7/a.png", b"x"))
    assert {"batch7/a.png.json"} == files_below(results)
    assert [] == os.listdir(results / ".tmp")


def test_the_same_drop_again_is_refreshed_in_place(results: Path) -> None:
    """Same name and same bytes: one result."""
    publish_predictions(results, batch("a.png", b"x", reason="low_confidence"))
    publish_predictions(results, batch("a.png", b"x"))
    assert {"a.png.json"} == files_below(results)
    assert json.loads((results / "a.png.json").read_bytes())["decision"] == "accepted"


def test_other_bytes_of_the_same_name_get_a_name_of_their_own(results: Path) -> None:
    """Same name, other bytes: a~<first 8 of sha256>.png.json, and the first result stays."""
    for content in (b"x", b"y", b"z", b"y"):
        publish_predictions(results, batch("a.png", content))
    assert {"a.png.json", f"a~{sha(b'y')[:8]}.png.json", f"a~{sha(b'z')[:8]}.png.json"} == files_below(results)
    assert json.loads((results / "a.png.json").read_bytes())["sha256"] == sha(b"x")


@pytest.mark.parametrize("foreign", [b"notes", b"[]", b'{"file": "a.png"}', b"3"])
def test_a_foreign_file_is_not_overwritten(results: Path, foreign: bytes) -> None:
    """What is no result of ours keeps its name."""
    (results / "a.png.json").write_bytes(foreign)
    publish_predictions(results, batch("a.png", b"x"))
    assert (results / "a.png.json").read_bytes() == foreign
    assert {"a.png.json", f"a~{sha(b'x')[:8]}.png.json"} == files_below(results)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
def test_a_result_without_content_is_replaced(results: Path, content: bytes) -> None:
    """What a power cut left empty or zeroed is nobody's."""
    (results / "a.png.json").write_bytes(content)
    publish_predictions(results, batch("a.png", b"x"))
    assert {"a.png.json"} == files_below(results)
    assert json.loads((results / "a.png.json").read_bytes())["digit"] == 7


def test_a_link_in_the_results_is_not_followed(results: Path, tmp_path: Path) -> None:
    """A symlink under the result's name is left alone, with what it points to."""
    (tmp_path / "precious").write_bytes(b"precious")
    (results / "a.png.json").symlink_to(tmp_path / "precious")
    publish_predictions(results, batch("a.png", b"x"))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert {"a.png.json", f"a~{sha(b'x')[:8]}.png.json"} == files_below(results)


def test_a_folder_under_the_name_of_a_result_is_no_obstacle(results: Path) -> None:
    """Where a sub-folder has the result's name, the result has the other one."""
    publish_predictions(results, batch("a.png.json/b.png", b"x"))
    publish_predictions(results, batch("a.png", b"x"))
    assert {"a.png.json/b.png.json", f"a~{sha(b'x')[:8]}.png.json"} == files_below(results)


@pytest.mark.parametrize("length", [250, 251, 255])
def test_the_longest_names_fit(results: Path, length: int) -> None:
    """Names up to 255 bytes get a result of at most 255 bytes, each its own, the same again when done again."""
    names = ["ö" * ((length - 5) // 2) + "1" * ((length - 5) % 2) + last + ".png" for last in "ab"]
    assert {length} == {len(name.encode()) for name in names}
    for name in names * 2:
        publish_predictions(results, batch(name, b"x"))
    assert len(files_below(results)) == 2
    assert {json.loads(text)["file"] for text in contents(results).values()} == set(names)


def test_names_that_are_not_utf8_keep_their_bytes(results: Path) -> None:
    """The result's name has the same bytes as the drop's."""
    publish_predictions(results, batch(os.fsdecode(b"a\xff.png"), b"x"))
    assert b"a\xff.png.json" in os.listdir(os.fsencode(results))


def reject(work: Path, rejected: Path, name: str, content: bytes | None) -> str | None:
    """Publish the rejection of a file in work/, and retire it; the name that it was to have."""
    rejected_as = rejection(name, content)
    kept, _ = publish_rejection(work, rejected, rejected_as, 1.0)
    with Folder(work) as source, Folder(rejected) as target:
        retire_file(source, name, target, kept, rejected_as.sha256)
    return kept


def test_a_file_that_its_owner_holds_is_no_fault_of_the_machine(results: Path, folders: tuple[Path, Path]) -> None:
    """A lease on what was kept of an earlier drop stops nothing: the next one of that name has another."""
    work, processed = folders
    for folder in (work, results, processed):
        put(folder, "a.png", b"x" if folder == work else b"old")
    with leased(results / "a.png"), leased(processed / "a.png"):
        assert publish_rejection(work, results, rejection("a.png", b"x"), 1.0)[0] == f"a~{sha(b'x')[:8]}.png"
        retire("a.png", sha(b"x"), work, processed)
    assert {"a.png": b"old", f"a~{sha(b'x')[:8]}.png": b"x"} == contents(processed)


def test_no_original_is_compared_with_one_that_has_no_end(results: Path, folders: tuple[Path, Path]) -> None:
    """It was rejected as too large, takes no disk, and nobody could wait until it is read; nor where both are so."""
    work, _ = folders
    for path in (results / "a.png", work / "b.png"):
        with path.open("wb") as file:
            file.truncate(1 << 43)
    put(work, "a.png", b"x")
    assert reject(work, results, "a.png", b"x") == f"a~{sha(b'x')[:8]}.png"
    (work / "b.png").rename(work / "a.png")
    assert reject(work, results, "a.png", b"y") == f"a~{sha(b'y')[:8]}.png"


def test_no_rejected_original_is_parted_from_its_json(results: Path, folders: tuple[Path, Path]) -> None:
    """Though its name be that of the JSON of another one, which is published before it is retired."""
    work, _ = folders
    put(work, "a.json", b"{}")
    put(work, "a", b"x")
    kept, json_of_first = publish_rejection(work, results, rejection("a.json", b"{}"), 1.0)
    assert ("a.json", "a.json.json") == (kept, json_of_first)
    assert "a.json" != publish_rejection(work, results, rejection("a", b"x"), 1.0)[1]
    retire("a.json", sha(b"{}"), work, results)
    assert b"{}" == contents(results)["a.json"]


def test_publishing_into_a_missing_folder_raises(tmp_path: Path) -> None:
    """The machine's faults are raised, never swallowed."""
    with pytest.raises(FileNotFoundError):
        publish_predictions(tmp_path / "none", batch("a.png", b"x"))


def test_what_a_crash_left_half_written_is_removed_in_time(results: Path) -> None:
    """Whoever left it; but not what another host may still be writing, nor a result."""
    publish_predictions(results, batch("a.png", b"x"))
    for name, age in (("other-host.1.json", 7200), ("other-host.2.json", 60)):
        path = results / ".tmp" / name
        path.write_bytes(b'{"schema"')
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    prepare(results)
    assert ["other-host.2.json"] == os.listdir(results / ".tmp")
    assert {"a.png.json"} == files_below(results)


def test_nothing_is_removed_behind_a_link(tmp_path: Path, results: Path) -> None:
    """Whoever may write to results/ could have had the models removed, an hour old as they are: by a link called .tmp."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("v0001.h5", "ledger.jsonl"):
        (models / name).touch()
        os.utime(models / name, (LONG_AGO, LONG_AGO))
    (results / ".tmp").rmdir()
    (results / ".tmp").symlink_to("../models")
    with pytest.raises(NotADirectoryError):
        prepare(results)
    assert ["ledger.jsonl", "v0001.h5"] == sorted(os.listdir(models))


def test_a_folder_among_what_is_half_written_is_nobodys_end(results: Path) -> None:
    """It is none of ours, and kept the daemon from starting."""
    (results / ".tmp" / "folder").mkdir()
    os.utime(results / ".tmp" / "folder", (LONG_AGO, LONG_AGO))
    prepare(results)
    assert ["folder"] == os.listdir(results / ".tmp")


def test_the_other_name_of_a_result_is_not_written_to(results: Path) -> None:
    """Where a rename is made of two names, an end between the two leaves both; the next result is another file."""
    publish_predictions(results, batch("a.png", b"x"))
    os.link(results / "a.png.json", results / ".tmp" / f"{writer_name()}.json")
    publish_predictions(results, batch("b.png", b"y"))
    assert ["a.png", "b.png"] == [json.loads((results / f"{name}.png.json").read_bytes())["file"] for name in "ab"]
    assert [] == os.listdir(results / ".tmp")


@pytest.mark.skipif(bool(why_no_root()), reason=why_no_root() or "-")
def test_all_of_this_holds_without_a_rename_that_replaces_nothing(tmp_path: Path) -> None:
    """As over NFS and 9p: every test of this file, where the kernel refuses RENAME_NOREPLACE."""
    refuse = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=renameat2", "-e"]
    pytest_again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not all_of_this", __file__]
    pytest_again += ["--basetemp", str(tmp_path.parent / "again")]  # a short one; the usual place is tidied up first
    done = subprocess.run(
        [*refuse, "inject=renameat2:error=EINVAL", *pytest_again],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert 0 == done.returncode, done.stdout


def test_retire_moves_the_original(folders: tuple[Path, Path]) -> None:
    """The original leaves work/ and is in processed/ under its own name, in its sub-folder."""
    work, processed = folders
    put(work, "b/a.png", b"x")
    retire("b/a.png", sha(b"x"), work, processed)
    assert ({}, {"b/a.png": b"x"}) == (contents(work), contents(processed))


def test_retire_again_changes_nothing(folders: tuple[Path, Path]) -> None:
    """Replaying a retirement after a crash is harmless."""
    work, processed = folders
    put(work, "a.png", b"x")
    for _ in range(2):
        retire("a.png", sha(b"x"), work, processed)
    assert {"a.png": b"x"} == contents(processed)


def test_retire_follows_the_rule_of_names(folders: tuple[Path, Path]) -> None:
    """Same name and bytes: one original. Same name, other bytes: a~<first 8 of sha256>.png."""
    work, processed = folders
    for content in (b"x", b"y", b"x", b"y"):
        put(work, "a.png", content)
        retire("a.png", sha(content), work, processed)
    assert {"a.png": b"x", f"a~{sha(b'y')[:8]}.png": b"y"} == contents(processed)
    assert {} == contents(work)


def test_retire_keeps_two_files_that_nobody_read(folders: tuple[Path, Path]) -> None:
    """Of two files without a digest under one name, neither replaces the other."""
    work, processed = folders
    for content in (b"x", b"y"):
        put(work, "big.png", content)
        retire("big.png", None, work, processed)
    assert sorted(contents(processed).values()) == [b"x", b"y"]


def test_retire_ends_a_hard_link_to_what_is_processed(folders: tuple[Path, Path]) -> None:
    """A drop that is a hard link to its own processed original leaves work/ all the same."""
    work, processed = folders
    put(processed, "a.png", b"x")
    os.link(processed / "a.png", work / "a.png")
    retire("a.png", sha(b"x"), work, processed)
    assert ({}, {"a.png": b"x"}) == (contents(work), contents(processed))


def test_retire_where_a_file_is_in_the_sub_folders_place(folders: tuple[Path, Path]) -> None:
    """A file `a` in processed/ and drops a/b.png: every original is kept, none replaces another."""
    work, processed = folders
    put(processed, "a", b"file")
    for content in (b"x", b"y", b"x"):
        put(work, "a/b.png", content)
        retire("a/b.png", sha(content), work, processed)
    assert {"a": b"file", "a~b.png": b"x", f"a~b~{sha(b'y')[:8]}.png": b"y"} == contents(processed)


def test_results_where_a_file_is_in_the_sub_folders_place(results: Path) -> None:
    """A foreign file `a` in results/ and drops a/b.png of different bytes: each has its result."""
    (results / "a").write_bytes(b"foreign")
    for content in (b"x", b"y", b"x"):
        publish_predictions(results, batch("a/b.png", content))
    assert {"a", "a~b.png.json", f"a~b~{sha(b'y')[:8]}.png.json"} == files_below(results)


def test_retire_keeps_a_folder_of_the_same_name(folders: tuple[Path, Path]) -> None:
    """A drop `a` where processed/ has a folder `a`: both stay."""
    work, processed = folders
    put(processed, "a/b.png", b"y")
    put(work, "a", b"x")
    retire("a", sha(b"x"), work, processed)
    assert {"a/b.png": b"y", f"a~{sha(b'x')[:8]}": b"x"} == contents(processed)


def test_a_folder_of_the_same_name_and_size_takes_no_descriptor(folders: tuple[Path, Path]) -> None:
    """Whoever drops could use them all up, one with each file as large as a folder is."""
    work, processed = folders
    (processed / "a").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        content = b"x" * ((processed / "a").stat().st_size - 1) + b"%d" % number
        put(work, "a", content)
        retire("a", sha(content), work, processed)
    assert before == len(os.listdir("/proc/self/fd"))


@pytest.fixture
def rejecting(tmp_path: Path) -> tuple[Path, Path]:
    """An empty work/ and rejected/."""
    (tmp_path / "work").mkdir()
    prepare(tmp_path / "rejected")
    return tmp_path / "work", tmp_path / "rejected"


def test_each_rejected_file_nobody_read_has_its_json(rejecting: tuple[Path, Path]) -> None:
    """Two unread files under one name: two originals in rejected/, and beside each its <name>.json."""
    work, rejected = rejecting
    for content in (b"x", b"y"):
        put(work, "big.png", content)
        reject(work, rejected, "big.png", None)
    names = files_below(rejected)
    originals = {name for name in names if not name.endswith(".json")}
    assert len(originals) == 2
    assert {f"{name}.json" for name in originals} == names - originals


@pytest.mark.parametrize("kind", ["link", "link to a folder", "dangling", "pipe", "socket"])
def test_what_is_no_file_is_described_and_removed(rejecting: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    """It is never moved: rejected/ gets a JSON that says so, and what a link leads to stays as it is."""
    work, rejected = rejecting
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "current.h5").write_bytes(b"model")
    path = work / "sub"
    match kind:
        case "link":
            path.symlink_to(tmp_path / "models" / "current.h5")
        case "link to a folder":
            path.symlink_to(tmp_path / "models")
        case "dangling":
            path.symlink_to(tmp_path / "none")
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
    assert reject(work, rejected, "sub", None) is None
    assert {"sub.json"} == files_below(rejected)
    assert set() == files_below(work)
    assert {"current.h5": b"model"} == contents(tmp_path / "models")


def test_nothing_is_written_behind_a_link_in_rejected(rejecting: tuple[Path, Path], tmp_path: Path) -> None:
    """A link that has come to be in rejected/ is no sub-folder: neither originals nor JSON go through it."""
    work, rejected = rejecting
    (tmp_path / "models").mkdir()
    (rejected / "sub").symlink_to(tmp_path / "models")
    put(work, "sub/v9999.h5", b"evil")
    reject(work, rejected, "sub/v9999.h5", b"evil")
    assert {} == contents(tmp_path / "models")
    assert {"sub~v9999.h5", "sub~v9999.h5.json"} == files_below(rejected)
    assert (rejected / "sub").is_symlink()


def test_a_dropped_name_of_a_json_does_not_part_a_file_from_its_own(rejecting: tuple[Path, Path]) -> None:
    """Where `a.png.json` is somebody's original, a.png and its JSON both have another name, beside each other."""
    work, rejected = rejecting
    put(work, "a.png.json", b"{}")
    reject(work, rejected, "a.png.json", b"{}")
    put(work, "a.png", b"x")
    reject(work, rejected, "a.png", b"x")
    tagged = f"a~{sha(b'x')[:8]}.png"
    assert {"a.png.json", "a.png.json.json", tagged, f"{tagged}.json"} == files_below(rejected)
    assert (rejected / "a.png.json").read_bytes() == b"{}"


def test_names_that_were_made_to_collide_replace_nothing(results: Path, folders: tuple[Path, Path]) -> None:
    """Whoever knows a digest beforehand can drop all its names: there is another one, and the same again when done again."""
    work, processed = folders
    digest = sha(b"x")
    taken = ["a.png", f"a~{digest[:8]}.png", f"a~{digest}.png"]
    for name in taken:
        put(work, name, b"other")
        publish_predictions(results, batch(name, b"other"))
        retire(name, sha(b"other"), work, processed)
    for _ in range(2):
        put(work, "a.png", b"x")
        publish_predictions(results, batch("a.png", b"x"))
        retire("a.png", digest, work, processed)
    again = f"a~{hashlib.sha256(digest.encode()).hexdigest()}.png"
    assert dict.fromkeys(taken, b"other") | {again: b"x"} == contents(processed)
    assert {f"{name}.json" for name in (*taken, again)} == files_below(results)


def test_an_original_that_is_there_is_not_replaced_by_the_same_drop(folders: tuple[Path, Path]) -> None:
    """The same bytes under the same name again: the first file, known to be durable, is the one that stays."""
    work, processed = folders
    put(work, "a.png", b"x")
    retire("a.png", sha(b"x"), work, processed)
    first = (processed / "a.png").stat().st_ino
    put(work, "a.png", b"x")
    retire("a.png", sha(b"x"), work, processed)
    assert first == (processed / "a.png").stat().st_ino
    assert {} == contents(work)
