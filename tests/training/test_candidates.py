"""candidates.py: which champion is challenged, what the verdict goes by, and what is kept of it; without processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.config import Settings
from daemon.files import file_sha256
from daemon.models import making
from daemon.models.manifest import Manifest
from daemon.models.registry import Registry
from daemon.training.candidates import Candidates, Run
from daemon.training.job import Job, TrainingEnded, run_job
from daemon.training.labels import read_learnt
from daemon.training.trainer import TOLD
from tests.conftest import REPOSITORY, Digits, as_ordinary_user
from tests.training.test_corrections import put

IMAGES = 10_000
HOLDOUT, DATASET = "a" * 64, "b" * 64


class Child:
    """What the trainer's process leaves behind: a version, and how it and the champion did, as it is told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(settings.folder("models"))
        self.jobs: list[Job] = []
        self.right, self.champion_right = 9_970, 9_960  # of the hold-out; of 10 corrections all and none
        self.held = self.champion_held = 60  # of the hold-out, for review
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, job: Job, logs: Path, **_: Any) -> None:
        """Do a job."""
        self.jobs.append(job)
        self.meanwhile()
        written = making.unfinished(self.registry, job.version)
        shutil.copyfile(REPOSITORY / "models" / "v0001.h5", written)
        manifest: dict[str, Any] = {
            "schema": 1,
            "version": job.version,
            "sha256": file_sha256(written),
            "created_at": "2026-11-23T08:00:00Z",
            "parameters": 1,
            "training": {"dataset_sha256": DATASET, "seconds": 1.0},
            "holdout": {"sha256": HOLDOUT, "images": IMAGES, "accuracy": self.right / IMAGES},
        }
        making.finish(self.registry, Manifest.parse(json.dumps(manifest).encode()))
        report = manifest | {"champion": job.champion, "champion_holdout_accuracy": None, "champion_holdout_held": None}
        report["corrections"] = {"accuracy": 1.0, "left_out": []}
        if job.champion:
            report["champion_holdout_accuracy"] = self.champion_right / IMAGES
            report["champion_holdout_held"] = self.champion_held / IMAGES
            truth = np.arange(IMAGES) % 10
            wrong = (truth + 1) % 10
            few = np.zeros(10, np.int64)
            np.savez(
                logs / "answers.npz",
                holdout_truth=truth,
                holdout_champion=np.where(np.arange(IMAGES) < self.champion_right, truth, wrong),
                holdout_candidate=np.where(np.arange(IMAGES) < self.right, truth, wrong),
                **{f"none_{whose}": few[:0] for whose in TOLD},
                **{f"corrections_held_{whose}": few > 0 for whose in TOLD},
                holdout_held_truth=truth < 0,
                holdout_held_champion=np.arange(IMAGES) < self.champion_held,
                holdout_held_candidate=np.arange(IMAGES) < self.held,
                corrections_truth=few,
                corrections_champion=few + 1,
                corrections_candidate=few,
            )
        (logs / "report.json").write_text(json.dumps(report))


@pytest.fixture
def child(settings: Settings) -> Child:
    """Its results can be changed between two trainings."""
    return Child(settings)


def train(child: Child, even_if_nothing_new: bool = True) -> Run:
    """One training."""
    candidates = Candidates(child.settings, child.registry, run_child=child)
    return candidates.run("a test", 1_700_000_000.0, even_if_nothing_new=even_if_nothing_new)


def test_the_champion_is_what_a_daemon_would_answer_with(child: Child) -> None:
    """On a root whose daemon never ran, a network of 10 % meets the shipped version, and is refused."""
    child.right = 1_000
    assert train(child).result == "refused"
    assert [job.champion for job in child.jobs] == ["v0001"]
    assert child.registry.current_name() == "v0001"


def test_a_promotion_can_be_rolled_back_where_no_daemon_ever_ran(child: Child) -> None:
    """The shipped version is the one before."""
    assert train(child).result == "promoted"
    assert (child.registry.current_name(), child.registry.previous_name()) == ("v0002", "v0001")
    assert [line["event"] for line in child.registry.ledger.lines()][-2:] == ["current", "promoted"]


