"""The child process that trains one version: fit, EarlyStopping, TensorBoard, history, evaluate, save.

Its `main` takes a Job as JSON. What it learns leaves it as files: the history and the curves in logs/training/<version>/,
TensorBoard events in logs/tensorboard/<version>/, and in models/ the .h5, then its manifest.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np

from daemon.clock import timestamp
from daemon.config import Augmentation, ConfigError, Settings, TrainingSettings, load_settings
from daemon.files import file_sha256, write_durably
from daemon.models import CLASSES
from daemon.models.backend import keras, tf
from daemon.models.calibration import calibrate
from daemon.models.manifest import Manifest
from daemon.models.network import ModelError, as_input, build_model, find_optimizer, read_model
from daemon.models.registry import Registry, RegistryError
from daemon.models.version import Version
from daemon.telemetry.drift import describe_reference
from daemon.training.augmentation import augment
from daemon.training.corrections import load_corrections
from daemon.training.dataset import Split, load_base_data, split_validation
from daemon.training.evaluation import evaluate, saved_logits
from daemon.training.job import STOPPED, WRONG_SETTINGS, Job
from daemon.training.synthetic import NO_DIGIT, draw_digits, draw_no_digits

FINE_EPOCHS = 12  # a champion's further steps are parted into so many epochs, for early stopping to look at
PR_SET_PDEATHSIG = 1
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # ioprio_set(2), which has no wrapper in libc
IOPRIO_WHO_PROCESS, IOPRIO_CLASS_IDLE = 1, 3
libc = ctypes.CDLL(None)


class TrainingFailed(Exception):
    """The training gave no usable model; the message says why."""


class TrainingStopped(Exception):
    """SIGTERM came before there was a version."""


def compile_model(model: keras.Sequential, settings: TrainingSettings, learning_rate: float, steps: int) -> None:
    """Compile with the configured optimizer and loss; the learning rate warms up to its peak, then falls as a cosine to 0.

    Raises:
        ConfigError: Keras knows no such optimizer.

    """
    optimizer = find_optimizer(settings.optimizer)
    warmup = max(1, round(settings.warmup_share * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    model.compile(optimizer=optimizer(learning_rate=rate), loss=settings.loss, weighted_metrics=[DigitAccuracy()])


def targets(labels: np.ndarray) -> np.ndarray:
    """What the network should answer: (n,) labels to (n, 10) probabilities; for NO_DIGIT all ten digits alike."""
    return np.vstack([np.eye(CLASSES, dtype=np.float32), np.full(CLASSES, 1 / CLASSES, np.float32)])[labels]


class DigitAccuracy(keras.metrics.CategoricalAccuracy):
    """The share of the digits that are read right; what is no digit does not count."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Count a batch of (n, 10) targets and (n, 10) probabilities, with (n,) weights or none."""
        counts = tf.cast(tf.reduce_max(y_true, axis=1) > 0.5, tf.float32)
        super().update_state(y_true, y_pred, counts if sample_weight is None else counts * sample_weight)


def with_synthetic(data: Split, settings: TrainingSettings) -> Split:
    """Add drawn digits, and drawn things labelled NO_DIGIT."""
    digits, labels = draw_digits(settings.synthetic_digits, settings.seed)
    others = draw_no_digits(settings.synthetic_no_digits, settings.seed)
    return Split(
        np.concatenate([data.x, digits, others]),
        np.concatenate([data.y, labels, np.full(len(others), NO_DIGIT, data.y.dtype)]),
    )


def training_batches(
    base: Split, corrections: Split, batch_size: int, share: float, augmentation: Augmentation, seed: int
) -> tf.data.Dataset:
    """Endless shuffled, augmented batches of (x, y): x (n, 28, 28, 1) float32 in 0..1, y (n, 10) float32.

    Args:
        base: what most of each batch is taken from.
        corrections: what `share` of each batch is taken from, where there are any.
        batch_size: n.
        share: 0 to 1.
        augmentation: how much each image is changed.
        seed: of the shuffling.

    """

    def stream(data: Split, size: int) -> tf.data.Dataset:
        images = tf.data.Dataset.from_tensor_slices((data.x, targets(data.y)))
        return images.shuffle(len(data), seed=seed).repeat().batch(size)

    corrected = max(1, round(share * batch_size)) if len(corrections) else 0
    batches = stream(base, batch_size - corrected)
    if corrected:
        batches = tf.data.Dataset.zip(batches, stream(corrections, corrected)).map(
            lambda one, other: (tf.concat([one[0], other[0]], 0), tf.concat([one[1], other[1]], 0))
        )
    return batches.map(lambda x, y: (augment(x, augmentation), y), num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        tf.data.AUTOTUNE
    )


