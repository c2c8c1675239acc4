"""What the daemon asks of the trainer's process."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass

RUN = "import sys; from daemon.training.fit import main; sys.exit(main(sys.argv[1:]))"
WRONG_SETTINGS, STOPPED = 2, 3  # exit codes of the trainer, beside 0 and 1


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        config: the config.toml; the environment's overrides are inherited.
        version: the name of the version to write, such as "v0002".
        champion: the version that it is compared with, and starts from where the architecture is the same.
        verbose: Keras' verbosity: 0 silent, 1 a progress bar, 2 a line an epoch.
        background: whether to run only when nobody else wants the processor and the disk.

    """

    config: str
    version: str
    champion: str | None = None
    verbose: int = 0
    background: bool = False

    def command(self) -> list[str]:
        """The command line of the child process.

        Not `-m daemon.training.fit`: its decoder processes would import the main module again, and TensorFlow with it, which
        does not fit into their address space.
        """
        return [sys.executable, "-c", RUN, json.dumps(dataclasses.asdict(self))]