def test_what_was_decided_stands_where_it_cannot_be_written_down(child: Child, caplog: pytest.LogCaptureFixture) -> None:
    """A file system without hard links, or a full disk, made a failed training of one whose candidate answers."""
    logs = child.settings.folder("logs")
    child.meanwhile = (logs / "learnt.txt").mkdir
    assert train(child).result == "promoted"
    assert (child.registry.current_name(), [*child.registry.ledger.lines()][-1]["event"]) == ("v0002", "promoted")
    assert "v0002: [Errno 21] Is a directory" in caplog.text


def test_what_was_learnt_is_written_where_the_report_cannot_be(child: Child) -> None:
    """Else the corrections that it came for would be new ones again at the next start."""
    kept = child.settings.folder("logs") / "training" / "v0002"

    def run_child(job: Job, logs: Path, **_: Any) -> None:
        child(job, logs)
        if subprocess.run(["chattr", "+i", kept], check=False, capture_output=True).returncode:
            pytest.skip("needs root, and a file system with immutable files")

    label = 7, "ab" * 32
    try:
        candidates = Candidates(child.settings, child.registry, run_child=run_child)
        assert "promoted" == candidates.run("a test", 1_700_000_000.0, labels={label}, even_if_nothing_new=True).result
        assert [label] == list(read_learnt(child.settings))
    finally:
        subprocess.run(["chattr", "-i", kept], check=False, capture_output=True)


def test_without_any_version_the_first_is_promoted(child: Child) -> None:
    """There is nobody to compare it with."""
    for file in child.registry.folder.glob("v*"):
        file.unlink()
    run = train(child)
    assert (run.result, child.jobs[0].champion, child.registry.current_name()) == ("promoted", None, run.version)


def test_where_no_version_can_be_used_nobody_is_promoted_unchallenged(child: Child) -> None:
    """A damaged champion is no reason to take anything."""
    (child.registry.folder / "v0001.h5").write_bytes(b"damaged")
    run = train(child)
    assert (run.result, child.jobs) == ("failed", [])
    assert "v0001.h5" in run.reason


def test_small_losses_do_not_add_up_night_by_night(child: Child) -> None:
    """The margin counts from the best that ever was live on this hold-out, the shipped version included."""
    verdicts = []
    for _ in range(3):
        child.right = child.champion_right - 15  # a loss within the margin of 25
        run = train(child)
        verdicts.append(run.result)
        if run.result == "promoted":
            child.champion_right = child.right
    assert verdicts == ["promoted", "refused", "refused"]
    assert "the best ever live, 99.60%" in run.reason


def test_a_little_more_to_look_at_does_not_add_up_night_by_night(child: Child) -> None:
    """The margin counts from the fewest that were held back by any version that was live, under today's limits."""
    verdicts = []
    for _ in range(3):
        child.held = child.champion_held + 90  # within the margin of 100
        run = train(child)
        verdicts.append(run.result)
        if run.result == "promoted":
            child.champion_held = child.held
    assert verdicts == ["promoted", "refused", "refused"]
    assert "the fewest ever live, 0.60%" in run.reason
    limits = child.settings.inference.model_copy(update={"review_below": 0.95})
    child.settings = child.settings.model_copy(update={"inference": limits})
    assert "promoted" == train(child).result


@pytest.mark.parametrize("content", [None, b"", b"[]"])
def test_a_bad_manifest_of_an_old_version_hinders_no_verdict(child: Child, content: bytes | None) -> None:
    """Of what was live once, a manifest that is damaged, or a folder now, is passed over."""
    train(child)
    train(child)
    manifest = child.registry.folder / "v0001.json"
    manifest.unlink()
    manifest.write_bytes(content) if content is not None else manifest.mkdir()
    retention = child.settings.retention.model_copy(update={"versions": 2})
    child.settings = child.settings.model_copy(update={"retention": retention}).read_from(child.settings.file)
    assert [train(child).result for _ in range(2)] == ["promoted", "promoted"]
    assert {"v0001", "v0004", "v0005"} == set(child.registry.names())


def test_versions_that_are_damaged_meanwhile_are_an_end_with_a_sentence(child: Child) -> None:
    """The training failed, and the ledger says why."""

    def train_and_damage(job: Job, logs: Path, **_: Any) -> None:
        child(job, logs)
        for file in child.registry.folder.glob("v*.h5"):
            file.write_bytes(b"damaged")

    run = Candidates(child.settings, child.registry, run_child=train_and_damage).run("a test", 0.0, even_if_nothing_new=True)
    line = list(child.registry.ledger.lines())[-1]
    assert (run.result, line["event"], line["reason"]) == ("failed", "failed", run.reason)
    assert "v0001.h5" in run.reason


