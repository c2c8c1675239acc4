"""The retraining loop with real trainings: what is learnt, and what the daemon does with the version."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from daemon.commands.init import lay_out
from daemon.config import Settings, load_settings
from daemon.models import making
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import Registry
from daemon.models.removal import remove_old
from daemon.training.candidates import Candidates
from daemon.training.scans import load_scans
from daemon.training.seen import read_labels
from tests.conftest import DENSE_LAYERS, REPOSITORY, Daemon, Digits, encode, make_root, wait_until


def small_root(folder: Path, seed: int = 1) -> Path:
    """A root that trains in seconds: 4,000 MNIST images, a dense network, and no champion yet."""
    make_root(folder)
    (folder / "datasets").unlink()
    (folder / "datasets").mkdir()
    with np.load(REPOSITORY / "datasets" / "mnist.npz") as full:
        np.savez(
            folder / "datasets" / "mnist.npz",
            x_train=full["x_train"][:4_000],
            y_train=full["y_train"][:4_000],
            x_test=full["x_test"][:2_000],
            y_test=full["y_test"][:2_000],
        )
    scans = load_scans("datasets/scans.npz", REPOSITORY)
    np.savez(
        folder / "datasets" / "scans.npz",
        grey=np.concatenate([picture.ravel() for picture in scans.pictures[::30]]),
        shape=[picture.shape for picture in scans.pictures[::30]],
        digit=scans.digits[::30],
        writer=scans.writers[::30],
    )
    text = (folder / "config.toml").read_text()
    text = text[: text.index("[[training.layers]]")] + DENSE_LAYERS + text[text.index("[retrain]") :]
    values = {
        "epochs": 3,
        "seed": seed,
        "scan_variants": 0,
        "synthetic_digits": 0,
        "synthetic_no_digits": 0,
        "steps": 60,
        "margin": 0.05,
        "review_margin": 0.1,
        "recall_floor": 0.5,
        "canary_accuracy": 0.6,
    }
    for key, value in values.items():
        text, found = re.subn(rf"^{key} = [\d.]+", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, f"{key} is {found} times in config.toml"
    (folder / "config.toml").write_text(text)
    for file in (folder / "models").glob("v*"):
        file.unlink()
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small root with a first version, trained by `digitd retrain`."""
    root = small_root(tmp_path_factory.mktemp("trained") / "root")
    done = digitd(root, "retrain")
    assert done.returncode == 0, done.stderr
    assert f"curves   {sys.prefix}/bin/tensorboard --logdir {root / 'logs' / 'tensorboard'}\n" in done.stdout
    return root


@pytest.fixture
def champion_root(trained: Path, tmp_path: Path) -> Path:
    """A copy of that root of one's own."""
    root = tmp_path / "root"
    shutil.copytree(trained, root, symlinks=True)
    return root


