"""`digitd stream` on a real Spark in this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from daemon.models.registry import Registry
from tests.cluster.conftest import FULL, PATIENT, Stream, is_settled
from tests.conftest import LONG_AGO, Daemon, Digits, digitd, encode, files_below, make_root, wait_until
from tests.faults.harness import mounted, needs_root
from tests.hostile.files import ANSWERED, STAYS, all_hostile

pytestmark = pytest.mark.timeout(1200)
TIMES = {"received_at", "predicted_at", "rejected_at", "seconds"}
full = pytest.mark.skipif(not FULL, reason="make test-cluster")


def answers(root: Path) -> dict[str, dict[str, Any]]:
    """Every JSON below a root, without what differs from time to time."""
    found = {}
    for folder in ("results", "rejected"):
        for name in files_below(root / folder):
            if name.endswith(".json"):
                content = json.loads((root / folder / name).read_bytes())
                if isinstance(content, dict) and "schema" in content:
                    found[f"{folder}/{name}"] = {key: value for key, value in content.items() if key not in TIMES}
    return found


def test_it_answers_as_the_daemon_does(stream: Stream, daemon: Daemon, digits: Digits) -> None:
    """The same files, with odd names among them, have the same JSONs, under the same names."""
    contents = {f"equal/{number}.png": digits.png(number) for number in range(40)}
    contents |= {
        "equal/b:c.png": digits.png(50),
        "equal/_a.png": digits.png(51),
        "equal/\udcff.png": digits.png(52),
        "equal/deep/er/ß.jpg": encode(digits.images[53].repeat(8, 0).repeat(8, 1), "JPEG"),
        "equal/no image.png": b"no image",
        "equal/half.png": digits.png(54)[:120],
    }
    for running in (stream, daemon):
        for name, content in contents.items():
            running.drop(name, content)
    names = set(contents)
    for running in (stream, daemon):
        wait_until(lambda: is_settled(running.root, names), f"all to be retired; the log:\n{running.log}", PATIENT)  # noqa: B023
    ours, theirs = ({k: v for k, v in answers(one.root).items() if "/equal/" in k} for one in (stream, daemon))
    assert len(contents) == len(theirs)
    for name in theirs:
        assert theirs[name].pop("probabilities", None) == pytest.approx(ours[name].pop("probabilities", None), abs=1e-5)
        assert theirs[name].pop("confidence", None) == pytest.approx(ours[name].pop("confidence", None), abs=1e-5)
    assert theirs == ours


def test_a_name_dropped_again_is_answered_again(stream: Stream, digits: Digits) -> None:
    """Other content gets a name of its own; a single drop is answered while nothing else goes on."""
    for number in range(2):
        stream.drop("again.png", digits.png(number))
        wait_until(lambda: not (stream.root / "inbox/again.png").exists(), "it to be claimed", PATIENT)
    wait_until(
        lambda: 2 == len([name for name in files_below(stream.root / "results") if name.startswith("again")]), "two", PATIENT
    )


def test_hostile_files_come_to_their_ends(stream: Stream) -> None:
    """All at once, each in a folder of its own: what they are, and no more, is told of them."""
    dropped = {}
    for number, hostile in enumerate(all_hostile()):
        if (hostile.slow and not FULL) or (hostile.needs_root and os.geteuid() != 0):
            continue
        staged = stream.root / f"staged-hostile{number}"
        try:
            hostile.make(staged)
            if not staged.is_dir() or staged.is_symlink():
                os.utime(staged, (LONG_AGO, LONG_AGO), follow_symlinks=False)
            (stream.root / "inbox" / f"h{number}").mkdir()
            staged.rename(os.fsdecode(os.fsencode(stream.root / "inbox" / f"h{number}") + b"/" + hostile.name))
        except (OSError, subprocess.CalledProcessError):
            continue  # it cannot be made here, or, immutable, not be moved
        dropped[number] = hostile

    def ends(number: int) -> list[str]:
        """What became of one."""
        found = [
            json.loads(path.read_bytes()).get("reason", ANSWERED)
            for folder in ("results", "rejected")
            for path in (stream.root / folder / f"h{number}").glob("*.json")
            if path.is_file() and b'"schema":1' in path.read_bytes()[:20]
        ]
        return found or [STAYS]

    def wrong() -> list[tuple[str, list[str]]]:
        return [
            (one.title, ends(number)) for number, one in dropped.items() if ends(number) not in [[end] for end in one.ends]
        ]

    wait_until(lambda: not wrong(), f"every end but of {wrong()}; the log:\n{stream.log[-3000:]}", PATIENT)
    assert 200 == stream.get("/readyz")[0]
    for number in dropped:
        subprocess.run(["rm", "-rf", stream.root / "inbox" / f"h{number}"], check=True)


def test_a_swap_is_between_batches(stream: Stream, digits: Digits) -> None:
    """current.h5 moves, and what is dropped then is answered by what it names; so does /metrics."""
    registry = Registry(stream.root / "models")
    for ending in (".h5", ".json"):
        shutil.copy(stream.root / "models" / f"v0001{ending}", stream.root / "models" / f"v0002{ending}")
    registry.make_current("v0002", "test")

    def answered_by() -> str:
        stream.drop(name := f"swap{len(files_below(stream.root / 'results'))}.png", digits.png(0))
        wait_until((stream.root / "results" / f"{name}.json").exists, name, PATIENT)
        return str(json.loads((stream.root / "results" / f"{name}.json").read_bytes())["model"]["version"])

    assert "v0002" == answered_by()
    wait_until(lambda: 1 == stream.metric("digitd_model_swaps_total", result="swapped"), "the swap to be counted", PATIENT)
    shutil.copy(stream.root / "models/v0001.h5", stream.root / "models/v0003.h5")
    manifest = json.loads((stream.root / "models/v0001.json").read_bytes()) | {"version": "v0003"}
    (stream.root / "models/v0003.json").write_text(json.dumps(manifest))
    registry.make_current("v0003", "test")
    assert "v0002" == answered_by()  # the other one was neither made nor vetted here
    registry.make_current("v0001", "test")
    assert "v0001" == answered_by()
    wait_until(lambda: 2 == stream.metric("digitd_model_swaps_total", result="swapped"), "its batch to be counted", PATIENT)


def test_what_tasks_count_is_on_the_page(stream: Stream, digits: Digits) -> None:
    """Each image once, under the daemon's names."""
    before = stream.metric("digitd_images_total", outcome="accepted") + stream.metric(
        "digitd_images_total", outcome="review"
    )
    stream.drop_digits(digits, 0, 600)
    outcomes = ("accepted", "review")
    wait_until(
        lambda: 600 + before == sum(stream.metric("digitd_images_total", outcome=one) for one in outcomes), "600", PATIENT
    )
    assert stream.metric("digitd_image_seconds_count") == 600 + before
    assert stream.metric("digitd_batch_size_images_sum") == 600 + before


