"""trainer.py: a real, tiny training in its own process."""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.config import load_settings
from daemon.files import file_sha256
from daemon.models.network import read_model
from daemon.models.registry import Registry
from daemon.training.job import STOPPED, Job
from daemon.training.synthetic import draw_no_digits
from daemon.training.trainer import main
from tests.conftest import DENSE_LAYERS, REPOSITORY, Digits, encode, files_below, make_root, wait_until
from tests.training.test_corrections import put

TRAINING = """
[training]
dataset = "small.npz"
scans = ""
synthetic_digits = 0
synthetic_no_digits = 0
epochs = 2
batch_size = 32
patience = 2
"""


def make_small(folder: Path, digits: Digits) -> Path:
    """A root with a dense network and 400 + 100 images."""
    root = make_root(folder)
    x, y = digits.images[:500], np.array(digits.labels[:500])
    np.savez(root / "small.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    (root / "config.toml").write_text(TRAINING + DENSE_LAYERS)
    return root


def start(root: Path, **overrides: object) -> subprocess.Popen[str]:
    """Start the trainer's process for v0002."""
    given = {f"DIGITD_{key}": str(value) for key, value in overrides.items()}
    job = Job(load_settings(root / "config.toml", given).to_text(), "v0002")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(job.command(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """A root after two epochs."""
    root = make_small(tmp_path_factory.mktemp("trained"), digits)
    for number, pixels in enumerate(draw_no_digits(40, seed=5).x):
        put(root / "corrections", "none", f"{number}.png", encode(pixels))
    with start(root) as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return root


def test_a_training_writes_a_version(trained: Path) -> None:
    """The new version loads, is what its manifest says, and is not current by itself."""
    version = Registry(trained / "models").version("v0002")
    model = read_model(version.path)
    assert ["Flatten", "Dense", "Dense"] == [type(layer).__name__ for layer in model.layers]
    assert "RandomUniform" == type(model.layers[1].kernel_initializer).__name__
    assert not (trained / "models" / "current.h5").exists()
    assert {"v0001.h5", "v0001.json", "v0002.h5", "v0002.json", "ledger.jsonl"} == files_below(trained / "models")


def test_the_manifest_tells_how_it_was_trained(trained: Path) -> None:
    """Data, layers, settings, epochs and the accuracy on the hold-out are in it, and report.json has all of it."""
    manifest = json.loads((trained / "models" / "v0002.json").read_bytes())
    assert file_sha256(trained / "models" / "v0002.h5") == manifest["sha256"]
    assert ["Flatten", "Dense", "Dense"] == [layer["layer"] for layer in manifest["layers"]]
    assert (360, 40, 2) == tuple(manifest["training"][key] for key in ("images", "validation_images", "epochs_run"))
    assert 100 == manifest["holdout"]["images"] == sum(map(sum, manifest["holdout"]["confusion"]))
    assert 0.2 < manifest["holdout"]["accuracy"] <= 1  # two epochs on 360 images: better than chance
    none = manifest["corrections"]["none"]
    assert (none["training"] + none["validation"] + none["gate"], none["gate"] > 0, manifest["corrections"]["gate"]) == (
        40,
        True,
        0,
    )
    assert 0 <= none["held_back"] <= 1
    assert 0 <= manifest["holdout"]["held_back"] <= 1
    report = json.loads((trained / "logs" / "training" / "v0002" / "report.json").read_bytes())
    assert manifest == {key: report[key] for key in manifest} | {"corrections": manifest["corrections"]}


def test_the_history_is_kept(trained: Path) -> None:
    """history.csv has a row an epoch with both losses, and history.png is a picture."""
    logs = trained / "logs" / "training" / "v0002"
    with (logs / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert ["0", "1"] == [row["epoch"] for row in rows]
    assert all(float(row[name]) > 0 for row in rows for name in ("loss", "val_loss"))
    with Image.open(logs / "history.png") as picture:
        picture.load()
        assert picture.width > 500
    progress = json.loads((logs / "progress.json").read_bytes())
    assert (2, 2) == (progress["epoch"], progress["epochs"])


def test_tensorboard_events_are_written(trained: Path) -> None:
    """Training and validation have their event files."""
    events = (trained / "logs" / "tensorboard" / "v0002").rglob("events.out.tfevents.*")
    assert {"train", "validation"} <= {path.parent.name for path in events if path.stat().st_size}


def test_sigterm_ends_a_training_without_a_version(tmp_path: Path, digits: Digits) -> None:
    """It ends soon, says so, and leaves nothing in models/."""
    root = make_small(tmp_path / "root", digits)
    with start(root, TRAINING__EPOCHS=100_000, TRAINING__PATIENCE=100_000) as process:
        progress = root / "logs" / "training" / "v0002" / "progress.json"
        wait_until(lambda: progress.exists() or process.poll() is not None, "the first epoch", 120)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED, output
    assert {"v0001.h5", "v0001.json"} == set(os.listdir(root / "models"))


def test_a_training_that_cannot_be_is_told_in_a_sentence(
    tmp_path: Path, digits: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing data set: exit code 2, and nothing is left in models/."""
    root = make_small(tmp_path / "root", digits)
    settings = load_settings(root / "config.toml", {"DIGITD_TRAINING__DATASET": "none.npz"})
    assert main(Job(settings.to_text(), "v0002").command()[-1:]) == 2
    assert "[training] dataset: expected" in capsys.readouterr().err
    assert {"v0001.h5", "v0001.json"} == set(os.listdir(root / "models"))


def test_layers_that_cannot_be_are_told_before_the_data_are_made(
    tmp_path: Path, digits: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    """To draw and to normalise them takes a minute: nobody waits for it to learn of a slip of the pen."""
    root = make_small(tmp_path / "root", digits)
    (root / "config.toml").write_text(TRAINING + DENSE_LAYERS.replace('"Dense"', '"Densse"'))
    settings = load_settings(root / "config.toml", {"DIGITD_TRAINING__DATASET": "none.npz"})
    assert main(Job(settings.to_text(), "v0002").command()[-1:]) == 2
    assert "Received: 'Densse'" in capsys.readouterr().err
