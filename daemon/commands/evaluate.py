"""`digitd evaluate`: how a version does on the test set."""

from __future__ import annotations

import sys

import numpy as np

from daemon.config import Settings
from daemon.models.registry import Registry, RegistryError
from daemon.training.dataset import load_base_data


def print_evaluation(settings: Settings, name: str | None) -> int:
    """Print loss, accuracy, recall by digit and the confusion matrix.

    Args:
        name: a version; the current one when None.

    Returns:
        0, or 1 where there is no such usable version.

    """
    from daemon.models.network import ModelError, read_model
    from daemon.training.evaluation import evaluate

    registry = Registry(settings.folder("models"))
    try:
        version = registry.version(name) if name else registry.current()
        model = read_model(version.path)
    except (RegistryError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    data = load_base_data(settings.training.dataset, settings.root, settings.inbox).test
    result = evaluate(model, data)
    wrong = len(data) - int(np.trace(result.confusion))
    print(f"{version.name} on {len(data)} test images of {settings.training.dataset}")
    print(f"loss      {result.loss:.4f}")
    print(f"accuracy  {result.accuracy:.2%} ({wrong} wrong)\n")
    print("digit  read as" + "".join(f"{digit:6}" for digit in range(10)) + "   recall")
    for digit, (row, recall) in enumerate(zip(result.confusion.tolist(), result.recall, strict=True)):
        print(f"{digit:5}         " + "".join(f"{count or '.':>6}" for count in row) + f"  {recall:7.2%}")
    return 0
