"""The pool of light processes that decode images and write results, so that a hostile file harms nobody but itself.

They never import TensorFlow. Each has an address-space limit; a task that outlasts its time limit costs its process, which
Pebble replaces. What Pebble cannot survive (its fork server or an idle process killed, a process killed while it holds the
lock of the channel) costs the pool, which is replaced here.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import queue
import resource
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessPool

from daemon.config import InboxSettings
from daemon.drops import Drop, ImageFacts, Rejection
from daemon.folders import Folder
from daemon.processes import die_with_parent
from daemon.reading.decode import InvalidImage, Picture, normalise_all, read_harmless, read_picture
from daemon.reading.readings import Readings

log = logging.getLogger(__name__)

TOGETHER = 32  # pictures that are normalised at once
CHUNK_SECONDS = 2.0  # a worker gives back what it has after this long; the rest of the chunk is asked for again
WRITE_SECONDS = 20.0  # a disk may be slow; a worker that hangs longer is replaced
STALLED_SECONDS = 10.0  # beyond the longest limit without any task ending: the pool is stuck
Result = TypeVar("Result")


@dataclass(slots=True)
class Decoded:
    """What became of a chunk, in the order of its drops.

    Attributes:
        drops, images, readings: those that can be predicted.
        refused: those that cannot be digit images, and why.
        failed: those that the machine could not read, and the error.
        left: those that time did not suffice for.

    """

    drops: list[Drop]
    images: list[ImageFacts]
    readings: Readings
    refused: list[Rejection]
    failed: list[tuple[Drop, OSError]]
    left: list[Drop]

    @classmethod
    def nothing(cls) -> Decoded:
        """Of an empty chunk."""
        return cls([], [], Readings.of([]), [], [], [])

    def add(self, read: list[tuple[Drop, Picture]]) -> None:
        """Normalise pictures, and note what became of each."""
        images = normalise_all([picture for _, picture in read])
        found = []
        for (drop, _), image in zip(read, images, strict=True):
            if isinstance(image, InvalidImage):
                self.refused.append(_rejection(drop, image))
            else:
                self.drops.append(drop)
                self.images.append(ImageFacts(image.sha256, image.format, image.width, image.height))
                found.append(image.readings)
        self.readings = Readings.joined([self.readings, Readings.of(found)])


class DecodersLost(Exception):
    """A task was given up because the processes were lost, through no doing of its own; it is to be given again."""


class Decoders:
    """Decodes chunks of claimed files, and writes files, in processes of their own.

    Args:
        work: the folder that they read.
        settings: the limits and the number of processes.

    """

    def __init__(self, work: Path, settings: InboxSettings) -> None:
        self._work, self._settings = work, settings
        self._context = start_fork_server()
        self._open: dict[Future[Any], float] = {}  # tasks that have not ended, and when they were given
        self._progress = time.monotonic()  # when a task ended last
        self._patience = STALLED_SECONDS + max(settings.decode_seconds + CHUNK_SECONDS, WRITE_SECONDS)
        self._pool: ProcessPool | None = None
        self.renew()

    def decode(self, drops: list[Drop], done: Callable[[Future[Decoded]], None]) -> None:
        """Decode a chunk; `done` is called, mostly from another thread, with a future that has its result or error.

        The error is a TimeoutError when it outlasted its limit, DecodersLost when it was given up innocently, ProcessExpired
        when the process died on it.

        Raises:
            OSError: there are no processes to be had now.

        """
        limits = (self._settings.max_bytes, self._settings.max_pixels)
        seconds = self._settings.decode_seconds + (CHUNK_SECONDS if len(drops) > 1 else 0)
        self._schedule(partial(decode_chunk, self._work, drops, *limits), seconds, done)

    def write(self, task: Callable[[], Result], done: Callable[[Future[Result]], None]) -> None:
        """Do a task that writes files; `done` and errors are as in `decode`."""
        self._schedule(task, WRITE_SECONDS, done)

    def renew(self) -> ProcessPool:
        """See to it that the processes work; where they do not, start others and give up what they had.

        Raises:
            OSError: there are none to be had now.

        """
        now = time.monotonic()
        stuck = bool(self._open) and now - max(self._progress, min(self._open.values())) > self._patience
        if self._pool is not None:
            if self._pool.active and not stuck:
                return self._pool
            log.warning("the decoder processes %s and are started anew", "do nothing" if stuck else "ended unexpectedly")
            self.close()
        for future in list(self._open):  # Pebble's threads have ended: nobody else will end it
            with suppress(Exception):  # they ended it on their way out
                future.set_exception(DecodersLost())
        limit = self._settings.decoder_memory_mb * 2**20
        pool = ProcessPool(
            max_workers=self._settings.workers, context=self._context, initializer=_start_worker, initargs=(limit,)
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

    def _schedule(self, task: Callable[[], object], seconds: float, done: Callable[[Future[Any]], None]) -> None:
        given = time.monotonic()
        try:
            future: Future[Any] = self.renew().schedule(task, timeout=seconds)
        except RuntimeError as error:  # the pool broke this very moment
            raise OSError(errno.EAGAIN, f"decoder processes: {error}") from error
        self._open[future] = given

        def ended(future: Future[Any]) -> None:
            self._open.pop(future, None)
            self._progress = time.monotonic()
            done(_innocent(future, self._progress - given < seconds))

        future.add_done_callback(ended)


def start_fork_server() -> ForkServerContext:
    """Start the process that decoders are forked from, if it does not run, without waiting for it.

    It has the modules and no threads, so that a decoder is there, or replaced, in milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["daemon.reading.workers", "daemon.answering.publish"])
    forkserver.ensure_running()
    return context


