"""Retraining: when to train, running the child, and what becomes of its version."""

from __future__ import annotations

import subprocess
import sys

from daemon.config import Settings
from daemon.job import Job
from daemon.registry import Registry


def retrain_now(settings: Settings) -> int:
    """Train in the foreground, with Keras' progress bar.

    Returns:
        0, or 1 where the training failed.

    """
    registry = Registry(settings.folder("models"))
    name = registry.next_name()
    job = Job(config=str(settings.file), version=name, verbose=1 if sys.stdout.isatty() else 2)
    done = subprocess.run(job.command(), check=False)  # noqa: S603 -- our own interpreter and module
    if done.returncode != 0:
        return 1
    registry.make_current(name)
    print(f"{name}: {registry.version(name).describe()}")
    print(f"history  {settings.folder('logs') / 'training' / name}")
    print(f"curves   tensorboard --logdir {settings.folder('logs') / 'tensorboard'}")
    return 0
