"""What the daemon asks of the trainer's process."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        config: the config.toml; the environment's overrides are inherited.
        version: the name of the version to write, such as "v0002".
        verbose: Keras' verbosity: 0 silent, 1 a progress bar, 2 a line an epoch.

    """

    config: str
    version: str
    verbose: int = 0

    def command(self) -> list[str]:
        """The command line of the child process."""
        return [sys.executable, "-m", "daemon.trainer", json.dumps(dataclasses.asdict(self))]