def validation_data(base: Split, corrections: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, weights) that early stopping watches: the corrections, if any, weigh as much as all of the base data."""
    x = np.concatenate([base.x, corrections.x])
    y = np.concatenate([base.y, corrections.y])
    weights = np.ones(len(x), np.float32)
    if len(corrections):
        weights[len(base) :] = len(base) / len(corrections)
    return as_input(x), targets(y), weights


class ReportProgress(keras.callbacks.Callback):
    """Writes progress.json after each epoch: the epoch and the values of its history."""

    def __init__(self, path: Path, epochs: int) -> None:
        super().__init__()
        self._path, self._epochs = path, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        write_durably(self._path, json.dumps({"epoch": epoch + 1, "epochs": self._epochs, **values}).encode())


@dataclass(frozen=True)
class Course:
    """How long a training goes on: from scratch over all the base data, or some steps on from the champion.

    Attributes:
        model: what is trained.
        origin: in words.
        epochs, steps: at most so many epochs of so many batches.
        learning_rate: at its peak.
        patience: epochs without a better val_loss.

    """

    model: keras.Sequential
    origin: str
    epochs: int
    steps: int
    learning_rate: float
    patience: int


def choose_course(settings: Settings, champion: Version | None, images: int) -> Course:
    """Start from the champion where its architecture is the one that is configured; else from scratch."""
    chosen, again = settings.training, settings.retrain
    if champion and champion.manifest.layers == [layer.model_dump() for layer in chosen.layers]:
        steps = -(-again.steps // FINE_EPOCHS)
        model = read_model(champion.path)
        return Course(model, f"from {champion.name}", FINE_EPOCHS, steps, again.learning_rate, again.patience)
    steps = -(-images // chosen.batch_size)
    return Course(build_model(chosen.layers), "from scratch", chosen.epochs, steps, chosen.learning_rate, chosen.patience)


def train(job: Job, settings: Settings) -> Path:
    """Train and write the version, its history and its report.

    Returns:
        The path of the .h5.

    Raises:
        ConfigError: the data set, a layer or the optimizer is not usable.
        TrainingFailed: the weights are not finite.
        TrainingStopped: SIGTERM came.

    """
    started = time.monotonic()
    chosen = settings.training
    registry = Registry(settings.folder("models"))
    logs = settings.folder("logs") / "training" / job.version
    logs.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(chosen.seed)

    base = load_base_data(chosen.dataset, settings.root, settings.inbox)
    corrections = load_corrections(settings.folder("corrections"), settings.inbox)
    training, validation = split_validation(base.train, chosen.validation_share)
    learned = with_synthetic(training, chosen)
    champion = registry.version(job.champion) if job.champion else None
    course = choose_course(settings, champion, len(learned) + len(corrections.train))
    model = course.model
    compile_model(model, chosen, course.learning_rate, course.epochs * course.steps)
    stopped = stop_on_sigterm(model)
    if job.verbose:
        model.summary()
        print(f"{job.version} {course.origin}: {len(training)} base images, {len(corrections.train)} corrections")

    early = keras.callbacks.EarlyStopping(
        monitor="val_loss", mode="auto", patience=course.patience, restore_best_weights=True
    )
    history = model.fit(
        training_batches(
            learned,
            corrections.train,
            chosen.batch_size,
            settings.retrain.corrections_share,
            chosen.augmentation,
            chosen.seed,
        ),
        validation_data=validation_data(validation, corrections.validation),
        epochs=course.epochs,
        steps_per_epoch=course.steps,
        shuffle=False,  # the pipeline shuffles
        verbose=job.verbose,
        callbacks=[
            early,
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.TensorBoard(log_dir=str(settings.folder("logs") / "tensorboard" / job.version)),
            keras.callbacks.CSVLogger(str(logs / "history.csv")),
            ReportProgress(logs / "progress.json", course.epochs),
        ],
    )
    stopped.check()
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise TrainingFailed("the loss became NaN or infinite; lower the learning rate")
    draw_history(history.history, logs / "history.png", f"{job.version}, {course.origin}")

    holdout, corrected = evaluate(model, base.test), evaluate(model, corrections.gate)
    stopped.check()
    before = read_model(champion.path) if champion else None
    holdout_before = evaluate(before, base.test) if before else None
    corrected_before = evaluate(before, corrections.gate) if before else None
    if holdout_before and corrected_before:
        np.savez(
            logs / "answers.npz",
            holdout_truth=base.test.y.astype(np.int64),
            holdout_champion=holdout_before.answers,
            holdout_candidate=holdout.answers,
            corrections_truth=corrections.gate.y.astype(np.int64),
            corrections_champion=corrected_before.answers,
            corrections_candidate=corrected.answers,
        )
    stopped.check()
    path = registry.unfinished(job.version)
    model.save(path, include_optimizer=False)
    logits = saved_logits(path, validation)
    calibration = calibrate(logits, validation.y)
    manifest = {
        "schema": 1,
        "version": job.version,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "created_at": timestamp(time.time()),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "parameters": model.count_params(),
        "layers": [layer.model_dump() for layer in chosen.layers],
        "calibration": asdict(calibration),
        "training": {
            **chosen.model_dump(exclude={"layers"}),
            "dataset_sha256": base.sha256,
            "origin": course.origin,
            "images": len(training),
            "validation_images": len(validation),
            "epochs_run": len(history.epoch),
            "best_epoch": early.best_epoch + 1,
            "steps_per_epoch": course.steps,
            "seconds": round(time.monotonic() - started, 1),
        },
        "holdout": {
            "images": len(base.test),
            "loss": round(holdout.loss, 6),
            "accuracy": round(holdout.accuracy, 6),
            "recall": [round(value, 6) for value in holdout.recall],
        },
        "reference": describe_reference(validation.x, calibration.apply(logits)[0]),
        "corrections": {
            "training": len(corrections.train),
            "validation": len(corrections.validation),
            "gate": len(corrections.gate),
            "accuracy": round(corrected.accuracy, 6) if len(corrections.gate) else None,
        },
    }
    left_out = {"conflicts": corrections.conflicts, "refused": corrections.refused}
    report = {
        **manifest,
        "champion": job.champion,
        "champion_holdout_accuracy": round(holdout_before.accuracy, 6) if holdout_before else None,
        "corrections": {**manifest["corrections"], **left_out},
    }
    write_durably(logs / "report.json", json.dumps(report, indent=2).encode() + b"\n")
    return registry.finish(Manifest.parse(json.dumps(manifest).encode()))


class StopRequest:
    """Whether SIGTERM came."""

    def __init__(self) -> None:
        self.came = False

    def check(self) -> None:
        """Raise TrainingStopped if it did."""
        if self.came:
            raise TrainingStopped("SIGTERM came")


def stop_on_sigterm(model: keras.Model) -> StopRequest:
    """Make SIGTERM end fit after the batch it is in."""
    request = StopRequest()

    def stop(_number: int, _frame: object) -> None:
        request.came = True
        model.stop_training = True

    signal.signal(signal.SIGTERM, stop)
    return request


def yield_to_others() -> None:
    """Run only when nobody else wants the processor or the disk.

    Not in a session of its own: autogrouping would then give it a fair share of the processor all the same.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = IOPRIO_SET.get(platform.machine())
    if number is not None:
        libc.syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE << 13)


def die_with_parent() -> None:
    """Get SIGTERM when the daemon is gone, however it went."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def draw_history(history: dict[str, Sequence[float]], path: Path, version: str) -> None:
    """Draw loss and accuracy by epoch, training and validation, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, history[name], marker=".", label="training (augmented)")
        axes.plot(epochs, history[f"val_{name}"], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{version}: {name}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=120)
    temporary.replace(path)


def main(arguments: Sequence[str]) -> int:
    """Do the job that the command line holds."""
    job = Job(**json.loads(arguments[0]))
    die_with_parent()
    if job.background:
        yield_to_others()
    if job.verbose:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sends SIGTERM
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras warns on every .h5 that it would like another format
    try:
        train(job, load_settings(Path(job.config)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTINGS
    except TrainingStopped:
        return STOPPED
    except (TrainingFailed, RegistryError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
