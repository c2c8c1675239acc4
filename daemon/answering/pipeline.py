"""The line every image walks: claim, decode, predict, publish, retire; `Pipeline._walk` and `_answer` are that line.

Whether it walks among few or among many is decided when it is claimed. A few walk the whole line in the pipeline's thread,
for each hand-over takes longer than the work. Many are decoded and published by processes and predicted by a thread of
their own, so that the next ones are claimed meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
from functools import partial

from daemon.answering.counting import count_answers
from daemon.answering.predicting import Predicting
from daemon.answering.publish import prepare, publish_predictions, publish_rejection
from daemon.answering.records import prediction_records, rejection_record
from daemon.answering.retirement import Answered, Folders, Retirement
from daemon.answering.walks import Elsewhere, Step, Walks
from daemon.changes import tell_in_force
from daemon.config import Settings
from daemon.drops import Drop, Predictions, Rejection, with_ending
from daemon.files import RETRY_SECONDS, file_system_time, printable
from daemon.intake.claiming import Intake
from daemon.reading.chunks import MOST_LOSSES, Decoded, Decoders, decode_harmless, lost_again
from daemon.reading.workers import WorkersLost
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

log = logging.getLogger(__name__)

CHUNK = 256  # images that walk together at most
CHUNKS_IN_FLIGHT = 6  # claimed and not published
FEW = 8  # up to so many drops are decoded, if harmless, and answered here: a hand-over to another process costs more
PARTS = 16  # a chunk that killed its decoder is tried again in so many; then the part that kills, image by image
SOLO_TRIES = 3  # a process that dies on an image alone may have been killed by somebody; not three times
CLOSING = ("results", "retire", "disk", "decoders")  # sources whose faults keep the intake closed; their own retries open it
UNFINISHED = {"not_an_image", "truncated", "unreadable"}  # what a file that is still being written looks like


class Pipeline:
    """Walks images from the inbox to their results. One thread runs it; work comes to it as steps in a queue.

    Args:
        inbox: where drops come from; what wakes it must put something into `steps`.
        decoders: the light processes.
        predicting: its passes are made by another thread.
        retirement: what is published is handed to it.
        settings: those of the inbox and of inference are kept; `apply` replaces them.
        steps: what this thread is to do next.
        few: up to so many drops walk the whole line in this thread; with CHUNK, all do, and nobody need predict elsewhere.

    """

    def __init__(
        self,
        inbox: Intake,
        decoders: Decoders,
        predicting: Predicting,
        retirement: Retirement,
        folders: Folders,
        readiness: Readiness,
        metrics: Metrics,
        settings: Settings,
        steps: queue.SimpleQueue[Step],
        few: int = FEW,
    ) -> None:
        self._inbox, self._decoders, self._predicting, self._retirement = inbox, decoders, predicting, retirement
        self._folders, self._readiness, self._metrics = folders, readiness, metrics
        self._settings, self._few = settings, few
        self._walks = Walks(steps)
        self._in_flight = 0  # images that are claimed and not published
        self._unreadable: set[str] = set()  # names in work/ that the machine could not read
        self._paused_until = 0.0

    def apply(self, settings: Settings) -> None:
        """Put in force what may change while images walk; a step, so that it comes between batches."""
        self._inbox.apply(settings.inbox)
        tell_in_force(log, self._settings, settings, "inbox", "inference")
        self._settings = settings

    @property
    def idle(self) -> bool:
        """Whether nothing that was claimed waits for its JSON."""
        return self._in_flight == 0

    def run_once(self, longest: float, claim: bool = True) -> None:
        """Claim a chunk, then take the steps that are there, or wait for one for at most `longest` seconds."""
        now = time.monotonic()
        self._renew_decoders()
        self._readiness.report("disk", self._retirement.slowness(now))
        wait = longest
        if claim and now >= self._paused_until and not any(map(self._readiness.is_held, CLOSING)):
            self._claim()
            if self._in_flight < CHUNKS_IN_FLIGHT * CHUNK:
                wait = min(wait, self._inbox.due_in())
        self._inbox.survey()
        self._walks.run_once(wait)

    def _renew_decoders(self) -> None:
        try:
            self._decoders.renew()
        except OSError as error:
            self._readiness.fault("decoders", error)
            self._paused_until = time.monotonic() + RETRY_SECONDS
        else:
            self._readiness.report("decoders", None)

    def _claim(self) -> None:
        try:
            drops = self._inbox.take(min(CHUNK, CHUNKS_IN_FLIGHT * CHUNK - self._in_flight))
        except OSError as error:
            self._readiness.fault("inbox", error)
            self._paused_until = time.monotonic() + RETRY_SECONDS
            return
        self._readiness.report("inbox", None)
        self._in_flight += len(drops)
        if len(drops) > self._few:
            self._walks.begin(self._walk(drops, few=False))
        elif drops:
            decoded = decode_harmless(self._folders.work, drops, self._settings.inbox.max_pixels)
            self._walks.begin(self._answer(decoded, True, time.time()))

    async def _walk(self, drops: list[Drop], few: bool, tries: int = 1, losses: int = 0) -> None:
        """Decode in a process of its own, then answer."""
        claimed = time.time()
        try:
            decoded = await Elsewhere(partial(self._decoders.decode, drops))
        except WorkersLost:
            await self._walk_again(drops, few, tries, losses + 1)
        except TimeoutError as error:
            if len(drops) > 1:  # what hangs costs its whole limit again in each part that it is in: so at once alone
                self._split(drops, 1, few, error)
            else:
                detail = "Decoding took longer than allowed, on the processor alone."
                hint = "Save the picture as PNG, or raise [inbox] decode_seconds."
                await self._refuse(Rejection(drops[0], "too_slow", detail, hint, None))
        except OSError as error:
            await self._try_again("decoders", error)
            self._walks.begin(self._walk(drops, few, tries))
        except Exception as error:  # a dead process, or a bug that one image brings out: the culprit's end
            if len(drops) > 1:
                self._split(drops, -(-len(drops) // PARTS), few, error)
            elif tries < SOLO_TRIES:
                self._walks.begin(self._walk(drops, few, tries + 1))
            else:
                detail = f"The decoder process died on it, {tries} times: {type(error).__name__}: {error}."
                hint = "It is damaged, or needs more than [inbox] decoder_memory_mb; save the picture as a smaller PNG."
                await self._refuse(Rejection(drops[0], "decoder_crashed", detail, hint, None))
        else:
            self._metrics.stage_seconds.labels("decode").observe(time.time() - claimed)
            await self._answer(decoded, few, claimed)

    async def _walk_again(self, drops: list[Drop], few: bool, tries: int, losses: int) -> None:
        """The processes were lost, so many times in a row: that is nobody's end, but it is said."""
        if losses == MOST_LOSSES and len(drops) > 1:  # perhaps one of them does it
            self._split(drops, -(-len(drops) // PARTS), few, lost_again("read it"))
            return
        if losses == MOST_LOSSES:
            await self._try_again("decoders", lost_again(f"read {printable(drops[0].name)}"))
        self._walks.begin(self._walk(drops, few, tries, losses % MOST_LOSSES))

    def _split(self, drops: list[Drop], size: int, few: bool, error: Exception) -> None:
        log.info("a chunk of %d images could not be decoded (%s); tried again by %d", len(drops), error, size)
        for start in range(0, len(drops), size):
            self._walks.begin(self._walk(drops[start : start + size], few))

    async def _answer(self, decoded: Decoded, few: bool, claimed: float) -> None:
        """Predict, publish and retire what was decoded; what was not goes ways of its own."""
        if decoded.left:
            self._walks.begin(self._walk(decoded.left, few))
        for drop, fault in decoded.failed:
            self._walks.begin(self._read_again(drop, fault))
        for rejection in decoded.refused:
            self._walks.begin(self._refuse(rejection))
        if not decoded.drops:
            return
        predict, limits = self._predicting, self._settings.inference
        batch, pixels = predict.here(decoded, claimed, limits) if few else await predict.elsewhere(decoded, claimed, limits)
        elsewhere = await self._publish(batch, few)
        self._retire(batch, elsewhere)
        self._metrics.drift.add(pixels, batch.probabilities)

    async def _publish(self, batch: Predictions, few: bool) -> dict[int, str]:
        """Make the results appear. While the machine refuses, intake is closed and the work is done again.

        Returns:
            The names of those that could not have their usual one, by position.

        """
        started = time.monotonic()
        publish = partial(publish_predictions, self._folders.results, batch)
        losses = 0
        while True:
            try:
                elsewhere = publish() if few else await Elsewhere(partial(self._decoders.write, publish))
            except WorkersLost:
                losses += 1
                if losses % MOST_LOSSES == 0:
                    await self._try_again("decoders", lost_again(f"wrote {len(batch.drops)} results"))
            except Exception as error:  # whatever it is, the originals are still there
                fault = error if isinstance(error, OSError) else OSError(errno.EIO, f"writing results: {error!r}")
                await self._write_again(fault)
            else:
                break
        self._readiness.report("results", None)
        self._metrics.stage_seconds.labels("publish").observe(time.monotonic() - started)
        return elsewhere

    def _retire(self, batch: Predictions, elsewhere: dict[int, str]) -> None:
        """Hand the originals over to be retired, then count."""
        now = time.time()
        self._end(batch.drops)
        kept = [with_ending(drop.name, "", "") for drop in batch.drops]
        for number, name in elsewhere.items():  # with several hosts on one folder, each original keeps to its JSON
            kept[number] = name.removesuffix(".json")
        processed, records = self._folders.processed, prediction_records(batch, elsewhere)
        each = zip(batch.drops, batch.images, kept, records, strict=True)
        self._retirement.put([Answered(drop.name, image.sha256, processed, name, told) for drop, image, name, told in each])
        count_answers(self._metrics, batch, now)
        digits = batch.probabilities.argmax(axis=1)
        if len(batch.drops) <= FEW:
            for drop, digit, row in zip(batch.drops, digits.tolist(), batch.probabilities.tolist(), strict=True):
                log.info("%s is a %d (%.2f %%)", printable(drop.name), digit, 100 * row[digit])
        else:
            log.info("answered %d images; %d more wait", len(batch.drops), self._inbox.waiting())

    async def _read_again(self, drop: Drop, fault: OSError) -> None:
        """The machine failed on this file: it is tried again until it works; others go on."""
        if isinstance(fault, FileNotFoundError):
            log.warning("%s: somebody took it out of work/ before it was read", printable(drop.name))
            self._end([drop])
            self._inbox.release(drop.name)
            return
        self._unreadable.add(drop.name)
        await self._try_again("read", fault)
        await self._walk([drop], few=True)

    async def _refuse(self, rejection: Rejection) -> None:
        """Publish and retire a rejection; a file that may be unfinished is given back to whoever writes it instead."""
        drop = rejection.drop
        while True:
            try:
                if rejection.reason in UNFINISHED and self._is_young(drop):
                    if self._inbox.put_back(drop):
                        self._end([drop])
                    else:  # it is finished here, then
                        await self._walks.pause(RETRY_SECONDS)
                        self._walks.begin(self._walk([drop], few=True))
                    return
                now = time.time()
                kept, json = publish_rejection(self._folders.work, self._folders.rejected, rejection, now)
            except OSError as error:
                await self._write_again(error)
            else:
                break
        self._readiness.report("results", None)
        self._end([drop])
        record = rejection_record(rejection, now, json) if json else None
        self._retirement.put([Answered(drop.name, rejection.sha256, self._folders.rejected, kept, record)])
        self._metrics.images.labels("rejected").inc()
        self._metrics.rejections.labels(rejection.reason).inc()
        log.warning("%s rejected: %s: %s", printable(drop.name), rejection.reason, rejection.detail)

    def _is_young(self, drop: Drop) -> bool:
        """Whether the file changed so lately that its writer may not be done."""
        try:
            changed = os.lstat(f"{self._folders.work}/{drop.name}").st_mtime
        except FileNotFoundError:
            return False
        return abs(file_system_time(self._folders.work) - changed) < self._settings.inbox.grace_seconds

    def _end(self, drops: list[Drop]) -> None:
        """These walk no further than to be retired."""
        self._inbox.answered(drops)
        self._in_flight -= len(drops)
        if self._unreadable:
            self._unreadable.difference_update(drop.name for drop in drops)
            if not self._unreadable:
                self._readiness.report("read", None)

    async def _try_again(self, source: str, error: OSError) -> None:
        """The machine refused: it is said why, and a little later the walk goes on."""
        self._readiness.fault(source, error)
        await self._walks.pause(RETRY_SECONDS)

    async def _write_again(self, error: OSError) -> None:
        """The machine refused a JSON, perhaps because its folder is gone."""
        await self._try_again("results", error)
        try:
            for folder in (self._folders.results, self._folders.rejected):
                prepare(folder)
        except OSError as fault:
            self._readiness.fault("results", fault)