@full
def test_an_idle_stream_answers_quickly(stream: Stream, digits: Digits) -> None:
    """75 s without a drop, and the workers have their models still."""
    loads = stream.log.count("WARNING")
    time.sleep(75)  # nothing happens meanwhile; Spark would end its workers after 60
    stream.drop("late.png", digits.png(0))
    result = stream.result("late.png")
    assert result["seconds"]["total"] < 5
    assert loads == stream.log.count("WARNING")


def test_a_root_has_one_daemon_or_one_stream(stream: Stream) -> None:
    """A second one says who runs."""
    done = digitd("stream", "-c", stream.root / "config.toml", DIGITD_HTTP__PORT="0")
    assert (1, True) == (done.returncode, str(stream.process.pid) in done.stderr)


def test_sigterm_ends_it_within_its_batch(stream: Stream, digits: Digits) -> None:
    """With exit 0; what it had claimed is answered, and what it had not is in the inbox."""
    before = files_below(stream.root / "processed")
    names = set(stream.drop_digits(digits, 10_000, 3000 if FULL else 1500))
    wait_until(lambda: len(files_below(stream.root / "results")) > len(before) + 300, "it to be busy", PATIENT)
    assert 0 == stream.terminate(PATIENT)
    assert [] == [path for path in (stream.root / "work/.stream").iterdir() if any(path.iterdir())]
    assert names <= files_below(stream.root / "processed") | files_below(stream.root / "inbox")


@full
def test_a_stream_takes_up_what_was_left(stream: Stream, digits: Digits) -> None:
    """Killed while it is busy, with its checkpoint deleted, and by a stream after a daemon: nothing is lost or doubled."""
    stream.restart()
    names = set(stream.drop_digits(digits, 20_000, 3000))
    wait_until(lambda: files_below(stream.root / "work/.stream"), "it to be busy", PATIENT)
    stream.kill9()
    shutil.rmtree(stream.root / "checkpoint")
    stream.restart()
    stream.wait_settled(names)
    results = files_below(stream.root / "results")
    assert {f"{name}.json" for name in names} <= results
    assert names <= files_below(stream.root / "processed")
    assert [] == [name for name in results if "~" in name and name.split("~")[0] + ".png" in names]


@full
@needs_root
def test_a_full_disk(digits: Digits) -> None:
    """It waits for space, or ends with a sentence and is started again; then all are answered."""
    with mounted("ext4", megabytes=256) as place:
        stream = Stream(make_root(place / "root"), "local[2,4]", INBOX__RESCAN_SECONDS=1).wait_ready()
        try:
            names = set(stream.drop_digits(digits, 0, 2000))
            wait_until(lambda: len(files_below(stream.root / "results")) > 50, "some answers", PATIENT)
            with (place / "ballast").open("wb") as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            time.sleep(20)  # so long is it full
            (place / "ballast").unlink()
            if stream.process.poll() is not None:
                assert "the stream failed: " in stream.log
                stream.restart()
            stream.wait_settled(names)
            stream.check(names)
        finally:
            stream.close()
