"""Files become readings, a chunk at a time: in processes that a hostile file may ruin, or here where it can harm nobody."""

from __future__ import annotations

import errno
import logging
import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

from daemon.config import InboxSettings
from daemon.drops import Drop, ImageFacts, Rejection, Rows
from daemon.folders import Folder
from daemon.reading.content import InvalidImage, read_content
from daemon.reading.decode import Picture, decode, images_of, read_harmless
from daemon.reading.readings import Readings
from daemon.reading.workers import Result, Workers, WorkersLost

log = logging.getLogger(__name__)

TOGETHER = 64  # files that are read, then decoded, then normalised: each of these leaves the processor cold for the others
TOGETHER_BYTES = 1 << 20  # of content, beyond which no further file is read before these are decoded
FILES_AT_ONCE = 256  # files that `decode_all` gives to a process at once
CHUNK_SECONDS = 2.0  # a worker gives back what it has after this long; the rest of the chunk is asked for again
WRITE_SECONDS = 20.0  # a disk may be slow; a worker that hangs longer is replaced
NO_READINGS = Readings.of([])
MOST_LOSSES = 5  # of the processes, in a row and over one task, before that is the machine's fault


@dataclass(slots=True)
class Decoded:
    """What became of a chunk, in the order of its drops.

    Attributes:
        drops, images, readings: those that can be predicted.
        refused: those that cannot be digit images, and why.
        failed: those that the machine could not read, and the error.
        left: those that time did not suffice for.

    """

    drops: Rows[Drop]
    images: Rows[ImageFacts]
    readings: Readings
    refused: list[Rejection]
    failed: list[tuple[Drop, OSError]]
    left: list[Drop]

    @classmethod
    def nothing(cls) -> Decoded:
        """Of an empty chunk."""
        return cls(Rows(), Rows(), NO_READINGS, [], [], [])

    def add(self, read: list[tuple[Drop, Picture]]) -> None:
        """Normalise pictures, and note what became of each."""
        images = images_of([picture for _, picture in read])
        found = []
        for (drop, _), image in zip(read, images, strict=True):
            if isinstance(image, InvalidImage):
                self.refused.append(_rejection(drop, image))
            else:
                self.drops.append(drop)
                self.images.append(ImageFacts(*image[1:]))
                found.append(image.readings)
        readings = Readings.of(found)
        self.readings = Readings.joined([self.readings, readings]) if len(self.readings) else readings


class Decoders(Workers):
    """Workers that decode chunks of claimed files, and write files.

    Args:
        work: the folder that they read; it may be replaced between two chunks.
        settings: the limits and the number of processes.

    """

    def __init__(self, work: Path, settings: InboxSettings) -> None:
        self.work, self._limits = work, (settings.max_bytes, settings.max_pixels)
        self._seconds = settings.decode_seconds
        longest = max(settings.decode_seconds + CHUNK_SECONDS, WRITE_SECONDS)
        super().__init__(settings.workers, settings.decoder_memory_mb * 2**20, longest)

    def decode(self, drops: list[Drop], done: Callable[[Future[Decoded]], None]) -> None:
        """Decode a chunk; `done` and errors are as in `run`."""
        seconds = self._seconds + (CHUNK_SECONDS if len(drops) > 1 else 0)
        self.run(partial(decode_chunk, self.work, Rows(drops), *self._limits), seconds, done)

    def write(self, task: Callable[[], Result], done: Callable[[Future[Result]], None]) -> None:
        """Do a task that writes files; `done` and errors are as in `run`."""
        self.run(task, WRITE_SECONDS, done, by_clock=True)


def decode_chunk(work: Path, drops: list[Drop], max_bytes: int, max_pixels: int) -> Decoded:
    """Load each image of a chunk, for as long as CHUNK_SECONDS allow."""
    decoded = Decoded.nothing()
    deadline = time.monotonic() + CHUNK_SECONDS
    waiting = deque(drops)
    with Folder(work) as folder:
        while waiting and time.monotonic() < deadline:
            contents = _read(folder, waiting, max_bytes, decoded)
            read: list[tuple[Drop, Picture]] = []
            while contents and time.monotonic() < deadline:
                drop, content = contents.popleft()
                try:
                    read.append((drop, decode(content, max_pixels)))
                except InvalidImage as error:
                    decoded.refused.append(_rejection(drop, error))
            decoded.add(read)
            waiting.extendleft(drop for drop, _ in reversed(contents))
    decoded.left = list(waiting)
    return decoded


