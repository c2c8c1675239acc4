"""pipeline.py: one pass at a time, without threads, with real decoders and the real model."""

import hashlib
import json
import os
import queue
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from daemon.answering.pipeline import FEW, Pipeline
from daemon.answering.predicting import Predicting
from daemon.answering.publish import prepare
from daemon.answering.retirement import Folders, Retirement
from daemon.config import load_settings
from daemon.index.filling import fill, start_anew
from daemon.index.queries import Wanted, as_dict, find
from daemon.index.schema import open_to_read
from daemon.index.writer import Index
from daemon.intake.inbox import Inbox
from daemon.models.live import LiveModel
from daemon.models.registry import Registry
from daemon.models.version import ModelIdentity
from daemon.reading.chunks import Decoders
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness
from tests.conftest import LONG_AGO, REPOSITORY, Digits, encode, files_below, wait_until


@pytest.fixture(scope="module")
def model() -> LiveModel:
    """The shipped model, live."""
    return named("v0001", "m" * 64)


def named(version: str, sha256: str) -> LiveModel:
    """The shipped model, under another name."""
    shipped = Registry(REPOSITORY / "models").version("v0001")
    return LiveModel(shipped.path, ModelIdentity(version, sha256), shipped.calibration)


class Line:
    """Inbox, decoders, model, pipeline and retirement on a root, driven by hand."""

    def __init__(self, root: Path, model: LiveModel, **overrides: object) -> None:
        environment = {f"DIGITD_{key}": str(value) for key, value in overrides.items()}
        settings = load_settings(root / "config.toml", environment)
        self.root, self.model = root, model
        folders = Folders(*(settings.folder(name) for name in ("work", "results", "processed", "rejected")))
        prepare(folders.results)
        prepare(folders.rejected)
        steps: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.metrics = Metrics()
        self.readiness = Readiness(self.metrics)
        self.readiness.report("start", None)
        self.decoders = Decoders(folders.work, settings.inbox)
        wake = partial(steps.put, lambda: None)
        self.inbox = Inbox(settings.folder("inbox"), folders.work, settings.inbox, self.metrics, wake=wake)
        sync_seconds = settings.inference.sync_seconds
        self.index = Index(settings.index, self.metrics)
        self.retirement = Retirement(folders, self.inbox, self.readiness, self.metrics, sync_seconds, self.index)
        self.predicting = Predicting(lambda: self.model, self.metrics)
        self.pipeline = Pipeline(
            self.inbox,
            self.decoders,
            self.predicting,
            self.retirement,
            folders,
            self.readiness,
            self.metrics,
            settings,
            steps,
        )

    def put(self, name: str, content: bytes, changed: float = LONG_AGO) -> None:
        """Drop a whole file."""
        staged = self.root / "staged"
        staged.write_bytes(content)
        os.utime(staged, (changed, changed))
        (self.root / "inbox" / name).parent.mkdir(parents=True, exist_ok=True)
        staged.rename(self.root / "inbox" / name)
        self.inbox.look()

    def run_until(self, condition: Callable[[], object], what: str) -> None:
        """Make passes until something is so."""

        def one_pass() -> bool:
            self.pipeline.run_once(0.05)
            self.predicting.run_once(0)
            return bool(condition())

        wait_until(one_pass, what)

    def names(self, folder: str) -> set[str]:
        """What is in one of the root's folders."""
        return files_below(self.root / folder)

    def answer(self, folder: str, name: str) -> dict[str, object]:
        """Make passes until a JSON is there; its content."""
        path = self.root / folder / f"{name}.json"
        self.run_until(path.exists, str(path))
        content: dict[str, object] = json.loads(path.read_bytes())
        return content

    def metric(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.inbox.close()
        self.decoders.close()
        self.index.close()


@pytest.fixture
def build(root: Path, model: LiveModel) -> Iterator[Callable[..., Line]]:
    """Builds lines on this test's root, and ends them."""
    lines: list[Line] = []

    def begin(**overrides: object) -> Line:
        lines.append(Line(root, model, **overrides))
        return lines[-1]

    yield begin
    for line in lines:
        line.close()


def test_an_image_walks_the_whole_line(build: Callable[..., Line], digits: Digits) -> None:
    """Its result appears while the original is still in work/; after the sync the original is in processed/."""
    line = build()
    line.put("a.png", digits.png(0))
    assert digits.labels[0] == line.answer("results", "a.png")["digit"]
    assert ({"a.png"}, set()) == (line.names("work"), line.names("processed"))
    assert line.pipeline.idle
    line.retirement.flush()
    assert (set(), {"a.png"}) == (line.names("work"), line.names("processed"))


def test_a_large_batch_holds_nobody_up(build: Callable[..., Line], digits: Digits) -> None:
    """While one waits for its prediction, in a thread of its own, others are claimed and answered."""
    line = build()
    batch = {f"{number}.png" for number in range(FEW + 1)}
    for name in batch:
        line.put(name, digits.png(0))
    wait_until(lambda: line.pipeline.run_once(0.05) or line.names("work") == batch, "the batch to be claimed")
    line.put("a.png", digits.png(1))
    wait_until(lambda: line.pipeline.run_once(0.05) or line.names("results") == {"a.png.json"}, "only the other's answer")
    line.run_until(lambda: line.pipeline.idle, "the batch's answers")
    assert {f"{name}.json" for name in batch | {"a.png"}} == line.names("results")


def test_the_index_says_what_the_folders_say(root: Path, build: Callable[..., Line], digits: Digits) -> None:
    """What was told of each answer and rejection is, row by row, what a filling finds in the folders."""
    line = build()
    line.put("batch7/a.png", digits.png(0))
    line.answer("results", "batch7/a.png")
    line.retirement.flush()
    line.put("batch7/a.png", digits.png(1))  # whose name is taken
    line.put("text.png", b"no image")
    line.put(os.fsdecode(b"\xff.png"), digits.png(2))
    line.answer("rejected", "text.png")
    line.run_until(lambda: line.pipeline.idle and len(line.names("results")) == 3, "all answers")
    line.retirement.flush()
    line.index.close()
    settings = load_settings(root / "config.toml")

    def rows() -> list[dict[str, object]]:
        with closing(open_to_read(settings.index)) as connection:
            found = [as_dict(row, settings) for row in find(connection, Wanted())]
        return sorted(({**row, "bytes": None} for row in found), key=lambda row: (str(row["file"]), str(row["sha256"])))

    told = rows()
    start_anew(settings.index)
    fill(settings.index, settings)
    assert told == rows()
    assert 4 == len(told)


def test_retirement_waits_for_its_time(build: Callable[..., Line], digits: Digits) -> None:
    """A group is retired when it is due, not before, and without being asked again."""
    line = build(INFERENCE__SYNC_SECONDS=3600.0)
    line.put("a.png", digits.png(0))
    line.answer("results", "a.png")
    line.retirement.run_once(0)
    assert {"a.png"} == line.names("work")
    line.retirement.flush()
    assert set() == line.names("work")

    soon = build(INFERENCE__SYNC_SECONDS=0.01)
    soon.put("b.png", digits.png(1))
    soon.answer("results", "b.png")
    wait_until(lambda: soon.retirement.run_once(0.1) or "b.png" in soon.names("processed"), "the original to be retired")


def test_images_are_predicted_together(build: Callable[..., Line], digits: Digits) -> None:
    """Three hundred waiting images take a few batches, and every digit is its own image's."""
    line = build()
    for number in range(300):
        line.put(f"{number}.png", digits.png(number))
    line.run_until(lambda: line.metric("digitd_images_total", outcome="accepted") >= 295, "all results")
    line.run_until(lambda: line.pipeline.idle, "the books to be closed")
    assert line.metric("digitd_batch_size_images_count") <= 10
    assert line.metric("digitd_batch_size_images_sum") == 300
    results = [json.loads((line.root / "results" / f"{number}.png.json").read_bytes()) for number in range(300)]
    expected = line.model.predict(digits.images[:300])[0]
    np.testing.assert_allclose(expected, [result["probabilities"] for result in results], atol=1e-4)


def test_an_unsure_answer_is_marked(build: Callable[..., Line], digits: Digits) -> None:
    """Less confidence than configured: decision "review", reason "low_confidence", and both are counted."""
    line = build(INFERENCE__REVIEW_BELOW=0.9, INFERENCE__NOT_A_DIGIT_ABOVE=9.0)
    unsure = digits.images[0] // 2 + digits.images[1] // 2
    assert line.model.predict(unsure[None])[0].max() < 0.9
    line.put("unsure.png", encode(unsure))
    line.put("sure.png", digits.png(0))
    result = line.answer("results", "unsure.png")
    assert ("review", "low_confidence") == (result["decision"], result["review_reason"])
    assert "accepted" == line.answer("results", "sure.png")["decision"]
    line.run_until(lambda: line.pipeline.idle, "the books to be closed")
    assert 1 == line.metric("digitd_reviews_total", reason="low_confidence")
    assert 1 == line.metric("digitd_images_total", outcome="review")
    assert 1 == line.metric("digitd_images_total", outcome="accepted")


def test_every_batch_names_the_model_that_answered(build: Callable[..., Line], digits: Digits) -> None:
    """After the model was replaced, results name the new one."""
    line = build()
    line.put("a.png", digits.png(0))
    assert {"version": "v0001", "sha256": "m" * 64} == line.answer("results", "a.png")["model"]
    line.model = named("v0002", "n" * 64)
    line.put("b.png", digits.png(0))
    assert {"version": "v0002", "sha256": "n" * 64} == line.answer("results", "b.png")["model"]


def test_a_young_file_that_is_no_image_waits_then_is_rejected(build: Callable[..., Line]) -> None:
    """Within the grace period it goes back to the inbox; unchanged after it, it is rejected."""
    line = build(INBOX__GRACE_SECONDS=3600.0)
    line.put("a.png", b"text", changed=line.root.stat().st_mtime)
    line.run_until(lambda: line.metric("digitd_stage_seconds_count", stage="decode") >= 2, "a second try")
    line.run_until(lambda: line.pipeline.idle, "the file to be back")
    assert ({"a.png"}, set()) == (line.names("inbox"), line.names("rejected"))
    os.utime(line.root / "inbox" / "a.png", (LONG_AGO, LONG_AGO))
    assert "not_an_image" == line.answer("rejected", "a.png")["reason"]


def test_a_young_file_that_cannot_be_given_back_is_tried_where_it_is(build: Callable[..., Line], digits: Digits) -> None:
    """Its name was dropped anew: it is rejected no sooner than any other, and then the second one has its turn."""
    line = build(INBOX__GRACE_SECONDS=3600.0)
    line.put("a.png", b"text", changed=line.root.stat().st_mtime)
    wait_until(lambda: line.pipeline.run_once(0) or line.names("work"), "the file to be claimed")
    line.put("a.png", digits.png(0))
    line.run_until(lambda: line.metric("digitd_stage_seconds_count", stage="decode") >= 2, "a second try")
    assert ({"a.png"}, set()) == (line.names("work"), line.names("rejected"))
    os.utime(line.root / "work" / "a.png", (LONG_AGO, LONG_AGO))
    assert "not_an_image" == line.answer("rejected", "a.png")["reason"]
    line.retirement.flush()
    assert digits.labels[0] == line.answer("results", "a.png")["digit"]


def test_an_image_that_takes_too_long_is_rejected_alone(build: Callable[..., Line], digits: Digits) -> None:
    """The others of its chunk have their results; it is told what to do, in a sentence."""
    line = build(INBOX__DECODE_SECONDS=0.05)
    page = encode(np.zeros((7000, 7000, 3), np.uint8), compress_level=1)
    line.put("slow.png", page)
    assert "too_slow" == (rejection := line.answer("rejected", "slow.png"))["reason"]
    assert "('" not in str(rejection["detail"])
    line.put("a.png", digits.png(0))
    assert digits.labels[0] == line.answer("results", "a.png")["digit"]


def test_a_missing_results_folder_costs_nothing(build: Callable[..., Line], digits: Digits) -> None:
    """The daemon is not ready, says why, makes the folder anew and goes on; the original stays meanwhile."""
    line = build()
    shutil.rmtree(line.root / "results")
    line.put("a.png", digits.png(0))
    line.run_until(lambda: line.readiness.reasons, "a reason")
    assert "results: " in line.readiness.reasons[0]
    assert {"a.png"} == line.names("work")
    assert 0 == line.metric("digitd_ready")
    assert digits.labels[0] == line.answer("results", "a.png")["digit"]
    line.run_until(lambda: not line.readiness.reasons, "to be ready again")
    assert 1 == line.metric("digitd_ready")


@pytest.mark.parametrize("folder", ["results", "rejected", "work"])
def test_a_folder_that_is_taken_away_before_originals_leave_is_made_anew(
    build: Callable[..., Line], digits: Digits, folder: str
) -> None:
    """Somebody clears it out, with all that is in it, between an answer and its sync: the intake opens again by itself."""
    line = build()
    line.put("a.png", digits.png(0))
    line.answer("results", "a.png")
    shutil.rmtree(line.root / folder)
    for _ in range(2):
        line.retirement.flush()
    assert [] == line.readiness.reasons
    line.put("b.png", digits.png(1))
    assert digits.labels[1] == line.answer("results", "b.png")["digit"]


def test_a_file_in_the_place_of_the_results_is_waited_for(build: Callable[..., Line], digits: Digits) -> None:
    """What is wrong with the machine is never the image's end, however many images there are."""
    line = build()
    shutil.rmtree(line.root / "results")
    (line.root / "results").touch()
    for number in range(20):
        line.put(f"{number}.png", digits.png(number))
    line.run_until(lambda: line.readiness.reasons, "a reason")
    assert set() == line.names("rejected")
    (line.root / "results").unlink()
    line.run_until(lambda: len(line.names("results")) == 20, "all results")


def test_originals_stay_in_work_while_processed_cannot_be_written(build: Callable[..., Line], digits: Digits) -> None:
    """Where the original cannot be moved it stays, the daemon is not ready, and later it is moved."""
    line = build()
    processed = line.root / "processed"
    processed.rmdir()
    processed.touch()
    line.put("a.png", digits.png(0))
    line.answer("results", "a.png")
    line.retirement.flush()
    assert {"a.png"} == line.names("work")
    assert "retire: " in line.readiness.reasons[0]
    processed.unlink()
    line.retirement.flush()
    assert {"a.png"} == line.names("processed")
    assert [] == line.readiness.reasons


def test_an_image_taken_out_of_work_is_let_go(root: Path, build: Callable[..., Line], digits: Digits) -> None:
    """Somebody deletes a claimed file: no result, no fault, and nothing waits for it."""
    (root / "work" / "a.png").write_bytes(digits.png(0))
    line = build()
    (root / "work" / "a.png").unlink()
    line.put("b.png", digits.png(1))
    line.answer("results", "b.png")
    line.run_until(lambda: line.pipeline.idle, "the books to be closed")
    assert {"b.png.json"} == line.names("results")
    assert [] == line.readiness.reasons


def test_readiness_names_every_reason() -> None:
    """Reasons come and go by source; it is ready when there is none."""
    readiness = Readiness(Metrics())
    assert ["start: the model is being loaded"] == readiness.reasons
    readiness.report("start", None)
    readiness.fault("results", OSError(28, "No space left on device"))
    readiness.report("inbox", "gone")
    assert ["inbox: gone", "results: [Errno 28] No space left on device"] == readiness.reasons
    readiness.report("results", None)
    readiness.report("inbox", None)
    assert [] == readiness.reasons


@pytest.mark.parametrize("wrong", [-600, 600])
def test_a_host_whose_clock_is_wrong_gives_no_file_up_early(
    build: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Whether a file is still being written is told by the clock of the file system, which may be another host's."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + wrong)
    line = build(INBOX__GRACE_SECONDS=60.0)
    line.put("a.png", b"text", changed=line.root.stat().st_mtime)
    line.run_until(lambda: line.metric("digitd_stage_seconds_count", stage="decode"), "a look")
    line.run_until(lambda: line.pipeline.idle, "the file to be back")
    assert ({"a.png"}, set()) == (line.names("inbox"), line.names("rejected"))


def test_decoders_that_are_lost_again_and_again_are_told(build: Callable[..., Line], digits: Digits) -> None:
    """Whoever ends them: the image is not given up, but it is said, and from then on tried once a second."""
    line = build()
    line.put("a.tif", encode(digits.images[0], "TIFF"))

    def lose() -> bool:
        line.pipeline.run_once(0)
        line.decoders.close()
        return any("lost 5 times in a row while they read a.tif" in reason for reason in line.readiness.reasons)

    wait_until(lose, "it to be told")
    assert {"a.tif"} == line.names("work")
    assert digits.labels[0] == line.answer("results", "a.tif")["digit"]
    assert set() == line.names("rejected")


def test_with_several_hosts_an_original_keeps_to_its_json(build: Callable[..., Line], digits: Digits) -> None:
    """Another host answered another image of the name first: JSON and original both have the digest in their names."""
    line = build()
    (line.root / "results" / "a.png.json").write_bytes(b'{"file": "a.png", "sha256": "of another"}\n')
    content = digits.png(0)
    line.put("a.png", content)
    tagged = f"a~{hashlib.sha256(content).hexdigest()[:8]}.png"
    assert "a.png" == line.answer("results", tagged)["file"]
    line.run_until(lambda: line.pipeline.idle, "the books to be closed")
    line.retirement.flush()
    assert {tagged} == line.names("processed")
