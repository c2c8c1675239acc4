"""The daemon as a whole: a real process, real images, real signals."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from daemon.answering.root import StartError, take_root
from daemon.config import LOCK, PRESENCE, load_settings
from daemon.files import take_lock
from daemon.models.live import load
from daemon.models.registry import Registry
from daemon.telemetry.asking import read_status
from daemon.telemetry.presence import announce
from tests.conftest import DEADLINE, LONG_AGO, REPOSITORY, Daemon, Digits, encode, files_below, wait_until

RESULT_KEYS = {
    "schema": int,
    "file": str,
    "sha256": str,
    "digit": int,
    "confidence": float,
    "probabilities": list,
    "decision": str,
    "review_reason": (str, type(None)),
    "model": dict,
    "image": dict,
    "received_at": str,
    "predicted_at": str,
    "seconds": dict,
}
REJECTION_KEYS = {
    "schema": int,
    "file": str,
    "sha256": (str, type(None)),
    "reason": str,
    "detail": str,
    "hint": str,
    "rejected_at": str,
}

StartDaemon = Callable[..., Daemon]


def tag(content: bytes) -> str:
    """The first 8 of the sha256, as names have it."""
    return hashlib.sha256(content).hexdigest()[:8]


def drop_many(daemon: Daemon, digits: Digits, count: int) -> dict[str, bytes]:
    """Drop images 0.png, 1.png, ... nearly at once."""
    contents = {f"{number}.png": digits.png(number) for number in range(count)}
    staged = daemon.root / "many"
    staged.mkdir()
    for name, content in contents.items():
        (staged / name).write_bytes(content)
    for name in contents:
        (staged / name).rename(daemon.root / "inbox" / name)
    staged.rmdir()
    return contents


def contents_below(folder: Path) -> dict[str, bytes]:
    """Every visible file below a folder."""
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


def assert_all_answered_once(root: Path, digits: Digits, contents: dict[str, bytes]) -> None:
    """Each drop has one result, right where the model is right, and its original is in processed/ and nowhere else."""
    assert contents == contents_below(root / "processed")
    assert {f"{name}.json" for name in contents} == files_below(root / "results")
    assert set() == files_below(root / "inbox") | files_below(root / "work") | files_below(root / "rejected")
    right = 0
    for name, content in contents.items():
        result = json.loads((root / "results" / f"{name}.json").read_bytes())
        assert (name, hashlib.sha256(content).hexdigest()) == (result["file"], result["sha256"])
        right += result["digit"] == digits.labels[int(Path(name).stem)]
    assert right >= 0.98 * len(contents)


def is_settled(root: Path) -> bool:
    """Whether nothing waits and nothing is worked on."""
    return not files_below(root / "inbox") and not files_below(root / "work")


def test_a_result_is_what_the_contract_says(daemon: Daemon, digits: Digits) -> None:
    """One dropped image gives a JSON with exactly the contract's keys, and the original goes to processed/."""
    content = digits.png(0)
    daemon.drop("contract/whole.png", content)
    result = daemon.result("contract/whole.png")
    assert list(RESULT_KEYS) == list(result)
    for key, kind in RESULT_KEYS.items():
        assert isinstance(result[key], kind), key
    assert ("contract/whole.png", hashlib.sha256(content).hexdigest()) == (result["file"], result["sha256"])
    assert digits.labels[0] == result["digit"]
    assert 10 == len(result["probabilities"])
    assert max(result["probabilities"]) == result["confidence"] == result["probabilities"][result["digit"]]
    assert {"format": "PNG", "width": 28, "height": 28} == result["image"]
    manifest = json.loads((REPOSITORY / "models" / "v0001.json").read_bytes())
    assert {"version": "v0001", "sha256": manifest["sha256"]} == result["model"]
    assert {"waiting", "total"} == set(result["seconds"])
    assert 0 <= result["seconds"]["waiting"] <= result["seconds"]["total"]
    assert result["received_at"] <= result["predicted_at"]
    assert ("accepted", None) == (result["decision"], result["review_reason"])
    processed = daemon.root / "processed" / "contract" / "whole.png"
    wait_until(processed.exists, "the original to be retired")
    assert content == processed.read_bytes()


