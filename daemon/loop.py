"""A thread that makes one pass after another, and that tells whether it moves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

log = logging.getLogger(__name__)

STALLED_SECONDS = 30.0  # a thread that made no pass for so long does not move
FUSE_WAITS = "request_wait_answer"  # where the kernel waits for FUSE's and virtiofs' answer, interruptibly


class Loop:
    """Makes passes from when it is entered until it is left.

    Args:
        name: of the thread.
        run_once: one pass. An OSError ends the daemon.
        rest: seconds between two passes, for work behind the scenes: an OSError, such as a full disk, is logged, and a pass
            may take as long as it takes.

    """

    def __init__(self, name: str, run_once: Callable[[], None], rest: float = 0.0) -> None:
        self.name, self._run_once, self._rest = name, run_once, rest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._began = time.monotonic()  # the latest pass

    def stall(self, now: float) -> str | None:
        """Say in words that it does not move, at a moment of time.monotonic(); None where it does.

        Who waits for the disk is not stuck: a slow disk gets no faster by an end of the daemon, which would only begin anew.
        """
        waited = now - self._began
        if self._rest or waited <= STALLED_SECONDS or self._waits_for_disk():
            return None
        return f"thread {self.name} made no pass for {waited:.0f} s"

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _waits_for_disk(self) -> bool:
        """Whether the kernel has it in state D, or in FUSE_WAITS: proc_pid_stat(5), proc_pid_wchan(5)."""
        thread = Path(f"/proc/self/task/{self._thread.native_id}")
        try:
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
            return state == "D" or (thread / "wchan").read_text() == FUSE_WAITS
        except OSError:
            return False  # it has ended, or the kernel does not say where it waits

    def _run(self) -> None:
        while not self._stop.is_set():
            self._began = time.monotonic()
            try:
                self._run_once()
            except OSError as error:
                if not self._rest:
                    raise
                log.error("%s: %s; trying again", self.name, error)
            if self._rest:
                self._stop.wait(self._rest)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
