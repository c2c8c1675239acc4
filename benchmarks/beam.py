"""The same images on Apache Beam: RunInference with the same model, on Beam's runner for one machine. Run by `peers.py`.

In an environment of its own, without digitd: Beam wants older Pillow and NumPy.
"""

from __future__ import annotations

import functools
import io
import json
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import keras
import numpy as np
from apache_beam.io import fileio
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from PIL import Image

BATCH = 256  # as the daemon's chunks
WARM = 512  # files that are answered before the clock is started: the model is loaded, and its graph traced


class Handler(ModelHandler[np.ndarray, np.ndarray, Any]):
    """Predicts batches with the model of an .h5."""

    def __init__(self, path: str) -> None:
        super().__init__(min_batch_size=BATCH, max_batch_size=BATCH)
        self._path = path

    def load_model(self) -> Any:
        """Load it once a process, as a pipeline that streams would."""
        return load(self._path)

    def run_inference(
        self, batch: Sequence[np.ndarray], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[np.ndarray]:
        """Give (10,) probabilities for each (28, 28, 1) image."""
        del inference_args
        return list(model.predict_on_batch(np.stack(batch)))


@functools.cache
def load(path: str) -> Any:
    """A model, for this process."""
    return keras.models.load_model(path, compile=False)


def decode(file: fileio.ReadableFile) -> tuple[str, np.ndarray]:
    """The name and the image of a file."""
    image = Image.open(io.BytesIO(file.read())).convert("L")
    return os.path.basename(file.metadata.path), np.asarray(image, np.float32)[..., None] / 255


def write(results: str, answer: tuple[str, Any]) -> Iterator[str]:
    """A JSON, which appears whole."""
    name, probabilities = answer
    content = {"digit": int(probabilities.argmax()), "confidence": float(probabilities.max())}
    with open(f"{results}/.{name}", "w") as file:
        json.dump(content | {"probabilities": [round(float(value), 6) for value in probabilities]}, file)
    os.rename(f"{results}/.{name}", f"{results}/{name}.json")
    yield name


def run(pattern: str, model: str, results: str) -> None:
    """Answer all files of a pattern."""
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | fileio.MatchFiles(pattern)
            | fileio.ReadMatches()
            | beam.Map(decode)
            | RunInference(KeyedModelHandler(Handler(model)))
            | beam.FlatMap(functools.partial(write, results))
        )


def main(inbox: str, model: str, results: str) -> None:
    """Warm up on a few files, then measure all; print the figures as JSON."""
    files = sorted(os.listdir(inbox))
    warm = Path(results) / ".warm"
    (warm / "in").mkdir(parents=True)
    for name in files[:WARM]:
        os.link(f"{inbox}/{name}", warm / "in" / name)
    run(f"{warm}/in/*", model, str(warm))
    cpu, began = time.process_time(), time.monotonic()
    run(f"{inbox}/*", model, results)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    answered = sum(name.endswith(".json") for name in os.listdir(results))
    if answered != len(files):
        sys.exit(f"Beam answered {answered} of {len(files)} files")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"files/s": len(files) / seconds, "us of CPU a file": 1e6 * cpu / len(files), "peak MB": peak}))
