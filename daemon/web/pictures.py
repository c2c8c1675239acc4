"""Pictures, made anew: what somebody dropped is never sent as it is, for to a browser it may be a page or a program."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from daemon.config import Settings
from daemon.index.retention import parts
from daemon.index.schema import NoIndex
from daemon.reading.content import InvalidImage
from daemon.reading.showing import LARGEST, show, show_seen
from daemon.reading.workers import Workers, WorkersLost
from daemon.web import answers

if TYPE_CHECKING:
    from daemon.web.site import Site

SIDES = {"small": 160, "large": LARGEST}  # pixels, at most
KEEP_SECONDS = 86400  # the name of a picture holds its digest, so it never changes
TRIES = 2


class Pictures:
    """Has pictures made in processes with limits, which hostile ones may ruin.

    Args:
        settings: the limits.

    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: Workers | None = None
        self._lock = threading.Lock()

    async def make(self, folder: str, name: str, sha256: str, kind: str) -> bytes:
        """An image as a PNG.

        Args:
            folder, name: where it is.
            sha256: of the image that is meant.
            kind: "small", "large", or "seen": what the network saw, 28x28.

        Raises:
            InvalidImage: it cannot be shown.
            OSError: it is not there, is another one, or the machine failed.

        """
        inbox = self._settings.inbox
        arguments = (self._settings.folder(folder), name, sha256, inbox.max_bytes, inbox.max_pixels)
        task = partial(show_seen, *arguments) if kind == "seen" else partial(show, *arguments, SIDES[kind])
        for _ in range(TRIES):
            try:
                return await self._run(task)
            except WorkersLost:
                continue
            except TimeoutError as error:
                raise InvalidImage("too_slow", "It takes too long to decode.", "") from error
            except Exception as error:
                if isinstance(error, InvalidImage | OSError):
                    raise
                raise InvalidImage("decoder_crashed", "Its decoder crashed.", "") from error
        raise OSError("the decoder processes were lost")

    async def _run(self, task: partial[bytes]) -> bytes:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[bytes] = loop.create_future()

        def finish(future: Future[bytes]) -> None:
            if made.cancelled():
                return
            if error := future.exception():
                made.set_exception(error)
            else:
                made.set_result(future.result())

        def done(future: Future[bytes]) -> None:
            with suppress(RuntimeError):  # the page has ended meanwhile
                loop.call_soon_threadsafe(finish, future)

        workers = await asyncio.to_thread(self.start)
        workers.run(task, self._settings.inbox.decode_seconds, done)
        return await made

    def start(self) -> Workers:
        """Start the processes, where they do not run yet."""
        inbox = self._settings.inbox
        with self._lock:
            if self._workers is None:
                self._workers = Workers(inbox.workers, inbox.decoder_memory_mb << 20, inbox.decode_seconds)
            return self._workers

    def close(self) -> None:
        """End the processes."""
        if self._workers is not None:
            self._workers.close()


def routes(site: Site) -> list[Route]:
    """/picture/<what a page calls the answer>/<kind>.png."""

    async def picture(request: Request) -> Response:
        kind = request.path_params["kind"]
        try:
            row = await asyncio.to_thread(_read, site, request.path_params["called"])
        except NoIndex as error:
            return _none(str(error))
        if row is None or row["sha256"] is None or kind not in (*SIDES, "seen"):
            return _none("There is no such answer.")
        original = parts(row)[0]
        try:
            content = await site.pictures.make(original.key, original.path, row["sha256"].hex(), kind)
        except InvalidImage as error:
            return _none(error.detail)
        except OSError:
            return _none("The image is not in its folder any more.")
        return Response(
            content, media_type="image/png", headers={"cache-control": f"private, max-age={KEEP_SECONDS}, immutable"}
        )

    return [Route("/picture/{called}/{kind}.png", picture)]


def _none(why: str) -> Response:
    """No page, for sixty of them may be asked for at once."""
    return PlainTextResponse(why, 404)


def _read(site: Site, called: str) -> sqlite3.Row | None:
    with site.index() as index:
        return answers.read(index, called)