def test_a_rejection_is_what_the_contract_says(daemon: Daemon) -> None:
    """A text file named .png gives a JSON with exactly the contract's keys, and the original beside it."""
    daemon.drop("contract/text.png", b"not an image")
    rejection = daemon.rejection("contract/text.png")
    assert list(REJECTION_KEYS) == list(rejection)
    for key, kind in REJECTION_KEYS.items():
        assert isinstance(rejection[key], kind), key
    assert ("not_an_image", hashlib.sha256(b"not an image").hexdigest()) == (rejection["reason"], rejection["sha256"])
    original = daemon.root / "rejected" / "contract" / "text.png"
    wait_until(original.exists, "the original to be retired")
    assert b"not an image" == original.read_bytes()


def test_what_a_library_says_of_a_damaged_file_is_not_logged(daemon: Daemon, digits: Digits) -> None:
    """Its rejection says it; libtiff would print lines about a tempfile.tif that nobody has."""
    content = encode(digits.images[0], "TIFF", compression="tiff_lzw")
    daemon.drop("damaged.tif", content[:8] + b"\xff" * 60 + content[68:])
    assert daemon.rejection("damaged.tif")["reason"] == "truncated"
    wait_until(lambda: "damaged.tif rejected: truncated" in daemon.log, "its rejection to be logged")
    assert "tempfile" not in daemon.log


def test_ten_digits_are_read(daemon: Daemon, digits: Digits) -> None:
    """One image of each digit, dropped in each of three formats, is read as that digit."""
    for digit in range(10):
        pixels = digits.images[digits.labels.index(digit)]
        for kind in ("PNG", "BMP", "TIFF"):
            daemon.drop(f"ten/{digit}.{kind}", encode(pixels, kind))
    for digit in range(10):
        for kind in ("PNG", "BMP", "TIFF"):
            result = daemon.result(f"ten/{digit}.{kind}")
            assert (digit, kind) == (result["digit"], result["image"]["format"])


def test_a_slow_writer_is_waited_for(daemon: Daemon, digits: Digits) -> None:
    """While it writes, nothing is taken; when it closes, the whole image is."""
    content, path = digits.png(1), daemon.root / "inbox" / "slow.png"
    with path.open("wb") as writer:
        writer.write(content[:100])
        writer.flush()
        daemon.drop("slow-sentinel.png", digits.png(2))
        daemon.result("slow-sentinel.png")  # so the inbox was looked through meanwhile
        assert content[:100] == path.read_bytes()
        writer.write(content[100:])
    result = daemon.result("slow.png")
    assert (hashlib.sha256(content).hexdigest(), digits.labels[1]) == (result["sha256"], result["digit"])


def test_a_writer_who_closes_in_between_is_waited_for(daemon: Daemon, digits: Digits) -> None:
    """Half a file that was closed is no image yet, and not rejected while it is young; once whole, it is read."""
    content, path = digits.png(3), daemon.root / "inbox" / "halves.png"
    before = daemon.metric("digitd_stage_seconds_count", stage="decode")
    path.write_bytes(content[:100])
    wait_until(lambda: daemon.metric("digitd_stage_seconds_count", stage="decode") > before, "the half to be looked at")

    def append() -> bool:
        try:  # it may just be claimed
            with path.open("r+b") as writer:
                writer.seek(100)
                writer.write(content[100:])
        except FileNotFoundError:
            return False
        return True

    wait_until(append, "the half to be back in the inbox")
    result = daemon.result("halves.png")
    assert (hashlib.sha256(content).hexdigest(), digits.labels[3]) == (result["sha256"], result["digit"])
    assert not (daemon.root / "rejected" / "halves.png.json").exists()


def test_a_copy_with_cp_is_read(daemon: Daemon, digits: Digits, tmp_path: Path) -> None:
    """Cp and mv of a command line work like everything else."""
    for number, command in enumerate(("cp", "mv")):
        source = tmp_path / f"{command}.png"
        source.write_bytes(digits.png(number))
        subprocess.run([command, str(source), str(daemon.root / "inbox")], check=True)
        assert digits.labels[number] == daemon.result(f"{command}.png")["digit"]


def test_a_hard_link_is_read_and_its_other_name_stays(daemon: Daemon, digits: Digits) -> None:
    """Ln into the inbox: there is a result, and the file elsewhere is untouched."""
    elsewhere = daemon.root / "elsewhere.png"
    elsewhere.write_bytes(digits.png(4))
    os.link(elsewhere, daemon.root / "inbox" / "link.png")
    assert digits.labels[4] == daemon.result("link.png")["digit"]
    wait_until((daemon.root / "processed" / "link.png").exists, "the original to be retired")
    assert digits.png(4) == elsewhere.read_bytes()


