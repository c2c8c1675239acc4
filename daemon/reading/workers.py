"""A pool of light processes with limits, for tasks that a hostile file may ruin: it then harms nobody but itself.

They never import TensorFlow. Each has an address-space limit; a task that outlasts its time limit costs its process, which
Pebble replaces. That time is the processor's: to wait for a slow disk, or on a busy machine, is not the file's fault; what
waits too long is given up innocently. What Pebble cannot survive (its fork server or an idle process killed, a process
killed while it holds the lock of the channel) costs the pool, which is replaced here.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from daemon.folders import FOLDER
from daemon.processes import die_with_parent, leave_cleared_folder

log = logging.getLogger(__name__)

PRELOADED = ["daemon.reading.chunks", "daemon.reading.showing", "daemon.answering.publish"]  # what the tasks are made of
IMPORTED_IN = os.getpid()  # the fork server, in what it forks: this module is among those
AS_LONG = 10  # times its processor time a task may take by the clock
STUCK_SECONDS = 10.0  # beyond the longest limit without any task ending: the pool is stuck
_FORK_SERVER = forkserver._forkserver  # noqa: SLF001 -- nothing public tells where it listens, or ends it
_OPEN = Path("/proc/self/fd")
_held: list[int] = []  # the folder of its socket
Result = TypeVar("Result")


class WorkersLost(Exception):
    """A task was given up because the processes were lost, through no doing of its own; it is to be given again."""


class Workers:
    """Runs tasks in processes of their own.

    Args:
        count: of the processes.
        address_space: of each, in bytes.
        longest: the time limit of the longest task, in seconds.

    """

    def __init__(self, count: int, address_space: int, longest: float) -> None:
        self._count, self._address_space = count, address_space
        self._context = start_fork_server()
        self._open: dict[Future[Any], float] = {}  # tasks that have not ended, and when they were given
        self._progress = time.monotonic()  # when a task ended last
        self._patience = STUCK_SECONDS + longest
        self._pool: ProcessPool | None = None
        self.renew()

    def run(
        self, task: Callable[[], Result], seconds: float, done: Callable[[Future[Result]], None], by_clock: bool = False
    ) -> None:
        """Run a task; `done` is called, mostly from another thread, with a future that has its result or error.

        The error is a TimeoutError when it took longer than `seconds`, WorkersLost when it was given up innocently,
        ProcessExpired when the process died on it.

        Args:
            task: what to run.
            seconds: of the processor.
            done: is handed the future.
            by_clock: whether the seconds are the clock's instead.

        Raises:
            OSError: there are no processes to be had now.

        """
        given = time.monotonic()
        limited, longest = (task, seconds) if by_clock else (partial(_limited, task, seconds), AS_LONG * seconds)
        try:
            future: Future[Any] = self.renew().schedule(limited, timeout=longest)
        except RuntimeError as error:  # the pool broke this very moment
            raise OSError(errno.EAGAIN, f"decoder processes: {error}") from error
        self._open[future] = given

        def ended(future: Future[Any]) -> None:
            self._open.pop(future, None)
            self._progress = time.monotonic()
            done(_told(future, not by_clock or self._progress - given < seconds))

        future.add_done_callback(ended)

    def renew(self) -> ProcessPool:
        """See to it that the processes work; where they do not, start others and give up what they had.

        Raises:
            OSError: there are none to be had now.

        """
        _hold_socket()
        now = time.monotonic()
        oldest = min(list(self._open.values()), default=now)  # at once: other threads end tasks meanwhile
        stuck = now - max(self._progress, oldest) > self._patience
        if self._pool is not None:
            if self._pool.active and not stuck:
                return self._pool
            log.warning("the decoder processes %s and are started anew", "do nothing" if stuck else "ended unexpectedly")
            self.close()
        for future in list(self._open):  # Pebble's threads have ended: nobody else will end it
            with suppress(Exception):  # they ended it on their way out
                future.set_exception(WorkersLost())
        _replace_unreachable_fork_server()
        pool = ProcessPool(
            max_workers=self._count, context=self._context, initializer=_start_worker, initargs=(self._address_space,)
        )
        try:
            if not pool.active:  # asking starts them
                raise BrokenProcessPool("they end as soon as they start")
        except BrokenProcessPool as error:
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()
            raise OSError(errno.EAGAIN, f"cannot start decoder processes: {error.__cause__ or error!r}") from error
        self._pool = pool
        return pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.stop()  # type: ignore[no-untyped-call]
            pool.join()


def start_fork_server() -> ForkServerContext:
    """Start the process that workers are forked from, if it does not run, without waiting for it.

    It has the modules and no threads, so that a worker is there, or replaced, in milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    os.environ["PYTHONSAFEPATH"] = "1"  # it would import from the current folder first, where anybody may have put a module
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # whose threads would take 90 MB each from a worker's address space
    forkserver.ensure_running()
    _hold_socket()
    return context


def _hold_socket() -> None:
    """Ask the fork server beneath the folder that its socket is in, held open.

    Once that folder is cleared away, as by `rm -r /tmp/*`, anybody may make one of its name with a socket of his own, and
    would be handed the pipes by which results come to us.
    """
    server = vars(_FORK_SERVER)
    if server["_forkserver_pid"] is None or Path(server["_forkserver_address"]).is_relative_to(_OPEN):
        return
    address = Path(server["_forkserver_address"])
    while _held:
        os.close(_held.pop())
    folder = "none"  # where there is nothing
    with suppress(OSError):  # it was cleared away before we came to it, or is somebody else's by now
        _held.append(os.open(address.parent, FOLDER))
        if os.fstat(_held[0]).st_uid == os.geteuid():
            folder = str(_held[0])
    server["_forkserver_address"] = str(_OPEN / folder / address.name)


def _replace_unreachable_fork_server() -> None:
    """Have another one started where its socket was cleared away: nobody could ask it for a process any more."""
    server = vars(_FORK_SERVER)
    pid, address = server["_forkserver_pid"], server["_forkserver_address"]
    if pid is None or Path(address).exists():
        return
    leave_cleared_folder()
    multiprocessing.current_process()._config["tempdir"] = None  # type: ignore[attr-defined]  # noqa: SLF001 -- was in it
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # whoever needs one next finds it dead, and starts another


def _limited(task: Callable[[], Result], seconds: float) -> Result:
    """Run a task in a worker, which SIGPROF ends after so many seconds of the processor."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return task()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _told(future: Future[Any], is_innocent: bool) -> Future[Any]:
    """Tell what the task did from what was done to it.

    Args:
        future: one that has ended.
        is_innocent: whether a time-out is not its doing; Pebble measures by a clock, and by one that can be set.

    """
    try:
        error = future.exception()
    except BaseException:  # cancelled, as the pool was stopped
        error = BrokenProcessPool()
    if isinstance(error, BrokenProcessPool) or (isinstance(error, TimeoutError) and is_innocent):
        return _failed(WorkersLost())
    if isinstance(error, ProcessExpired) and error.exitcode == -signal.SIGPROF:
        return _failed(TimeoutError("its processor time is used up"))
    return future


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _start_worker(address_space: int) -> None:
    """Runs in each new process: its limits, and its end when the daemon ends."""
    die_with_parent(signal.SIGKILL, IMPORTED_IN)  # the fork server, which ends with the daemon
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # libtiff and Pillow complain there about each damaged file; its rejection says it better
    os.close(silent)
