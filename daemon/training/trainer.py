"""One training, from data to a version: what the trainer's process does.

`train` reads top down: data, course, compile, fit, evaluate, save, describe. What it learns leaves the process as files:
the history and the curves in logs/training/<version>/, TensorBoard events in logs/tensorboard/<version>/, and in models/
the .h5, then its manifest.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import absl.logging
import numpy as np

from daemon.clock import timestamp
from daemon.config import ConfigError, Settings, TrainingSettings
from daemon.files import file_sha256, write_durably
from daemon.models import making
from daemon.models.backend import keras, tf
from daemon.models.calibration import Calibration, calibrate
from daemon.models.manifest import Manifest
from daemon.models.network import ModelError, read_model
from daemon.models.registry import Registry, RegistryError
from daemon.processes import die_with_parent, yield_to_others
from daemon.telemetry.drift import describe_reference
from daemon.training.corrections import Corrections
from daemon.training.dataset import NO_DIGIT, Split
from daemon.training.evaluation import Evaluation, evaluate, held_back, saved_logits
from daemon.training.fit import TrainingData, choose_course, choose_model, compile_model, fit, load_data, logs_of
from daemon.training.history import draw_history
from daemon.training.job import STOPPED, WRONG_SETTINGS, Job

TOLD = "truth", "champion", "candidate"  # of each part of answers.npz


class TrainingFailed(Exception):
    """The training gave no usable model; the message says why."""


class TrainingStopped(Exception):
    """SIGTERM came before there was a version."""


def train(job: Job, settings: Settings) -> Path:
    """Train and write the version, its history and its report.

    Returns:
        The path of the .h5.

    Raises:
        ConfigError: the data set, a layer or the optimizer is not usable.
        RegistryError, ModelError: the champion is not usable.
        TrainingFailed: the weights are not finite.
        TrainingStopped: SIGTERM came.

    """
    started = time.monotonic()
    keras.utils.set_random_seed(settings.training.seed)
    registry = Registry(settings.folder("models"))
    champion = registry.version(job.champion) if job.champion else None

    model, origin = choose_model(settings, champion)  # first: to make the data takes a minute
    data = load_data(settings)
    course = choose_course(settings, model, origin, data)
    compile_model(model, settings.training, course.learning_rate, course.epochs * course.steps)
    stop = stop_on_sigterm(model)
    history, best_epoch = fit(job, settings, data, course)
    stop.check()
    check_weights(model)
    draw_history(history.history, logs_of(job, settings) / "history.png", f"{job.version}, {course.origin}")

    scores = evaluate_all(model, data)
    scores_before = evaluate_all(read_model(champion.path), data) if champion else {}
    stop.check()

    path = making.unfinished(registry, job.version)
    model.save(path, include_optimizer=False)
    manifest = describe(job.version, path, model, data, scores, settings.training) | calibrated(path, data.validation)
    manifest["training"] |= {
        "origin": course.origin,
        "epochs_run": len(history.epoch),
        "best_epoch": best_epoch,
        "steps_per_epoch": course.steps,
        "seconds": round(time.monotonic() - started, 1),
    }
    gate = {"holdout": data.base.test, "corrections": data.corrections.gate, "none": data.corrections.gate_none}
    held = held_back(path, Calibration(**manifest["calibration"]), gate, settings.inference)
    held_before: dict[str, np.ndarray] = {}
    if champion:  # nobody measured what a foreign model's logits mean: then here, for its doubt to be as honest
        known = champion.manifest.calibration
        meaning = known or calibrate(saved_logits(champion.path, data.validation), data.validation.y)
        held_before = held_back(champion.path, meaning, gate, settings.inference)
    manifest["holdout"]["held_back"] = _share(held["holdout"])
    manifest["corrections"]["none"]["held_back"] = _share(held["none"])
    write_report(logs_of(job, settings), job, manifest, data.corrections, (scores_before, scores), (held_before, held))
    return making.finish(registry, Manifest.parse(json.dumps(manifest).encode()))


def check_weights(model: keras.Model) -> None:
    """Raise TrainingFailed where a weight is NaN or infinite: TerminateOnNaN ends fit, but leaves the weights."""
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise TrainingFailed("the loss became NaN or infinite; lower the learning rate")


def evaluate_all(model: keras.Model, data: TrainingData) -> dict[str, Evaluation]:
    """How a model does on all that was never learnt from."""
    return {name: evaluate(model, split) for name, split in data.judged.items()}


def describe(
    version: str,
    path: Path,
    model: keras.Model,
    data: TrainingData,
    scores: dict[str, Evaluation],
    settings: TrainingSettings,
) -> dict[str, Any]:
    """What a manifest says of the file, of what it learnt and of how well it reads."""
    corrections = data.corrections
    holdouts = {name: {"sha256": split.sha256, **scores[name].as_dict()} for name, split in data.holdouts.items()}
    return {
        "schema": 1,
        "version": version,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "created_at": timestamp(time.time()),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "parameters": model.count_params(),
        "layers": [layer.model_dump() for layer in settings.layers],
        "training": {
            **settings.model_dump(exclude={"layers"}),
            "dataset_sha256": data.base.sha256,
            "scans_sha256": data.scans.sha256,
            "writers": data.scans.writers_by_part(),
            "images": len(data.training),
            "images_besides": len(data.learned) - len(data.training),
            "validation_images": len(data.validation),
        },
        "holdout": holdouts.pop("holdout"),
        "measured": holdouts,
        "corrections": {
            "training": len(corrections.train),
            "validation": len(corrections.validation),
            "gate": len(corrections.gate),
            "accuracy": round(scores["corrections"].accuracy, 6) if len(corrections.gate) else None,
            "none": {
                "training": int((corrections.train.y == NO_DIGIT).sum()),
                "validation": int((corrections.validation.y == NO_DIGIT).sum()),
                "gate": len(corrections.gate_none),
            },
        },
    }


def calibrated(path: Path, validation: Split) -> dict[str, Any]:
    """What a manifest says of the logits that the saved model gives: their calibration, and drift's reference."""
    logits = saved_logits(path, validation)
    calibration = calibrate(logits, validation.y)
    return {
        "calibration": asdict(calibration),
        "reference": describe_reference(validation.x, calibration.apply(logits)[0]),
    }


