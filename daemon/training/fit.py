"""How a network learns, in Keras' own terms: its course, compile and fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from daemon.config import Settings, TrainingSettings
from daemon.models.backend import keras, tf
from daemon.models.network import build_model, read_model
from daemon.models.version import Version
from daemon.training.batches import training_batches, validation_data, with_hands
from daemon.training.corrections import Corrections, load_corrections
from daemon.training.dataset import BaseData, Split, join, load_base_data, split_validation
from daemon.training.history import ReportProgress
from daemon.training.job import Job
from daemon.training.scans import JUDGES, WATCHED, Scans, load_scans, read_scans, vary_scans

WATCHED_VARIANTS = 2  # of each watched scan, beside itself
FEW = (
    100  # corrections; the more there are above, the more is learnt from them, as their square root, up to MOST_GROWTH times
)
MOST_GROWTH = 4.0
MOST_SHARE = 0.5  # of corrections in a batch; the rest is base data, so that nothing is forgotten
EPOCHS_ON = 12  # a champion's further steps are parted into so many epochs, for early stopping to look at


@dataclass(frozen=True)
class TrainingData:
    """What one training works with.

    Attributes:
        base: the base data set, with its hold-outs.
        scans: by all writers.
        training, validation: the base data set's training part, parted again; and who is watched, in `validation`.
        learned: `training`, the scans that are learnt from, and what was drawn.
        judges: the scans by JUDGES.
        corrections: with their own parts.

    """

    base: BaseData
    scans: Scans
    training: Split
    validation: Split
    learned: Split
    judges: Split
    corrections: Corrections

    @property
    def holdouts(self) -> dict[str, Split]:
        """What no training ever saw, by the name that manifests and reports have for it."""
        return self.base.holdouts | ({"scans": self.judges} if len(self.judges) else {})

    @property
    def judged(self) -> dict[str, Split]:
        """What candidate and champion are compared on."""
        return self.holdouts | {"corrections": self.corrections.gate}


def load_data(settings: Settings) -> TrainingData:
    """Load the data sets and the corrections, and draw the synthetic images."""
    chosen = settings.training
    base = load_base_data(chosen.dataset, settings.root, settings.inbox)
    scans = load_scans(chosen.scans, settings.root)
    judges = read_scans(scans.by(JUDGES))
    corrections = load_corrections(
        settings.folder("corrections"), settings.inbox, (base.test.x, judges.x), settings.retrain.most_corrections
    )
    training, validation = split_validation(base.train, chosen.validation_share)
    watched = vary_scans(scans.by(WATCHED), WATCHED_VARIANTS, chosen.seed)
    learned = with_hands(training, scans.learnt(), chosen)
    return TrainingData(base, scans, training, join(validation, watched), learned, judges, corrections)


def logs_of(job: Job, settings: Settings) -> Path:
    """Where a training's history, answers and report go."""
    return settings.folder("logs") / "training" / job.version


@dataclass(frozen=True)
class Course:
    """How a training proceeds: from scratch over all the base data, or some steps on from the champion.

    Attributes:
        model: what is trained.
        origin: in words.
        epochs, steps: at most so many epochs of so many batches.
        share: of corrections in each batch.
        learning_rate: at its peak.
        patience: epochs without a better val_loss.

    """

    model: keras.Sequential
    origin: str
    epochs: int
    steps: int
    share: float
    learning_rate: float
    patience: int


def choose_model(settings: Settings, champion: Version | None) -> tuple[keras.Sequential, Version | None]:
    """Start from the champion where its architecture is the one that is configured; else from scratch, from no version."""
    layers = settings.training.layers
    if champion and champion.manifest.layers == [layer.model_dump() for layer in layers]:
        return read_model(champion.path), champion
    return build_model(layers), None


def choose_course(settings: Settings, model: keras.Sequential, origin: Version | None, data: TrainingData) -> Course:
    """How what `choose_model` chose is trained."""
    chosen, again = settings.training, settings.retrain
    growth = min(MOST_GROWTH, max(1.0, math.sqrt(len(data.corrections.train) / FEW)))
    share = min(MOST_SHARE, again.corrections_share * growth)
    if origin:
        steps = math.ceil(again.steps * growth / EPOCHS_ON)
        rate = max(again.learning_rate, min(chosen.learning_rate, again.learning_rate * math.sqrt(growth)))
        return Course(model, f"from {origin.name}", EPOCHS_ON, steps, share, rate, again.patience)
    steps = -(-(len(data.learned) + len(data.corrections.train)) // chosen.batch_size)
    return Course(model, "from scratch", chosen.epochs, steps, share, chosen.learning_rate, chosen.patience)


class DigitAccuracy(keras.metrics.CategoricalAccuracy):
    """The share of the digits that are read right; what is no digit does not count."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Count a batch of (n, 10) targets and (n, 10) probabilities, with (n,) weights or none."""
        counts = tf.cast(tf.reduce_max(y_true, axis=1) > 0.5, tf.float32)
        super().update_state(y_true, y_pred, counts if sample_weight is None else counts * sample_weight)


def compile_model(model: keras.Sequential, settings: TrainingSettings, learning_rate: float, steps: int) -> None:
    """Compile with the configured optimizer and loss; the rate warms up to its peak, then falls as a cosine to 0."""
    warmup = max(1, round(settings.warmup_share * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = type(keras.optimizers.get(settings.optimizer))(learning_rate=rate)
    model.compile(optimizer=optimizer, loss=settings.loss, weighted_metrics=[DigitAccuracy()])


def fit(job: Job, settings: Settings, data: TrainingData, course: Course) -> tuple[keras.callbacks.History, int]:
    """Fit the compiled model, with everything that watches it.

    Returns:
        Keras' history, and the epoch (from 1) whose weights the model now has.

    """
    chosen, corrections, model = settings.training, data.corrections, course.model
    logs = logs_of(job, settings)
    logs.mkdir(parents=True, exist_ok=True)
    if job.verbose:
        model.summary()
        print(f"{job.version} {course.origin}: {len(data.training)} base images, {len(corrections.train)} corrections")
    early_stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss", mode="auto", patience=course.patience, restore_best_weights=True
    )
    history = model.fit(
        training_batches(
            data.learned,
            corrections.train,
            chosen.batch_size,
            course.share,
            chosen.augmentation,
            chosen.seed,
        ),
        validation_data=validation_data(data.validation, corrections.validation),
        epochs=course.epochs,
        steps_per_epoch=course.steps,
        shuffle=False,  # the batches are shuffled already
        verbose=job.verbose,
        callbacks=[
            early_stopping,
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.TensorBoard(log_dir=str(settings.folder("logs") / "tensorboard" / job.version)),
            keras.callbacks.CSVLogger(str(logs / "history.csv")),
            ReportProgress(logs / "progress.json", course.epochs),
        ],
    )
    return history, early_stopping.best_epoch + 1