def test_the_best_outlives_its_version(child: Child) -> None:
    """Each verdict keeps it: retention does not let it be forgotten."""
    child.right = 9_945
    assert train(child).result == "promoted"
    for file in child.registry.folder.glob("v0001.*"):
        file.unlink()
    child.champion_right, child.right = 9_945, 9_930
    assert train(child).result == "refused"


@pytest.mark.parametrize("right", [9_970, 9_000])
def test_a_rollback_during_a_training_is_not_overridden(child: Child, right: int) -> None:
    """The candidate was judged against a champion that is champion no longer: another is made and judged against the new."""
    assert train(child).result == "promoted"
    child.right = right
    child.meanwhile = lambda: child.registry.current_name() == "v0002" and child.registry.roll_back()
    run = train(child)
    assert [job.champion for job in child.jobs] == ["v0001", "v0002", "v0001"]
    assert run.version == "v0004"
    assert child.registry.current_name() == ("v0004" if right == 9_970 else "v0001")
    overtaken = next(line for line in child.registry.ledger.lines() if line["event"] == "overtaken")
    assert overtaken["reason"] == "v0003: expected v0002 to be the champion still. Received: v0001."


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_model_that_a_person_puts_in_the_place_of_current_is_not_overridden(child: Child, meanwhile: bool) -> None:
    """It is a choice as a promotion is, and comes first: no candidate takes its place, and none is made before."""
    assert train(child).result == "promoted"
    current = child.registry.folder / "current.h5"

    def put_own() -> None:
        current.unlink()
        current.write_bytes(b"somebody's own model")

    if meanwhile:
        child.meanwhile = put_own
    else:
        put_own()
    with pytest.raises(making.TrainingUnderWay, match="somebody's own, which a daemon that runs takes in"):
        train(child)
    assert current.read_bytes() == b"somebody's own model"
    assert len(child.jobs) == 1 + meanwhile
    assert child.registry.current().name == "v0002"


def test_a_model_that_a_person_puts_there_comes_before_a_first_version(child: Child) -> None:
    """Where there was none to be judged against, too."""
    for path in child.registry.folder.glob("v0001.*"):
        path.unlink()
    current = child.registry.folder / "current.h5"
    child.meanwhile = lambda: current.write_bytes(b"somebody's own model")
    with pytest.raises(making.TrainingUnderWay, match="somebody's own, which a daemon that runs takes in"):
        train(child)
    assert current.read_bytes() == b"somebody's own model"


def test_the_same_again_is_nothing_to_learn(child: Child, digits: Digits) -> None:
    """Until there is another correction, or one moved to another digit."""
    train(child)
    assert train(child, even_if_nothing_new=False).result == "nothing_to_learn"
    path = put(child.settings.folder("corrections"), 3, "a.png", digits.png(0))
    assert train(child, even_if_nothing_new=False).result != "nothing_to_learn"
    assert train(child, even_if_nothing_new=False).result == "nothing_to_learn"
    path.rename(put(child.settings.folder("corrections"), 4, "a.png", b""))
    assert train(child, even_if_nothing_new=False).result != "nothing_to_learn"


def test_new_images_in_a_folder_data_set_are_something_to_learn(child: Child, digits: Digits) -> None:
    """And nothing else is."""
    data = child.settings.root / "mine"
    put(data, 3, "a.png", digits.png(0))
    training = child.settings.training.model_copy(update={"dataset": "mine"})
    child.settings = child.settings.model_copy(update={"training": training}).read_from(child.settings.file)
    train(child)
    assert train(child, even_if_nothing_new=False).result == "nothing_to_learn"
    put(data, 3, "b.png", digits.png(1))
    assert train(child, even_if_nothing_new=False).result != "nothing_to_learn"


