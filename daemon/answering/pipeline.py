"""The line every image walks: claim, decode, batch, predict, publish, retire.

Large batches are decoded and published by processes and predicted by a thread of their own, so that the next one is claimed
meanwhile; a few drops walk the whole line in the pipeline's thread, for each hand-over takes longer than the work.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import numpy as np

from daemon.answering.choice import answer
from daemon.answering.publish import prepare, publish_predictions, publish_rejection, remove_orphaned_temporaries
from daemon.answering.retirement import Answered, Folders, Retirement
from daemon.config import Settings
from daemon.drops import Drop, Predictions, Rejection
from daemon.files import printable
from daemon.intake.inbox import Inbox
from daemon.models.live import LiveModel
from daemon.reading.workers import Decoded, Decoders, DecodersLost, decode_harmless
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

log = logging.getLogger(__name__)

CHUNK = 256  # images that walk together at most
CHUNKS_IN_FLIGHT = 6  # claimed and not published
INLINE = 8  # up to so many drops are decoded, if harmless, and answered here: a hand-over to another process costs more
RETRY_SECONDS = 1.0  # between two tries on something that the machine refused
PARTS = 16  # that a chunk is tried again in whose decoder died; the culprit's part then image by image
SOLO_TRIES = 3  # a process that dies on an image alone may have been killed by somebody; so often, it is the image's doing
CLOSING = ("results", "retire", "decoders")  # sources whose faults keep the intake closed; their own retries open it
UNFINISHED = {"not_an_image", "truncated", "unreadable"}  # what a file that is still being written looks like


class Pipeline:
    """Walks images from the inbox to their results. One thread runs it, with a second one that predicts its large batches.

    Work comes to the first as steps in a queue.

    Args:
        inbox: where drops come from; its `wake` must be this pipeline's `wake`.
        decoders: the light processes.
        model: gives the model that is live now; asked once for each batch, which keeps it to its end.
        review_below: confidence under which an answer is marked for review.
        grace_seconds: how long an unreadable file must be unchanged before it is rejected.

    """

    def __init__(
        self,
        inbox: Inbox,
        decoders: Decoders,
        model: Callable[[], LiveModel],
        retirement: Retirement,
        folders: Folders,
        readiness: Readiness,
        metrics: Metrics,
        settings: Settings,
        steps: queue.SimpleQueue[Callable[[], None]],
    ) -> None:
        self._inbox, self._decoders, self._model, self._retirement = inbox, decoders, model, retirement
        self._folders, self._readiness, self._metrics = folders, readiness, metrics
        self._settings = settings
        self._steps = steps
        self._in_flight = 0  # images that are claimed and not published
        self._again: deque[tuple[float, Callable[[], None]]] = deque()  # (when, what) to try once more
        self._unreadable: set[str] = set()  # names in work/ that the machine could not read
        self._paused_until = 0.0
        self._to_predict: queue.SimpleQueue[tuple[Decoded, float]] = queue.SimpleQueue()

    def apply(self, settings: Settings) -> None:
        """Put in force what may change while images walk; a step, so that it comes between batches."""
        self._inbox.apply(settings.inbox)
        for change in settings.changes_in_force(self._settings, "inbox", "inference"):
            log.info("%s", change)
        self._settings = settings

    @property
    def idle(self) -> bool:
        """Whether nothing that was claimed waits for its JSON."""
        return self._in_flight == 0

    def run_once(self, longest: float, claim: bool = True) -> None:
        """Claim a chunk, then take the steps that are there, or wait for one for at most `longest` seconds."""
        now = time.monotonic()
        while self._again and self._again[0][0] <= now:
            self._again.popleft()[1]()
        self._renew_decoders()
        wait = longest
        if claim and now >= self._paused_until and not any(map(self._readiness.is_held, CLOSING)):
            self._claim()
            if self._in_flight < CHUNKS_IN_FLIGHT * CHUNK:
                wait = min(wait, self._inbox.due_in())
        if self._again:
            wait = min(wait, max(0.0, self._again[0][0] - now))
        self._inbox.survey()
        try:
            step = self._steps.get(timeout=wait)
        except queue.Empty:
            return
        step()
        for _ in range(self._steps.qsize()):  # what has come by now, before more is claimed
            self._steps.get_nowait()()

    def predict_once(self, longest: float) -> None:
        """Predict one large batch, or wait for one for at most `longest` seconds; in a thread of its own."""
        try:
            decoded, claimed = self._to_predict.get(timeout=longest)
        except queue.Empty:
            return
        self._steps.put(partial(self._answer, *self._predict(decoded, claimed)))

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
            self._in_flight += len(drops)
            if len(drops) > INLINE:
                self._decode(drops)
            elif drops:
                self._walk_on(decode_harmless(self._folders.work, drops), time.time())
        except OSError as error:
            self._readiness.fault("inbox", error)
            self._paused_until = time.monotonic() + RETRY_SECONDS
        else:
            self._readiness.report("inbox", None)

    def _decode(self, drops: list[Drop], tries: int = 1) -> None:
        claimed = time.time()

        def done(future: Future[Decoded]) -> None:
            self._steps.put(partial(self._decoded, drops, tries, claimed, future))

        try:
            self._decoders.decode(drops, done)
        except OSError as error:
            self._try_again("decoders", error, partial(self._decode, drops, tries))

    def _decoded(self, drops: list[Drop], tries: int, claimed: float, future: Future[Decoded]) -> None:
        try:
            decoded = future.result()
        except Exception as error:  # a time-out, a dead process, or a bug that one image brings out: the culprit's end
            self._decoding_failed(drops, tries, error)
            return
        self._metrics.stage_seconds.labels("decode").observe(time.time() - claimed)
        self._walk_on(decoded, claimed)

    def _walk_on(self, decoded: Decoded, claimed: float) -> None:
        if decoded.left:
            self._decode(decoded.left)
        for drop, fault in decoded.failed:
            self._cannot_read(drop, fault)
        for rejection in decoded.refused:
            self._refuse(rejection)
        if len(decoded.drops) > INLINE:
            self._to_predict.put((decoded, claimed))
        elif decoded.drops:
            self._answer(*self._predict(decoded, claimed))

    def _decoding_failed(self, drops: list[Drop], tries: int, error: Exception) -> None:
        if isinstance(error, DecodersLost):
            self._decode(drops, tries)
        elif len(drops) > 1:
            # What hangs costs its whole time limit again in each part that it is in: so at once alone.
            size = 1 if isinstance(error, TimeoutError) else -(-len(drops) // PARTS)
            log.info("a chunk of %d images could not be decoded (%s); tried again by %d", len(drops), error, size)
            for start in range(0, len(drops), size):
                self._decode(drops[start : start + size])
        elif isinstance(error, TimeoutError):
            self._refuse(
                Rejection(
                    drops[0],
                    "too_slow",
                    f"Decoding took longer than allowed: {error}.",
                    "Save the picture as PNG, or raise [inbox] decode_seconds.",
                    None,
                )
            )
        elif tries < SOLO_TRIES:
            self._decode(drops, tries + 1)
        else:
            self._refuse(
                Rejection(
                    drops[0],
                    "decoder_crashed",
                    f"The decoder process died on it, {tries} times: {type(error).__name__}: {error}.",
                    "The file is damaged, or needs more than [inbox] decoder_memory_mb; save the picture as a smaller PNG.",
                    None,
                )
            )

    def _cannot_read(self, drop: Drop, fault: OSError) -> None:
        """The machine failed on this file: it is tried again until it works; others go on."""
        if isinstance(fault, FileNotFoundError):
            log.warning("%s: somebody took it out of work/ before it was read", printable(drop.name))
            self._ended([drop])
            self._inbox.release(drop.name)
            return
        self._unreadable.add(drop.name)
        self._try_again("read", fault, partial(self._decode, [drop]))

    def _ended(self, drops: list[Drop]) -> None:
        """These walk no further than to be retired."""
        self._inbox.answered(drops)
        self._in_flight -= len(drops)
        if self._unreadable:
            self._unreadable.difference_update(drop.name for drop in drops)
            if not self._unreadable:
                self._readiness.report("read", None)

    def _try_again(self, source: str, error: OSError, again: Callable[[], None]) -> None:
        """The machine refused: it is said why, and the same is done again a little later."""
        self._readiness.fault(source, error)
        self._again.append((time.monotonic() + RETRY_SECONDS, again))

    def _predict(self, decoded: Decoded, claimed: float) -> tuple[Predictions, np.ndarray, float]:
        """The predictions, what they were made of, (n, 28, 28) uint8, and how many seconds the model took."""
        model = self._model()
        started = time.monotonic()
        answers = answer(model, decoded.readings)
        seconds = time.monotonic() - started
        batch = Predictions(
            decoded.drops,
            decoded.images,
            answers.probabilities,
            answers.review_reasons(self._settings.inference),
            answers.identity.version,
            answers.identity.sha256,
            claimed,
            time.time(),
        )
        return batch, answers.pixels, seconds

    def _answer(self, batch: Predictions, pixels: np.ndarray, seconds: float) -> None:
        self._publish(batch)
        self._metrics.stage_seconds.labels("predict").observe(seconds)  # counting comes after what somebody waits for
        self._metrics.batch_size.observe(len(batch.drops))
        self._metrics.drift.add(pixels, batch.probabilities)

    def _publish(self, batch: Predictions) -> None:
        started = time.monotonic()
        if len(batch.drops) <= INLINE:
            try:
                publish_predictions(self._folders.results, batch)
            except OSError as error:
                self._not_published(partial(self._publish, batch), error)
            else:
                self._published(batch, started)
            return

        def done(future: Future[None]) -> None:
            self._steps.put(partial(self._publish_done, batch, started, future))

        try:
            self._decoders.write(partial(publish_predictions, self._folders.results, batch), done)
        except OSError as error:
            self._try_again("decoders", error, partial(self._publish, batch))

    def _publish_done(self, batch: Predictions, started: float, future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            self._published(batch, started)
        elif isinstance(error, DecodersLost):
            self._publish(batch)
        else:  # whatever it is, the work is done again
            fault = error if isinstance(error, OSError) else OSError(errno.EIO, f"writing results: {error!r}")
            self._not_published(partial(self._publish, batch), fault)

    def _not_published(self, again: Callable[[], None], error: OSError) -> None:
        """The machine refused a JSON: the intake is closed, the original stays in work/, the work is done again."""

        def retry() -> None:
            self._prepare_folders()
            again()

        self._try_again("results", error, retry)

    def _prepare_folders(self) -> None:
        try:
            for folder in (self._folders.results, self._folders.rejected):
                prepare(folder)
                remove_orphaned_temporaries(folder)
        except OSError as error:
            self._readiness.fault("results", error)

    def _published(self, batch: Predictions, started: float) -> None:
        now = time.time()
        self._readiness.report("results", None)
        self._ended(batch.drops)
        self._retirement.put(
            [
                Answered(drop.name, image.sha256, self._folders.processed)
                for drop, image in zip(batch.drops, batch.images, strict=True)
            ]
        )
        self._metrics.stage_seconds.labels("publish").observe(time.monotonic() - started)
        digits = batch.probabilities.argmax(axis=1)
        for digit, count in enumerate(np.bincount(digits, minlength=10).tolist()):
            self._metrics.predictions.labels(str(digit)).inc(count)
        for confidence in batch.probabilities.max(axis=1).tolist():
            self._metrics.confidence.observe(confidence)
        for drop in batch.drops:
            self._metrics.image_seconds.observe(max(0.0, now - drop.received))
        reasons = Counter(reason for reason in batch.review_reasons if reason)
        for reason, count in reasons.items():
            self._metrics.reviews.labels(reason).inc(count)
        self._metrics.images.labels("review").inc(reasons.total())
        self._metrics.images.labels("accepted").inc(len(batch.drops) - reasons.total())
        if len(batch.drops) <= INLINE:
            for drop, digit, row in zip(batch.drops, digits.tolist(), batch.probabilities.tolist(), strict=True):
                log.info("%s is a %d (%.2f %%)", printable(drop.name), digit, 100 * row[digit])
        else:
            log.info("answered %d images; %d more wait", len(batch.drops), self._inbox.waiting())

    def _refuse(self, rejection: Rejection) -> None:
        try:
            if rejection.reason in UNFINISHED and self._is_young(rejection.drop) and self._inbox.put_back(rejection.drop):
                self._ended([rejection.drop])
                return
            publish_rejection(self._folders.work, self._folders.rejected, rejection, time.time())
        except OSError as error:
            self._not_published(partial(self._refuse, rejection), error)
            return
        self._readiness.report("results", None)
        self._ended([rejection.drop])
        self._retirement.put([Answered(rejection.drop.name, rejection.sha256, self._folders.rejected)])
        self._metrics.images.labels("rejected").inc()
        self._metrics.rejections.labels(rejection.reason).inc()
        log.warning("%s rejected: %s: %s", printable(rejection.drop.name), rejection.reason, rejection.detail)

    def _is_young(self, drop: Drop) -> bool:
        """Whether the file changed so lately that its writer may not be done."""
        try:
            age = time.time() - os.lstat(f"{self._folders.work}/{drop.name}").st_mtime
        except FileNotFoundError:
            return False
        return 0 <= age < self._settings.inbox.grace_seconds
