"""Trying a foreign .h5 in a limited process: does it load, without code, with finite weights, and does it read digits?

The child prints an empty line when it is about to open the file, then what it found as JSON. It builds what would answer,
and so measures just that. What ends it before that line, or from outside, is no fault of the file's.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from daemon.config import ConfigError, Settings
from daemon.files import file_sha256
from daemon.models.adoption import Findings, VettingHindered, VettingStopped
from daemon.models.canary import canary_digits
from daemon.models.manifest import Holdout
from daemon.models.registry import RegistryError
from daemon.processes import die_with_parent, python, temporary_folder, yield_to_others
from daemon.training.dataset import BaseData, Split, load_base_data

ADDRESS_SPACE = 16 * 2**30  # bytes; importing TensorFlow alone takes several
CPU_SECONDS = 300
MAX_WRITTEN = 2**20  # bytes a file; Python tries its folder for temporary files out
WALL_SECONDS = 600.0
YIELDING_SECONDS = 60.0  # at first the child only has what nobody else wants; where that is too little, it begins anew
OF_THE_FILE = {1, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL, -signal.SIGXCPU, -signal.SIGXFSZ}  # ends
POLL_SECONDS = 0.2


class Vetting:
    """Tries one .h5 at a time in a child process.

    Args:
        settings: names the hold-out, and how much of it must be read right.
        stop: set when it is time to stop; the child is then ended, and nothing decided.
        waiting: called a few times a second while the child works.

    """

    def __init__(self, settings: Settings, stop: threading.Event, waiting: Callable[[], None] = lambda: None) -> None:
        self._settings, self._stop, self._waiting = settings, stop, waiting

    def apply(self, settings: Settings) -> None:
        """Put a changed configuration in force, for the next file."""
        self._settings = settings

    def __call__(self, file: Path, shown: Path) -> Findings:
        """Try a file.

        Args:
            file: the .h5.
            shown: its name in what is said about it.

        Raises:
            RegistryError: it did not pass; the message says why.
            VettingStopped: it was told to stop.
            VettingHindered: it came to nothing, which is no fault of the file's.

        """
        try:
            with ExitStack() as stack:
                folder = stack.enter_context(temporary_folder())
                output, words = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))  # limited in size, too
                code = self._run(file, shown, output, words, folder)
                output.seek(0)
                words.seek(0)
                said = words.read().decode(errors="replace").replace(str(file), str(shown))
                return _judge(code, output.read(), said, shown)
        except OSError as error:
            raise VettingHindered(f"{shown}: the vetting came to nothing: {error}") from error

    def _run(self, file: Path, shown: Path, output: IO[bytes], words: IO[bytes], folder: str) -> int:
        """How the child ended: at first it yields to all, so that whoever drops an image meanwhile does not wait for it."""
        for yields, seconds in ((True, YIELDING_SECONDS), (False, WALL_SECONDS)):
            output.seek(0)  # of ours and the child's
            output.truncate()
            with self._start(file, output, words, folder, *["yield"] * yields) as child:
                try:
                    if self._has_ended(child, shown, seconds):
                        return child.returncode
                finally:
                    child.kill()
        raise RegistryError(f"{shown}: expected a model that loads in {WALL_SECONDS:.0f} s. Received: no answer.")

    def _start(self, file: Path, output: IO[bytes], words: IO[bytes], folder: str, *more: str) -> subprocess.Popen[bytes]:
        command = python("-m", "daemon.training.vetting", self._settings.to_text(), str(file), *more)
        environment = os.environ | {"TMPDIR": folder}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for us, and we end the child
        try:
            return subprocess.Popen(command, stdout=output, stderr=words, cwd="/", env=environment)  # noqa: S603 -- ourselves
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _has_ended(self, child: subprocess.Popen[bytes], shown: Path, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while child.poll() is None:
            if self._stop.wait(POLL_SECONDS):
                raise VettingStopped(f"{shown}: the vetting was told to stop")
            if time.monotonic() > deadline:
                return False
            self._waiting()
        return True


def _judge(code: int, output: bytes, words: str, shown: Path) -> Findings:
    """What the child's end means."""
    reason = (words.strip() or "no words").splitlines()[-1]
    if code < 0:
        reason = f"{shown}: loading it killed its process with {signal.Signals(-code).name}; {reason}"
    if output and code in OF_THE_FILE:
        raise RegistryError(reason)
    if code != 0:
        raise VettingHindered(f"{shown}: the vetting came to nothing: {reason}")
    try:
        return Findings.model_validate_json(output)
    except ValidationError as error:
        raise RegistryError(
            f"{shown}: expected findings from the process that tried it. Received: {output[:200]!r}."
        ) from error


def load_holdout(settings: Settings) -> BaseData:
    """The base data set; where there is none, the canary digits, which is enough to tell a digit model from others."""
    try:
        return load_base_data(settings.training.dataset, settings.root, settings.inbox)
    except ConfigError:
        digits = Split(*canary_digits())
        return BaseData("canary", digits, digits)


def main(arguments: Sequence[str]) -> int:
    """The child: limits first, then Keras."""
    die_with_parent(signal.SIGKILL)
    if "yield" in arguments[2:]:
        yield_to_others()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, it is not the daemon that goes
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 60))  # or SIGKILL, not SIGXCPU, would be sent
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN, MAX_WRITTEN))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings, file = Settings.from_text(arguments[0]), Path(arguments[1])
    file_sha256(file)  # what the disk does not give is missed here, and not in what Keras says
    from daemon.models.backend import keras
    from daemon.models.calibration import Calibration
    from daemon.models.live import LiveModel
    from daemon.models.network import ModelError
    from daemon.models.version import ModelIdentity
    from daemon.training.evaluation import compare

    base = load_holdout(settings)
    print(flush=True)
    try:
        model = LiveModel(file, ModelIdentity("", ""), Calibration())
    except ModelError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    result = compare(model.predict(base.test.x).probabilities, base.test.y)
    if result.accuracy < settings.gate.canary_accuracy:
        print(
            f"{file}: expected at least {settings.gate.canary_accuracy:.2%} right on the hold-out ([gate] canary_accuracy). "
            f"Received: {result.accuracy:.2%}.",
            file=sys.stderr,
        )
        return 1
    found = Findings(
        keras=keras.__version__,
        parameters=model.parameters,
        dataset_sha256=base.sha256,
        holdout=Holdout(
            images=len(base.test),
            loss=round(result.loss, 6),
            accuracy=round(result.accuracy, 6),
            recall=[round(value, 6) for value in result.recall],
        ),
    )
    print(found.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