def digitd(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command on a root."""
    command = [sys.executable, "-m", "daemon", arguments[0], "-c", str(root / "config.toml"), *arguments[1:]]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def ledger(root: Path) -> list[dict[str, Any]]:
    """The lines of a root's ledger."""
    return list(Registry(root / "models").ledger.lines())


def correct_many(root: Path, digits: Digits, count: int, offset: int = 0) -> None:
    """Label `count` MNIST images, upside down, as what they are: a stream that the champion does not read."""
    for number in range(5_000 + offset, 5_000 + offset + count):
        folder = root / "corrections" / str(digits.labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        Path(folder / f"{number}.png").write_bytes(upside_down(digits, number))


def upside_down(digits: Digits, number: int) -> bytes:
    """A digit that the champion has never seen so, as a PNG."""
    return encode(np.ascontiguousarray(digits.images[number][::-1]))


def test_a_first_training_leaves_everything_that_was_promised(trained: Path) -> None:
    """Version, manifest, history as CSV and picture, TensorBoard events, report, ledger, and current.h5."""
    logs = trained / "logs"
    assert (trained / "models" / "current.h5").readlink() == Path("v0001.h5")
    assert (logs / "training" / "v0001" / "history.csv").read_text().startswith("epoch,accuracy,")
    assert (logs / "training" / "v0001" / "history.png").read_bytes().startswith(b"\x89PNG")
    assert list((logs / "tensorboard" / "v0001").rglob("events.out.tfevents.*")) != []
    report = json.loads((logs / "training" / "v0001" / "report.json").read_bytes())
    assert (report["verdict"], report["training"]["origin"]) == ("promoted", "from scratch")
    assert {"learnt": 9, "watched": 1, "judges": 3} == {name: len(of) for name, of in report["training"]["writers"].items()}
    assert (report["training"]["images_besides"], report["measured"]["scans"]["images"]) == (90, 30)
    assert [line["event"] for line in ledger(trained)] == ["begun", "made", "current", "promoted"]
    with h5py.File(trained / "models" / "v0001.h5") as file:
        assert "optimizer_weights" not in file


def test_nothing_to_learn_means_no_run(champion_root: Path) -> None:
    """The same data, configuration and corrections as at the last verdict: no training, and no version."""
    settings = load_settings(champion_root / "config.toml")
    run = Candidates(settings, Registry(settings.folder("models"))).run("scheduled", time.time())
    assert run.result == "nothing_to_learn"
    assert Registry(settings.folder("models")).names() == ["v0001"]


def test_the_shipped_model_has_learnt_what_it_is_shipped_with(tmp_path: Path) -> None:
    """In a fresh root the first night's training has nothing to learn, until the configuration or a correction differs."""
    lay_out(tmp_path / "new")
    config = tmp_path / "new" / "config.toml"
    registry = Registry(tmp_path / "new" / "models")
    registry.settle(registry.current())  # as the daemon does when it starts

    def has_learnt() -> bool:
        settings = load_settings(config)
        candidates = Candidates(settings, Registry(settings.folder("models")))
        return candidates._has_learnt("never seen", read_labels(settings, time.time()))

    assert has_learnt()
    config.write_text(config.read_text().replace("batch_size = 128", "batch_size = 64"))
    assert not has_learnt()
    config.write_text(config.read_text().replace("batch_size = 64", "batch_size = 128"))
    assert has_learnt()
    (tmp_path / "new" / "corrections" / "3").mkdir(parents=True, exist_ok=True)
    (tmp_path / "new" / "corrections" / "3" / "a.png").write_bytes(b"")
    assert not has_learnt()


def test_another_training_is_not_joined(champion_root: Path) -> None:
    """While one process holds the training lock, another is told so."""
    settings = load_settings(champion_root / "config.toml")
    with making.training(Registry(settings.folder("models"))), pytest.raises(TrainingUnderWay):
        Candidates(settings, Registry(settings.folder("models"))).run("by hand", time.time(), even_if_nothing_new=True)


def test_a_trainer_that_dies_is_a_failed_run_with_a_reason(champion_root: Path) -> None:
    """A layer that Keras does not know ends the child; ledger and run say so, and the champion stays."""
    config = champion_root / "config.toml"
    config.write_text(config.read_text().replace('layer = "Flatten"', 'layer = "Flattern"'))
    settings = load_settings(config)
    run = Candidates(settings, Registry(settings.folder("models"))).run("scheduled", time.time())
    assert run.result == "failed"
    assert "Flattern" in run.reason
    assert ledger(champion_root)[-1]["event"] == "failed"
    assert Registry(settings.folder("models")).current_name() == "v0001"


def test_a_killed_trainer_leaves_nothing_and_the_next_run_starts_cleanly(champion_root: Path) -> None:
    """SIGKILL in the middle: a failed run, no half version; what was begun is removed, and nothing else."""
    settings = load_settings(champion_root / "config.toml")
    registry = Registry(settings.folder("models"))
    making.unfinished(registry, making.begin(registry, "a test")).write_bytes(b"half a model")
    (registry.folder / "v0003.h5").write_bytes(b"somebody's own, without a manifest")
    with making.training(registry):
        assert sorted(path.name for path in registry.folder.glob("v*")) == ["v0001.h5", "v0001.json", "v0003.h5"]
    candidates = Candidates(settings, registry, on_progress=lambda _: kill_trainer(champion_root))
    run = candidates.run("scheduled", time.time(), even_if_nothing_new=True)
    assert run.result == "failed"
    assert "SIGKILL" in run.reason
    assert registry.names() == ["v0001"]


def kill_trainer(root: Path) -> None:
    """SIGKILL the trainer of one root."""
    found = subprocess.run(["pgrep", "-f", f"daemon.training.trainer.*{root}"], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)


def test_versions_beyond_the_retention_go_but_never_current_or_previous(settings: Settings) -> None:
    """Of five versions two are kept, and the current and the previous one besides."""
    registry = Registry(settings.folder("models"))
    manifest = (registry.folder / "v0001.json").read_bytes()
    for name in ("v0002", "v0003", "v0004", "v0005"):
        shutil.copy(registry.folder / "v0001.h5", registry.folder / f"{name}.h5")
        (registry.folder / f"{name}.json").write_bytes(manifest)
    registry.make_current("v0001", "test")
    registry.make_current("v0002", "test")
    assert remove_old(registry, 2) == ["v0003"]
    assert registry.names() == ["v0001", "v0002", "v0004", "v0005"]


def test_the_daemon_learns_swaps_and_goes_back(
    champion_root: Path, digits: Digits, run_daemon: Callable[..., Daemon]
) -> None:
    """The whole loop in a real daemon: upside-down digits, corrected 150 times, start a training; the candidate reads the
    held-back ones better, the swap is followed by every answer, rollback too.
    """
    daemon = run_daemon(champion_root, RETRAIN__AFTER_CORRECTIONS=100, RETRAIN__QUIET_SECONDS=1, INBOX__RESCAN_SECONDS=1)
    daemon.wait_ready()
    daemon.drop("before.png", upside_down(digits, 1))
    assert daemon.result("before.png")["model"]["version"] == "v0001"
    correct_many(champion_root, digits, 150)
    wait_until(lambda: daemon.metric("digitd_training_runs_total", result="promoted") == 1, daemon.log, 900)
    wait_until(lambda: daemon.metric("digitd_model_swaps_total", result="swapped") == 1, "the swap", 60)
    assert daemon.metric("digitd_training_epoch") > 0
    report = json.loads((champion_root / "logs" / "training" / "v0002" / "report.json").read_bytes())
    assert (report["training"]["origin"], report["verdict"]) == ("from v0001", "promoted")
    assert "newly right" in report["reason"]
    listing = digitd(champion_root, "models").stdout
    assert "from v0001" in listing
    assert "(current)" in listing.splitlines()[2]
    assert "(previous)" in listing.splitlines()[1]
    daemon.drop("after.png", upside_down(digits, 2))
    assert daemon.result("after.png")["model"]["version"] == "v0002"

    assert digitd(champion_root, "rollback").stdout == "v0002 -> v0001\n"
    wait_until(lambda: daemon.metric("digitd_model_swaps_total", result="rolled_back") == 1, "the rollback")
    daemon.drop("back.png", upside_down(digits, 3))
    assert daemon.result("back.png")["model"]["version"] == "v0001"

    (champion_root / "models" / "link").symlink_to("v0002.h5")
    (champion_root / "models" / "link").rename(champion_root / "models" / "current.h5")  # by hand
    wait_until(lambda: daemon.metric("digitd_model_swaps_total", result="rolled_back") == 2, "the move by hand")

    live = [line["version"] for line in ledger(champion_root) if line["event"] == "live"]
    assert live == ["v0001", "v0002", "v0001", "v0002"]
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + 1))
    assert digitd(champion_root, "models", "--live-at", now).stdout == "v0002\n"


