"""What a person says of images on the page: written as `digitd correct` writes it, and taken back."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon.files import printable
from daemon.folders import Folder
from daemon.index.queries import of_content
from daemon.index.retention import parts
from daemon.index.schema import NoIndex
from daemon.reading.content import InvalidImage
from daemon.training.corrections import NAMES
from daemon.training.labelling import Labelled, Labelling
from daemon.web import answers
from daemon.web.site import Site, query

MOST_UNDONE = 1000  # steps that can be taken back, of all who label here
MOST_AT_ONCE = 500  # answers in one form
MOST_NAMES = 100  # of one image, that are looked for among the labels

Step = list[Labelled]


def routes(site: Site) -> list[Route]:
    """POST /label and POST /undo; both tell what they did as JSON, or lead back to the page that the form names."""
    steps: OrderedDict[str, Step] = OrderedDict()

    async def label(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("ascii", "replace"))
        meant, name = form.get("answer", []), form.get("label", [""])[-1]
        if name not in NAMES or not 0 < len(meant) <= MOST_AT_ONCE:
            raise HTTPException(400, f"Expected answers and what they show ({', '.join(NAMES)}). Received: {name!r}.")
        wrong = [answer for answer in meant if answer in form.get("wrong", [])]  # of the grid: these are not meant
        meant = [answer for answer in meant if answer not in wrong]
        step, failed = await asyncio.to_thread(_label, site, meant, name)
        key = secrets.token_urlsafe(9)
        if step:
            steps[key] = step
            while len(steps) > MOST_UNDONE:
                steps.popitem(last=False)
        said = f"{len(step)} labelled {_words(name)}." if len(step) != 1 else f"Labelled {_words(name)}."
        return _done(request, form, said if step else "", failed, undo=key if step else "", wrong=",".join(wrong))

    async def undo(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("ascii", "replace"))
        step = steps.pop(form.get("undo", [""])[0], None)
        if step is None:
            return _done(request, form, "", ["It is undone already, or too long ago: label the image again."])
        failed = await asyncio.to_thread(_take_back, site, step)
        return _done(request, form, "" if failed else "Undone.", failed)

    return [Route("/label", label, methods=["POST"]), Route("/undo", undo, methods=["POST"])]


def _words(name: str) -> str:
    return "as no digit" if name == "none" else name


def _done(
    request: Request, form: dict[str, list[str]], said: str, failed: list[str], undo: str = "", wrong: str = ""
) -> Response:
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"said": said, "failed": failed, "undo": undo}, 409 if failed else 200)
    if failed:
        raise HTTPException(409, " ".join(failed[:10]))
    back = form.get("back", ["/review"])[0]
    if not back.startswith(("/review", "/grid")):
        back = "/review"
    added = query({"undo": undo, "wrong": wrong}).removeprefix("?")
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}{added}" if added else back, 303)


def _label(site: Site, meant: list[str], name: str) -> tuple[Step, list[str]]:
    """Label answers, each by its handle.

    Returns:
        What was done, and a sentence for each that could not be labelled.

    """
    settings, step, failed = site.settings, [], []
    try:
        with (
            site.writing,
            site.index() as index,
            Labelling(settings.folder("corrections"), settings.inbox.max_bytes, partial(_places, index)) as labels,
        ):
            for answer in meant:
                row = answers.read(index, answer)
                if row is None or row["sha256"] is None:
                    failed.append("An answer is not in the index any more: it was deleted, or is found again in a while.")
                    continue
                original = parts(row)[0]
                if row["gone"] & original.bit:
                    where = f"in archive/{row['archive']}" if row["archive"] else "deleted"
                    failed.append(f"{printable(original.path)} is {where}: `digitd restore` may fetch it.")
                    continue
                try:
                    with Folder(settings.folder(original.key)) as folder:
                        step.append(labels.label(folder, original.path, name, row["sha256"].hex()))
                except (InvalidImage, OSError) as error:
                    failed.append(f"{printable(original.path)}: {_why(error)}")
    except (NoIndex, OSError, sqlite3.Error) as error:
        failed.append(_why(error))
    return step, failed


def _places(index: sqlite3.Connection, sha256: str) -> Iterator[str]:
    """Where labels of an image may be, under whichever names it was dropped; no folder is listed for it."""
    for row in of_content(index, bytes.fromhex(sha256))[:MOST_NAMES]:
        yield from answers.label_places(index, row)


def _take_back(site: Site, step: Step) -> list[str]:
    failed = []
    settings = site.settings
    try:
        with site.writing, Labelling(settings.folder("corrections"), settings.inbox.max_bytes) as labels:
            for done in reversed(step):
                try:
                    labels.take_back(done)
                except FileNotFoundError:
                    failed.append(f"{printable(done.name)}: somebody has labelled it since; that stays.")
                except (InvalidImage, OSError) as error:
                    failed.append(f"{printable(done.name)}: {_why(error)}")
    except OSError as error:
        failed.append(_why(error))
    return failed


def _why(error: Exception) -> str:
    if isinstance(error, InvalidImage):
        return error.detail
    if isinstance(error, PermissionError):
        return "you may look, and not label."
    if isinstance(error, FileNotFoundError):
        return "the image is not there any more."
    return printable(str(error))