def test_a_folder_data_set_is_looked_at_as_it_is_read(child: Child, open_path: Path, digits: Digits) -> None:
    """A digit's folder may be a link, and what is hidden, such as an editor's dangling lock, is nothing."""
    data = child.settings.root / "mine"
    put(open_path, 3, "a.png", digits.png(0))
    data.mkdir()
    (data / "3").symlink_to(open_path / "3")
    (open_path / "3" / ".#a.png").symlink_to("nobody@nowhere")
    training = child.settings.training.model_copy(update={"dataset": "mine"})
    child.settings = child.settings.model_copy(update={"training": training}).read_from(child.settings.file)
    train(child)
    assert train(child, even_if_nothing_new=False).result == "nothing_to_learn"
    put(open_path, 3, "b.png", digits.png(1))
    assert train(child, even_if_nothing_new=False).result != "nothing_to_learn"


def test_what_is_wrong_with_a_data_set_is_the_trainings_to_say(child: Child) -> None:
    """A link in it that leads nowhere ended each training before it began, without a word in the ledger."""
    data = child.settings.root / "mine" / "3"
    data.mkdir(parents=True)
    (data / "a.png").symlink_to("nowhere")
    training = child.settings.training.model_copy(update={"dataset": "mine"})
    child.settings = child.settings.model_copy(update={"training": training}).read_from(child.settings.file)
    assert "promoted" == train(child, even_if_nothing_new=False).result


def test_what_a_training_looked_at_is_remembered_if_it_came_to_a_verdict(child: Child, digits: Digits) -> None:
    """A stopped one has used nothing up, and neither has one that failed, as on a full disk."""
    put(child.settings.folder("corrections"), 3, "a.png", digits.png(0))

    def end(result: str) -> None:
        raise TrainingEnded(result, "so it was told")

    for result in ("stopped", "failed"):
        child.meanwhile = lambda: end(result)  # noqa: B023 -- it is called before the next one
        assert (train(child).result, len(read_learnt(child.settings))) == (result, 0)
    child.meanwhile = lambda: None
    assert (train(child).result, len(read_learnt(child.settings))) == ("promoted", 1)


class Silent(Job):
    """A trainer that fails at once, without a word."""

    def command(self) -> list[str]:
        return ["false"]


def run_silent(logs: Path) -> None:
    """Run it to its end."""
    run_job(Silent("", "v0002"), logs, lock=0, stop=threading.Event(), max_hours=1.0, on_progress=lambda _: None)


def test_a_trainer_without_words_is_told_of_with_the_room_there_is(tmp_path: Path) -> None:
    """On a full disk its log takes none; the one who is paged reads what to look at."""
    with pytest.raises(TrainingEnded, match=r"exit code 1; it left no words, and \d+ MiB are free"):
        run_silent(tmp_path)


def test_a_cleared_folder_for_temporary_files_keeps_no_trainer_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody touched for ten days is removed by systemd, and a daemon goes on for years."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "cleared"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "cleared"))
    with pytest.raises(TrainingEnded):
        run_silent(tmp_path)


def test_an_unreadable_correction_does_not_fail_the_training(child: Child, open_path: Path, digits: Digits) -> None:
    """The other corrections are learnt, and their labels remembered."""
    root = open_path / "root"
    shutil.copytree(child.settings.root, root, symlinks=True)
    child = Child(child.settings.model_copy().read_from(root / "config.toml"))
    put(root / "corrections", 3, "secret.png", digits.png(0)).chmod(0)
    put(root / "corrections", 4, "good.png", digits.png(1))
    for path in (root, *root.rglob("*")):
        if not path.is_symlink() and path.name != "secret.png":
            path.chmod(0o777)
    with as_ordinary_user():
        assert train(child).result == "promoted"
    assert [digit for digit, _ in read_learnt(child.settings)] == [4]


def test_logs_leave_with_their_versions(child: Child) -> None:
    """Of removed versions, and of trainings that gave none, as many logs are kept as versions; other files stay."""
    logs = child.settings.folder("logs")
    for kind in ("training", "tensorboard"):
        for name in ("v0001", *(f"v{number}" for number in range(5001, 5025)), "mine"):
            (logs / kind / name).mkdir(parents=True)
    train(child)
    expected = {"v0001", "mine", *(f"v{number}" for number in range(5005, 5025))}
    assert expected == {path.name for path in (logs / "tensorboard").iterdir()}
    assert expected == {path.name for path in (logs / "training").iterdir()} - {"v0002"}