def _innocent(future: Future[Any], early: bool) -> Future[Any]:
    """Tell what the task did from what was done to it.

    Args:
        future: one that has ended.
        early: whether less time than its limit has passed; Pebble measures by a clock that can be set.

    """
    try:
        error = future.exception()
    except BaseException:  # cancelled, as the pool was stopped
        error = BrokenProcessPool()
    if isinstance(error, BrokenProcessPool) or (isinstance(error, TimeoutError) and early):
        future = Future()
        future.set_exception(DecodersLost())
    return future


def decode_chunk(work: Path, drops: list[Drop], max_bytes: int, max_pixels: int) -> Decoded:
    """Load each image of a chunk, for as long as CHUNK_SECONDS allow."""
    decoded = Decoded.nothing()
    deadline = time.monotonic() + CHUNK_SECONDS
    waiting = deque(drops)
    with Folder(work) as folder:
        while waiting and time.monotonic() < deadline:
            read: list[tuple[Drop, Picture]] = []
            while waiting and len(read) < TOGETHER and time.monotonic() < deadline:
                drop = waiting.popleft()
                try:
                    read.append((drop, read_picture(drop.name, max_bytes, max_pixels, folder)))
                except InvalidImage as error:
                    decoded.refused.append(_rejection(drop, error))
                except OSError as error:
                    decoded.failed.append((drop, error))
            decoded.add(read)
    decoded.left = list(waiting)
    return decoded


def decode_harmless(work: Path, drops: list[Drop]) -> Decoded:
    """Load those that can harm nobody, in this process and at once; all others are `left` for processes of their own."""
    decoded = Decoded.nothing()
    read: list[tuple[Drop, Picture]] = []
    try:
        with Folder(work) as folder:
            for drop in drops:
                picture = read_harmless(drop.name, folder)
                if picture:
                    read.append((drop, picture))
                else:
                    decoded.left.append(drop)
    except OSError:  # there is no such folder: whoever reads next will say so
        decoded.left = drops
    decoded.add(read)
    return decoded


def _rejection(drop: Drop, error: InvalidImage) -> Rejection:
    return Rejection(drop, error.reason, error.detail, error.hint, error.sha256)


def _start_worker(address_space: int) -> None:
    """Runs in each new process: its limits, and its end when the daemon ends."""
    die_with_parent(signal.SIGKILL)  # the fork server, which ends with the daemon
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # libtiff and Pillow complain there about each damaged file; its rejection says it better
    os.close(silent)


def decode_all(folder: Path, names: list[str], limits: InboxSettings) -> Decoded:
    """Decode files of a folder under the daemon's limits, and wait for it.

    Returns:
        What became of each; `left` is empty.

    """
    whole = Decoded.nothing()
    decoders = Decoders(folder, limits)
    pending = deque([Drop(name, 0.0) for name in names[start : start + 256]] for start in range(0, len(names), 256))
    readings = [whole.readings]
    try:
        while pending:
            drops = pending.popleft()
            done: queue.SimpleQueue[Future[Decoded]] = queue.SimpleQueue()
            decoders.decode(drops, done.put)
            try:
                part = done.get().result()
            except DecodersLost:
                pending.append(drops)
                continue
            except Exception as error:  # a time-out or a dead process: whoever caused it, alone
                if len(drops) > 1:
                    pending.extend([drop] for drop in drops)
                else:
                    whole.refused.append(Rejection(drops[0], "decoder_crashed", str(error), "", None))
                continue
            whole.drops += part.drops
            whole.images += part.images
            whole.refused += part.refused
            whole.failed += part.failed
            readings.append(part.readings)
            if part.left:
                pending.append(part.left)
    finally:
        decoders.close()
    whole.readings = Readings.joined(readings)
    return whole
