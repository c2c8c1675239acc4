"""`digitd retrain`: train now, in the foreground, with Keras' progress bar. A running daemon swaps to it by itself."""

from __future__ import annotations

import signal
import sys
import time

from daemon.config import Settings
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import Registry
from daemon.training.candidates import Candidates
from daemon.training.gate import VERDICTS


def retrain_now(settings: Settings) -> int:
    """Train, print the verdict, and where the history is.

    Returns:
        0 where a version was made, whatever the verdict; else 1.

    """
    candidates = Candidates(settings, Registry(settings.folder("models")))
    signal.signal(signal.SIGTERM, lambda *_: candidates.stop.set())
    signal.signal(signal.SIGINT, lambda *_: candidates.stop.set())
    try:
        run = candidates.run("by hand", time.time(), even_if_nothing_new=True, verbose=1 if sys.stdout.isatty() else 2)
    except TrainingUnderWay as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{run.version} {run.result}: {run.reason}")
    if run.result not in VERDICTS:
        return 1
    print(f"history  {settings.folder('logs') / 'training' / run.version}")
    print(f"curves   {sys.prefix}/bin/tensorboard --logdir {settings.folder('logs') / 'tensorboard'}")
    return 0
