"""The child process that trains one version: fit, EarlyStopping, TensorBoard, history, evaluate, save.

Run as `python -m daemon.trainer JOB`, with a Job as JSON. What it learns leaves it as files: the history and the curves in
logs/training/<version>/, TensorBoard events in logs/tensorboard/<version>/, and in models/ the .h5, then its manifest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np

from daemon.backend import keras, tf
from daemon.config import Augmentation, ConfigError, Settings, TrainingSettings, load_settings
from daemon.dataset import Split, load_base_data, split_validation
from daemon.files import file_sha256, sync_folder, write_durably
from daemon.job import Job
from daemon.model import CLASSES, as_input, build_model
from daemon.registry import Registry

STOPPED = 3  # exit code: SIGTERM came and nothing was saved


class TrainingFailed(Exception):
    """The training gave no usable model; the message says why."""


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a data set: mean loss, share of right answers, and a (10, 10) count of truth x answer."""

    loss: float
    accuracy: float
    confusion: np.ndarray

    @property
    def recall(self) -> list[float]:
        """The share of each digit's images that were read as that digit; 1.0 for a digit without images."""
        counts = self.confusion.sum(axis=1)
        return [
            float(right / count) if count else 1.0 for right, count in zip(self.confusion.diagonal(), counts, strict=True)
        ]


