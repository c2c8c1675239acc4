"""How a training goes, for whoever watches: progress.json after each epoch, and the curves of loss and accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.files import replacing, write_durably
from daemon.models.backend import keras


class ReportProgress(keras.callbacks.Callback):
    """Writes progress.json after each epoch: the epoch and the values of its history."""

    def __init__(self, path: Path, epochs: int) -> None:
        super().__init__()
        self._path, self._epochs = path, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        write_durably(self._path, json.dumps({"epoch": epoch + 1, "epochs": self._epochs, **values}).encode())


def draw_history(history: dict[str, Sequence[float]], path: Path, title: str) -> None:
    """Draw loss and accuracy by epoch, training and validation, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, history[name], marker=".", label="training (augmented)")
        axes.plot(epochs, history[f"val_{name}"], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{title}: {name}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