def test_foreign_models_are_vetted(champion_root: Path, run_daemon: Callable[..., Daemon]) -> None:
    """One with NaN is refused with a reason and the daemon serves on; a sound one of one's own becomes a version."""
    daemon = run_daemon(champion_root).wait_ready()
    good = champion_root / "models" / "v0001.h5"
    bad = champion_root / "bad.h5"
    shutil.copy(good, bad)
    with h5py.File(bad, "r+") as file:
        file.visititems(lambda _, item: item.__setitem__(..., np.nan) if isinstance(item, h5py.Dataset) else None)
    done = digitd(champion_root, "promote", str(bad))
    assert (done.returncode, "finite weights" in done.stderr) == (1, True), done.stderr

    own = champion_root / "own.h5"
    shutil.copy(good, own)
    with h5py.File(own, "r+") as file:
        file.attrs["by"] = "somebody"  # else it would be v0001's file
    done = digitd(champion_root, "promote", str(own))
    assert (done.returncode, done.stdout) == (0, "v0001 -> v0003\n"), done.stderr
    wait_until(lambda: daemon.metric("digitd_model_swaps_total", result="swapped") == 1, daemon.log)

    with (champion_root / "models" / "v0001.h5").open("r+b") as file:
        file.seek(4_000)
        file.write(bytes(2_000))
    done = digitd(champion_root, "promote", "v0001")
    assert (done.returncode, "sha256" in done.stderr) == (1, True), done.stderr
    assert daemon.get("/readyz")[0] == 200


@pytest.fixture
def run_daemon() -> Any:
    """Starts a daemon on a given root, and ends it when the test does."""
    started: list[Daemon] = []

    def start(root: Path, **overrides: object) -> Daemon:
        started.append(Daemon(root, **overrides))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()
