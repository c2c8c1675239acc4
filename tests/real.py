"""A real daemon in a process of its own, on a root of its own, for tests that look at it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parent.parent


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Look at `condition` until it holds.

    Raises:
        AssertionError: it did not within `seconds`.

    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"expected within {seconds:.0f} s: {what}"
        time.sleep(0.02)


class RealDaemon:
    """`digitd run` on a new root; leaving the `with` block ends it.

    Args:
        root: where to lay the root out.
        terminal: a descriptor that becomes its standard input and controlling terminal, if any.

    """

    def __init__(self, root: Path, terminal: int | None = None, **environment: str) -> None:
        self.root, self.log = root, root / "log"
        self.environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DIGITD_HTTP__PORT": "0"} | environment
        self.command("init", str(root), configured=False)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *([] if terminal is None else ["setsid", "--ctty"]),
                    *(sys.executable, "-m", "daemon", "run", "--config", str(root / "config.toml")),
                ],
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stderr=log,
                env=self.environment,
            )

    def __enter__(self) -> RealDaemon:
        wait_until(self.is_ready, "the daemon to be ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if error:
            print(self.log.read_text(errors="replace"))

    def command(self, *arguments: str, configured: bool = True) -> str:
        """What a command of `digitd` on this root prints."""
        config = ("--config", str(self.root / "config.toml")) if configured else ()
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *arguments, *config],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def address(self) -> str:
        """Where it serves HTTP; empty until it does."""
        try:
            return str(json.loads((self.root / "work/.lock").read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            return ""

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")
        try:
            return bool(self.address) and self.get("/readyz") == "ok\n"
        except (urllib.error.HTTPError, urllib.error.URLError):
            return False

    def get(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
            return str(response.read().decode())

    def said(self, text: str) -> bool:
        """Whether the log has it."""
        return text in self.log.read_text(errors="replace")
