"""One training as a child process: what is asked of it, its run, and how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daemon.processes import end, python, temporary_folder

WRONG_SETTINGS, STOPPED = 2, 3  # exit codes of the trainer, beside 0 and 1
POLL_SECONDS = 0.5
_RUN = "import sys; from daemon.training.trainer import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        settings: the configuration, as `Settings.to_text` writes it.
        version: the name of the version to write, such as "v0002".
        champion: the version that it is compared with, and starts from where the architecture is the same.
        verbose: Keras' verbosity: 0 silent, 1 a progress bar, 2 a line an epoch.
        background: whether to run only when nobody else wants the processor and the disk.

    """

    settings: str
    version: str
    champion: str | None = None
    verbose: int = 0
    background: bool = False

    def command(self) -> list[str]:
        """The command line of the child process.

        Not `-m daemon.training.trainer`: its decoder processes would import the main module again, and TensorFlow with it,
        which does not fit into their address space.
        """
        return python("-c", _RUN, json.dumps(dataclasses.asdict(self)))


class TrainingEnded(Exception):
    """The child gave no version; `result` is "failed" or "stopped"."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result, self.reason = result, reason


def run_job(
    job: Job,
    logs: Path,
    *,
    lock: int,
    stop: threading.Event,
    max_hours: float,
    on_progress: Callable[[dict[str, float]], None],
) -> None:
    """Run the child to its end. What it says goes to logs/trainer.log, or to this terminal where it is verbose.

    Args:
        job: what it is to do.
        logs: logs/training/<version>/.
        lock: the descriptor of the training lock. The child holds it too, so that no other training begins should this
            process be killed.
        stop: ends it early when set.
        max_hours: after which it is ended.
        on_progress: handed the content of progress.json, again and again.

    Raises:
        TrainingEnded: it gave no version.

    """
    with contextlib.ExitStack() as stack:
        output = None if job.verbose else stack.enter_context((logs / "trainer.log").open("wb"))
        temporary = stack.enter_context(temporary_folder())
        child = subprocess.Popen(  # noqa: S603 -- ourselves
            job.command(), stdout=output, stderr=output, pass_fds=(lock,), env=os.environ | {"TMPDIR": temporary}
        )
        stack.callback(end, child)
        limit = time.monotonic() + max_hours * 3600
        while child.poll() is None:
            if stop.wait(POLL_SECONDS):
                raise TrainingEnded("stopped", "it was told to stop")
            if time.monotonic() > limit:
                raise TrainingEnded("failed", f"it took longer than {max_hours:g} hours")
            with contextlib.suppress(OSError, ValueError):
                on_progress(json.loads((logs / "progress.json").read_bytes()))
    if child.returncode != 0:
        raise _explain_end(child.returncode, None if job.verbose else logs / "trainer.log")


def _explain_end(code: int, output: Path | None) -> TrainingEnded:
    if code in (STOPPED, -signal.SIGTERM):
        return TrainingEnded("stopped", "SIGTERM came")
    last = ""
    if output:
        lines = output.read_text(errors="replace").strip().splitlines()
        free = shutil.disk_usage(output.parent).free >> 20  # what fills the disk leaves no room for words
        last = f"; its last words: {lines[-1]}" if lines else f"; it left no words, and {free} MiB are free for {output}"
    if code == -signal.SIGKILL:
        return TrainingEnded("failed", f"the trainer was killed by SIGKILL, perhaps because memory ran out{last}")
    if code < 0:
        return TrainingEnded("failed", f"the trainer died of signal {signal.Signals(-code).name}{last}")
    what = "wrong settings" if code == WRONG_SETTINGS else f"the trainer ended with exit code {code}"
    return TrainingEnded("failed", f"{what}{last}")