def compile_model(model: keras.Sequential, settings: TrainingSettings, steps: int) -> None:
    """Compile with the configured optimizer and loss; the learning rate warms up, then falls as a cosine to 0.

    Raises:
        ConfigError: Keras knows no such optimizer.

    """
    try:
        optimizer = type(keras.optimizers.get(settings.optimizer))
    except ValueError as error:
        raise ConfigError(
            f"[training] optimizer: expected the name of a Keras optimizer. Received: {settings.optimizer!r}."
        ) from error
    warmup = max(1, round(settings.warmup_share * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    model.compile(optimizer=optimizer(learning_rate=schedule), loss=settings.loss, metrics=["accuracy"])


def training_batches(data: Split, batch_size: int, augmentation: Augmentation, seed: int) -> tf.data.Dataset:
    """Shuffled, augmented batches of (x, y): x (n, 28, 28, 1) float32 in 0..1, y (n,) int64."""
    return (
        tf.data.Dataset.from_tensor_slices((data.x, data.y.astype(np.int64)))
        .shuffle(len(data), seed=seed)
        .batch(batch_size)
        .map(lambda x, y: (augment(x, augmentation), y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment(images: tf.Tensor, limits: Augmentation) -> tf.Tensor:
    """Turn, zoom, shear and shift each image at random, with bilinear interpolation.

    Args:
        images: (n, 28, 28) uint8.
        limits: the largest changes.

    Returns:
        (n, 28, 28, 1) float32 in 0..1.

    """
    n = tf.shape(images)[0]

    def either_way(limit: float) -> tf.Tensor:
        return tf.random.uniform((n,), -limit, limit)

    angle = either_way(limits.rotation_degrees * np.pi / 180)
    zoom, shear = 1 + either_way(limits.zoom), either_way(limits.shear)
    # From output to input coordinates: rotation @ shear * zoom, about the centre of the image.
    a0, a1 = zoom * tf.cos(angle), zoom * (shear * tf.cos(angle) - tf.sin(angle))
    b0, b1 = zoom * tf.sin(angle), zoom * (shear * tf.sin(angle) + tf.cos(angle))
    centre = (28 - 1) / 2
    a2 = centre - (a0 + a1) * centre + either_way(limits.shift_pixels)
    b2 = centre - (b0 + b1) * centre + either_way(limits.shift_pixels)
    nothing = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32)[..., None] / 255.0,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, nothing, nothing], axis=1),
        output_shape=(28, 28),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def evaluate(model: keras.Model, data: Split) -> Evaluation:
    """Compare a model's answers with the labels of a data set."""
    probabilities = model.predict(as_input(data.x), batch_size=256, verbose=0)
    answers = probabilities.argmax(axis=1)
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion, (data.y.astype(np.int64), answers), 1)
    losses = keras.losses.sparse_categorical_crossentropy(data.y, probabilities)
    return Evaluation(float(np.mean(losses)), float(np.mean(answers == data.y)), confusion)


class ReportProgress(keras.callbacks.Callback):
    """Writes progress.json after each epoch: the epoch and the values of its history."""

    def __init__(self, path: Path, epochs: int) -> None:
        super().__init__()
        self._path, self._epochs = path, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        write_durably(self._path, json.dumps({"epoch": epoch + 1, "epochs": self._epochs, **values}).encode())


def train(job: Job, settings: Settings) -> Path:
    """Train from scratch and write the version.

    Returns:
        The path of the manifest, written last.

    Raises:
        ConfigError: the data set, a layer or the optimizer is not usable.
        TrainingFailed: the weights are not finite, or SIGTERM came.

    """
    started = time.monotonic()
    chosen = settings.training
    registry = Registry(settings.folder("models"))
    logs = settings.folder("logs") / "training" / job.version
    logs.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(chosen.seed)

    base = load_base_data(chosen.dataset, settings.root, settings.inbox)
    training, validation = split_validation(base.train, chosen.validation_share, chosen.seed)
    model = build_model(chosen.layers)
    compile_model(model, chosen, steps=chosen.epochs * -(-len(training) // chosen.batch_size))
    if job.verbose:
        model.summary()

    stopped = stop_on_sigterm(model)
    early = keras.callbacks.EarlyStopping(
        monitor="val_loss", mode="auto", patience=chosen.patience, restore_best_weights=True
    )
    history = model.fit(
        training_batches(training, chosen.batch_size, chosen.augmentation, chosen.seed),
        shuffle=False,  # the pipeline shuffles
        validation_data=(as_input(validation.x), validation.y),
        epochs=chosen.epochs,
        verbose=job.verbose,
        callbacks=[
            early,
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.TensorBoard(log_dir=str(settings.folder("logs") / "tensorboard" / job.version)),
            keras.callbacks.CSVLogger(str(logs / "history.csv")),
            ReportProgress(logs / "progress.json", chosen.epochs),
        ],
    )
    if stopped:
        raise TrainingFailed("stopped by SIGTERM")
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise TrainingFailed("the loss became NaN or infinite; lower [training] learning_rate")
    draw_history(history.history, logs / "history.png", job.version)

    holdout = evaluate(model, base.test)
    path = save_durably(model, registry.folder / f"{job.version}.h5")
    manifest = {
        "schema": 1,
        "version": job.version,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "parameters": model.count_params(),
        "layers": [layer.model_dump() for layer in chosen.layers],
        "training": {
            **chosen.model_dump(exclude={"layers"}),
            "dataset_sha256": base.sha256,
            "images": len(training),
            "validation_images": len(validation),
            "epochs_run": len(history.epoch),
            "best_epoch": early.best_epoch + 1,
            "seconds": round(time.monotonic() - started, 1),
        },
        "holdout": {
            "images": len(base.test),
            "loss": round(holdout.loss, 6),
            "accuracy": round(holdout.accuracy, 6),
            "recall": [round(value, 6) for value in holdout.recall],
        },
    }
    content = json.dumps(manifest, indent=2).encode() + b"\n"
    write_durably(logs / "report.json", content)
    manifest_path = registry.folder / f"{job.version}.json"
    write_durably(manifest_path, content)
    return manifest_path


def stop_on_sigterm(model: keras.Model) -> list[int]:
    """Make SIGTERM end fit after the batch it is in; the returned list is not empty once it came."""
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        model.stop_training = True

    signal.signal(signal.SIGTERM, stop)
    return received


def save_durably(model: keras.Model, path: Path) -> Path:
    """Save as .h5, without the optimizer's state, under a temporary name; fsync; rename."""
    temporary = path.with_suffix(".tmp.h5")  # Keras refuses a name that does not end in .h5
    model.save(temporary, include_optimizer=False)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return path


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
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras warns on every .h5 that it would like another format
    job = Job(**json.loads(arguments[0]))
    try:
        train(job, load_settings(Path(job.config)))
    except (ConfigError, TrainingFailed) as error:
        print(f"training {job.version} failed: {error}", file=sys.stderr)
        return STOPPED if isinstance(error, TrainingFailed) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