def _read(folder: Folder, waiting: deque[Drop], max_bytes: int, decoded: Decoded) -> deque[tuple[Drop, bytes]]:
    """Take the next ones, and their contents."""
    contents: deque[tuple[Drop, bytes]] = deque()
    size = 0
    while waiting and len(contents) < TOGETHER and size < TOGETHER_BYTES:
        drop = waiting.popleft()
        try:
            content = read_content(drop.name, max_bytes, folder)
        except InvalidImage as error:
            decoded.refused.append(_rejection(drop, error))
        except OSError as error:
            decoded.failed.append((drop, error))
        else:
            contents.append((drop, content))
            size += len(content)
    return contents


def decode_harmless(work: Path, drops: list[Drop], max_pixels: int) -> Decoded:
    """Load those that can harm nobody, in this process and at once; all others are `left` for processes of their own."""
    decoded = Decoded.nothing()
    read: list[tuple[Drop, Picture]] = []
    try:
        with Folder(work) as folder:
            for drop in drops:
                picture = read_harmless(drop.name, max_pixels, folder)
                if picture:
                    read.append((drop, picture))
                else:
                    decoded.left.append(drop)
    except OSError:  # there is no such folder: whoever reads next will say so
        decoded.left = drops
    try:
        decoded.add(read)
    except Exception as error:  # a bug that one picture brings out: a process of its own finds out whose it is
        log.info("%d small pictures could not be read here (%r)", len(read), error)
        decoded = Decoded.nothing()
        decoded.left = drops
    return decoded


def _rejection(drop: Drop, error: InvalidImage) -> Rejection:
    return Rejection(drop, error.reason, error.detail, error.hint, error.sha256)


def lost_again(doing: str) -> OSError:
    """The fault that it is to lose the processes MOST_LOSSES times while they did something."""
    return OSError(errno.EAGAIN, f"the decoder processes were lost {MOST_LOSSES} times in a row while they {doing}")


def decode_all(folder: Path, names: list[str], limits: InboxSettings) -> Decoded:
    """Decode files of a folder under the daemon's limits, and wait for it.

    Returns:
        What became of each; `left` is empty. What the processes were lost on again and again, through no doing of its own,
        is among `failed`.

    """
    drops = [Drop(name, 0.0) for name in names]
    pending = deque((slice(start, start + FILES_AT_ONCE), 0) for start in range(0, len(drops), FILES_AT_ONCE))
    parts: list[tuple[int, Decoded]] = []  # each with where in `drops` it begins
    ended: queue.SimpleQueue[tuple[slice, int, Future[Decoded]]] = queue.SimpleQueue()
    running = 0
    decoders = Decoders(folder, limits)
    try:
        while pending or running:
            if pending and running <= limits.workers:  # one more than there are, so that none waits
                place, losses = pending.popleft()
                decoders.decode(drops[place], partial(_put, ended, place, losses))
                running += 1
                continue
            place, losses, future = ended.get()
            running -= 1
            try:
                part = future.result()
            except WorkersLost:
                if losses + 1 < MOST_LOSSES:
                    pending.append((place, losses + 1))
                    continue
                part = Decoded.nothing()
                part.failed = [(drop, lost_again("read it")) for drop in drops[place]]
            except Exception as error:  # a time-out or a dead process: whoever caused it, alone
                alone = range(*place.indices(len(drops)))
                if len(alone) > 1:
                    pending.extend((slice(at, at + 1), 0) for at in alone)
                    continue
                part = Decoded.nothing()
                part.refused = [Rejection(drops[place.start], "decoder_crashed", str(error), "", None)]
            parts.append((place.start, part))
            if part.left:
                pending.append((slice(min(place.stop, len(drops)) - len(part.left), place.stop), 0))
    finally:
        decoders.close()
    return _joined([part for _, part in sorted(parts, key=itemgetter(0))])


def _put(
    ended: queue.SimpleQueue[tuple[slice, int, Future[Decoded]]], place: slice, losses: int, future: Future[Decoded]
) -> None:
    ended.put((place, losses, future))


def _joined(parts: list[Decoded]) -> Decoded:
    whole = Decoded.nothing()
    for part in parts:
        whole.drops += part.drops
        whole.images += part.images
        whole.refused += part.refused
        whole.failed += part.failed
    whole.readings = Readings.joined([NO_READINGS, *(part.readings for part in parts)])
    return whole