def _share(chosen: np.ndarray) -> float | None:
    return round(float(chosen.mean()), 6) if len(chosen) else None


def write_report(
    folder: Path,
    job: Job,
    manifest: dict[str, Any],
    corrections: Corrections,
    scores: tuple[dict[str, Evaluation], dict[str, Evaluation]],
    held: tuple[dict[str, np.ndarray], dict[str, np.ndarray]],
) -> None:
    """Write what the gate decides on: answers.npz, image by image, where there is a champion; and report.json.

    `scores` and `held` are each the champion's, which may be empty, and the candidate's.
    """
    (before, after), (held_before, held_after) = scores, held
    if before:
        answers: dict[str, Any] = {}
        for name, score in after.items():
            told = score.truth, before[name].answers, score.answers
            answers |= {f"{name}_{what}": values for what, values in zip(TOLD, told, strict=True)}
        for name, chosen in held_after.items():
            part = name if name == "none" else f"{name}_held"
            told = np.full(len(chosen), name == "none"), held_before[name], chosen
            answers |= {f"{part}_{what}": values for what, values in zip(TOLD, told, strict=True)}
        np.savez(folder / "answers.npz", **answers)
    report = {
        **manifest,
        "champion": job.champion,
        "champion_holdout_accuracy": round(before["holdout"].accuracy, 6) if before else None,
        "champion_holdout_held": _share(held_before["holdout"]) if before else None,
        "corrections": {**manifest["corrections"], "left_out": corrections.left_out},
    }
    write_durably(folder / "report.json", json.dumps(report, indent=2).encode() + b"\n")


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


def main(arguments: Sequence[str]) -> int:
    """Do the job that the command line holds, as JSON.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong settings, 3 stopped.

    """
    job = Job(**json.loads(arguments[0]))
    die_with_parent(signal.SIGTERM)
    if job.background:
        yield_to_others()
    if job.verbose:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sends SIGTERM
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras warns on every .h5 that it would like another format
    try:
        train(job, Settings.from_text(job.settings))
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