def test_sub_folders_are_kept(daemon: Daemon, digits: Digits) -> None:
    """A folder of images, moved in as a whole: each result is in the same sub-folder."""
    staged = daemon.root / "batch7"
    (staged / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/a.png", "deep/er/a.png")):
        (staged / name).write_bytes(digits.png(number))
    staged.rename(daemon.root / "inbox" / "batch7")
    for number, name in enumerate(("a.png", "deep/a.png", "deep/er/a.png")):
        assert (f"batch7/{name}", digits.labels[number]) == (
            (result := daemon.result(f"batch7/{name}"))["file"],
            result["digit"],
        )


def test_the_same_name_twice_with_other_bytes(daemon: Daemon, digits: Digits) -> None:
    """Two images of one name: two results, two originals; the second has its digest in its names."""
    first, second = digits.png(5), digits.png(6)
    daemon.drop("twice.png", first)
    assert digits.labels[5] == daemon.result("twice.png")["digit"]
    daemon.drop("twice.png", second)
    other = f"twice~{tag(second)}.png"
    result = daemon.result(other)
    assert ("twice.png", digits.labels[6]) == (result["file"], result["digit"])
    wait_until((daemon.root / "processed" / other).exists, "the second original to be retired")
    assert (first, second) == tuple((daemon.root / "processed" / name).read_bytes() for name in ("twice.png", other))
    assert hashlib.sha256(first).hexdigest() == daemon.result("twice.png")["sha256"]


def test_the_same_drop_twice_is_one_result(daemon: Daemon, digits: Digits) -> None:
    """Same name and same bytes: refreshed in place."""
    daemon.drop("same/a.png", digits.png(7))
    first = daemon.result("same/a.png")
    path = daemon.root / "results" / "same" / "a.png.json"
    daemon.drop("same/a.png", digits.png(7))
    wait_until(lambda: json.loads(path.read_bytes())["received_at"] != first["received_at"], "the result to be refreshed")
    wait_until(lambda: not (daemon.root / "work" / "same" / "a.png").exists(), "the original to be retired")
    assert {"a.png.json"} == files_below(daemon.root / "results" / "same")
    assert {"a.png"} == files_below(daemon.root / "processed" / "same")


def make(path: Path, kind: str, digits: Digits) -> None:
    """Make what is no digit image at a path, with an old time of last change."""
    staged = path.with_name(f".{path.name}.staged")
    match kind:
        case "text":
            staged.write_bytes(b"not an image")
        case "empty":
            staged.touch()
        case "jpeg":
            page = np.kron(digits.images[0], np.ones((20, 20), np.uint8))
            whole = encode(page, "JPEG")
            staged.write_bytes(whole[: len(whole) // 2])
        case "fifo":
            os.mkfifo(staged)
        case "symlink":
            staged.symlink_to(REPOSITORY / "config.toml")
        case "blank":
            staged.write_bytes(encode(np.full((50, 50), 200, np.uint8)))
        case "gif":
            from PIL import Image

            frames = [Image.fromarray(digits.images[number]) for number in range(2)]
            frames[0].save(staged, "GIF", save_all=True, append_images=frames[1:])
        case "pixels":
            staged.write_bytes(encode(np.zeros((10_000, 5_001), np.uint8)))
        case "bytes":
            with staged.open("wb") as file:
                file.truncate((64 << 20) + 1)
    os.utime(staged, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    staged.rename(path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "not_an_image"),
        ("empty", "not_an_image"),
        ("jpeg", "truncated"),
        ("fifo", "not_a_regular_file"),
        ("symlink", "not_a_regular_file"),
        ("blank", "blank"),
        ("gif", "animated"),
        ("pixels", "too_many_pixels"),
        ("bytes", "too_large"),
    ],
)
def test_what_is_no_digit_image_is_rejected(daemon: Daemon, digits: Digits, kind: str, reason: str) -> None:
    """It goes to rejected/, if it is a file, with a JSON that says why and what to do; nothing waits behind it."""
    name = f"{kind}.png"
    make(daemon.root / "inbox" / name, kind, digits)
    rejection = daemon.rejection(name)
    assert reason == rejection["reason"]
    assert rejection["detail"].endswith(".")
    assert rejection["hint"].endswith(".")
    wait_until(lambda: not os.path.lexists(daemon.root / "work" / name), "the original to be retired")
    assert os.path.lexists(daemon.root / "rejected" / name) is (reason != "not_a_regular_file")
    assert not os.path.lexists(daemon.root / "inbox" / name)
    assert daemon.get("/readyz") == (200, "ok\n")


def test_a_mixed_drop_has_an_end_for_each(daemon: Daemon, digits: Digits) -> None:
    """Good and bad files together: every one has its JSON, and no bad one harms a good one."""
    inbox = daemon.root / "inbox" / "mixed"
    inbox.mkdir()
    kinds = ("text", "jpeg", "fifo", "symlink", "blank")
    for number in range(50):
        daemon.drop(f"mixed/{number}.png", digits.png(number))
        if number < len(kinds):
            make(inbox / f"{kinds[number]}.png", kinds[number], digits)
    for kind in kinds:
        daemon.rejection(f"mixed/{kind}.png")
    right = sum(daemon.result(f"mixed/{number}.png")["digit"] == digits.labels[number] for number in range(50))
    assert right >= 49
    assert {f"{number}.png.json" for number in range(50)} == files_below(daemon.root / "results" / "mixed")


def test_accuracy_equals_the_models_own_and_no_reader_sees_half_a_result(daemon: Daemon, digits: Digits) -> None:
    """300 PNGs through the daemon are read as the model reads their pixels, while a reader parses every JSON it sees."""
    results = daemon.root / "results" / "accuracy"
    stop = threading.Event()
    halves: list[str] = []
    reads: list[int] = []

    def read() -> None:
        while not stop.is_set():
            for path in results.glob("*"):
                content = path.read_bytes()
                reads.append(len(content))
                if not content.endswith(b"}\n") or json.loads(content)["schema"] != 1:
                    halves.append(f"{path}: {content!r}")

    reader = threading.Thread(target=read)
    reader.start()
    staged = daemon.root / "accuracy"
    staged.mkdir()
    for number in range(300):
        (staged / f"{number}.png").write_bytes(digits.png(number))
    staged.rename(daemon.root / "inbox" / "accuracy")
    answers = [daemon.result(f"accuracy/{number}.png")["digit"] for number in range(300)]
    wait_until(lambda: len(reads) >= 300, "the reader to have read")
    stop.set()
    reader.join()
    assert [] == halves
    model = load(Registry(REPOSITORY / "models").version("v0001"))
    expected = model.predict(digits.images[:300])[0].argmax(axis=1).tolist()
    assert expected == answers
    assert np.mean(np.array(answers) == digits.labels[:300]) >= 0.99


def test_an_inbox_that_was_replaced_is_served(daemon: Daemon, digits: Digits) -> None:
    """Without an inbox the daemon is not ready, and says so; with a new one it goes on by itself."""
    inbox = daemon.root / "inbox"
    wait_until(lambda: is_settled(daemon.root), "the inbox to be empty")
    shutil.rmtree(inbox)
    wait_until(lambda: daemon.get("/readyz")[0] == 503, "/readyz to be 503")
    assert "inbox" in daemon.get("/readyz")[1]
    assert daemon.get("/livez")[0] == 200
    inbox.mkdir()
    wait_until(lambda: daemon.get("/readyz")[0] == 200, "/readyz to be 200 again")
    daemon.drop("replaced.png", digits.png(0))
    assert digits.labels[0] == daemon.result("replaced.png")["digit"]


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    """On a root that has a daemon another one ends with 1 and says why; the first is untouched."""
    before = len(daemon.log)
    second = Daemon(daemon.root)
    assert 1 == second.process.wait(DEADLINE)
    said = second.log[before:]
    assert f"{daemon.root}: expected no other daemon on this root" in said
    assert str(daemon.process.pid) in said
    assert "Traceback" not in said
    assert daemon.get("/readyz")[0] == 200


def test_a_second_one_is_refused_though_work_was_removed(root: Path, start_daemon: StartDaemon) -> None:
    """The daemon's lock goes with it, and what tells that it runs: it takes them anew."""
    daemon = start_daemon().wait_ready()
    shutil.rmtree(root / "work")
    wait_until((root / "work" / PRESENCE).exists, "the daemon to be announced")
    assert daemon.process.pid == read_status(root / "work" / PRESENCE)["pid"]
    with pytest.raises(StartError, match="expected no other daemon"), ExitStack() as stack:
        take_root(load_settings(root / "config.toml"), stack)
    (root / "work" / PRESENCE).unlink()
    wait_until((root / "work" / PRESENCE).exists, "the daemon to be announced again")


def test_one_whose_work_another_daemon_took_ends(root: Path, start_daemon: StartDaemon) -> None:
    """Somebody removed the folder and started another, before the first took its lock anew: both would claim."""
    daemon = start_daemon().wait_ready()
    (root / "other").mkdir()
    lock = take_lock(root / "other" / LOCK)
    presence = announce(root / "other" / PRESENCE, {"pid": 1, "address": "elsewhere:1"})
    (root / "work").rename(root / "removed")
    (root / "other").rename(root / "work")
    assert 1 == daemon.process.wait(DEADLINE)
    assert f"expected no other daemon beside this one. Received: pid 1 on {os.uname().nodename}, metrics on " in daemon.log
    for descriptor in filter(None, (lock, presence)):
        os.close(descriptor)


def test_killed_decoders_are_replaced(daemon: Daemon, digits: Digits) -> None:
    """Kill -9 of all light processes while images come: every image has its result."""
    staged = daemon.root / "decoders"
    staged.mkdir()
    for number in range(200):
        (staged / f"{number}.png").write_bytes(digits.png(number))
    staged.rename(daemon.root / "inbox" / "decoders")
    killed = [kill(pid) for pid in descendants(daemon.process.pid) if len(descendants(pid)) == 0]
    assert any(killed)
    for number in range(200):
        daemon.result(f"decoders/{number}.png")
    assert daemon.process.poll() is None


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def kill(pid: int) -> bool:
    """SIGKILL, where it still is."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_ends_soon_and_a_restart_finishes(root: Path, digits: Digits, start_daemon: StartDaemon) -> None:
    """SIGTERM amid 500 files: exit code 0, each file finished or still there; the next start does the rest."""
    daemon = start_daemon().wait_ready()
    processes = descendants(daemon.process.pid)
    contents = drop_many(daemon, digits, 500)
    wait_until(lambda: files_below(root / "results"), "the first result")
    assert daemon.terminate(20) == 0
    assert "Traceback" not in daemon.log
    left = {**contents_below(root / "inbox"), **contents_below(root / "work")}
    finished = contents_below(root / "processed")
    assert contents == left | finished
    assert {f"{name}.json" for name in finished} <= files_below(root / "results")
    wait_until(lambda: not any(map(is_running, processes)), "the light processes to end")

    (root / "work" / "b").mkdir()
    (root / "work" / "b" / "0.png").write_bytes(contents["0.png"])  # as a crash leaves it
    daemon.restart()
    wait_until(lambda: is_settled(root), "the rest to be finished")
    assert_all_answered_once(root, digits, contents | {"b/0.png": contents["0.png"]})
    assert daemon.terminate() == 0


def test_kill_9_loses_and_doubles_nothing(root: Path, digits: Digits, start_daemon: StartDaemon) -> None:
    """Kill -9 amid 500 files, twice, at the first result and at the first retired original: in the end one result each."""
    daemon = start_daemon().wait_ready()
    processes = descendants(daemon.process.pid)
    contents = drop_many(daemon, digits, 500)
    wait_until(lambda: files_below(root / "results"), "the first result")
    daemon.kill9()
    everywhere = contents_below(root / "inbox") | contents_below(root / "work") | contents_below(root / "processed")
    assert contents == everywhere
    assert len(files_below(root / "processed")) < 500
    wait_until(lambda: not any(map(is_running, processes)), "the light processes to end with the daemon")

    daemon.restart()
    wait_until(lambda: files_below(root / "processed"), "the first retired original")
    daemon.kill9()
    everywhere = contents_below(root / "inbox") | contents_below(root / "work") | contents_below(root / "processed")
    assert contents == everywhere

    daemon.restart()
    wait_until(lambda: is_settled(root), "the rest to be finished")
    assert_all_answered_once(root, digits, contents)
    assert daemon.terminate() == 0


def test_a_missing_model_is_told_in_a_sentence(root: Path, start_daemon: StartDaemon) -> None:
    """Without a usable model the daemon ends with 1, and no input is consumed."""
    (root / "models" / "v0001.h5").write_bytes(b"damaged")
    (root / "inbox" / "a.png").write_bytes(b"x")
    daemon = start_daemon()
    assert daemon.process.wait(120) == 1
    assert "expected the file that its manifest describes" in daemon.log
    assert "Traceback" not in daemon.log
    assert {"a.png"} == files_below(root / "inbox")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("command", ["check", "run"])
def test_two_mounts_of_one_file_system_are_refused(root: Path, command: str) -> None:
    """inbox/ and work/ in mounts of their own, as in a container: before anything is dropped, a sentence says so."""
    mount = f'mount --bind inbox inbox && exec "$0" -m daemon {command} -c config.toml'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, sys.executable],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "DIGITD_HTTP__PORT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "work and inbox are not" in done.stdout + done.stderr
    assert 1 == done.returncode
