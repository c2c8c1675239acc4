"""Live: answers as they come, newest first."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from daemon.index.schema import NoIndex
from daemon.web.answers import END, OUTCOMES, Filters, as_place, look_back, shown, versions
from daemon.web.site import Site, query

ON_A_PAGE = 60
LOOK_SECONDS = 0.5  # between two looks for news
BEAT_SECONDS = 15.0  # between two signs of life, by which a lost connection is noticed
LATE_SECONDS = 60.0  # an answer may be so late in the index; what a filling finds is no news
_NEWS = "SELECT * FROM answers WHERE id > :after AND answered_at > :began AND {} ORDER BY id DESC LIMIT :limit"


def routes(site: Site) -> list[Route]:
    """The list, and its news."""

    def live(request: Request) -> Response:
        values = request.query_params
        filters, before = Filters.of(values), as_place(values.get("before", ""))
        if any(value == "" for value in values.values()):  # a form sends what is empty, too
            return RedirectResponse(f"/{query(vars(filters))}", 303)
        answers, found, known, newest = [], None, [], 0
        notices = []
        try:
            with site.index() as index:
                found = look_back(index, filters.wanted, ON_A_PAGE, before)
                answers, known, newest = shown(site.settings, index, found.rows), versions(index), _newest(index)
        except NoIndex:
            pass  # it is among the notices
        except sqlite3.Error as error:
            notices.append(f"The index cannot be read ({error}): `digitd index --rebuild` makes it anew.")
        return site.page(
            request,
            "live.html",
            filters=filters,
            outcomes=OUTCOMES,
            versions=known,
            answers=answers,
            next=_address(filters, found.next) if found and found.next else None,
            looked_back_to=found.looked_back_to if found else None,
            newest=newest,
            now=time.time(),
            is_first=before == END,
            notices=notices,
        )

    async def news(request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        after = int(last) if last.isdecimal() and len(last) < 20 else 0
        return StreamingResponse(
            _events(site, Filters.of(request.query_params), after, _seconds(request.query_params.get("since", ""))),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    return [Route("/", live), Route("/news", news)]


def _seconds(text: str) -> float:
    """When the page was made, as its address says it; now where it does not."""
    try:
        return float(text)
    except ValueError:
        return time.time()


async def _events(site: Site, filters: Filters, after: int, since: float) -> AsyncIterator[str]:
    """Server-sent events: rows of the list. Their id is the newest answer's, after which a browser that comes back asks."""
    began = since - LATE_SECONDS
    quiet = time.monotonic()
    yield "retry: 2000\n\n"
    while not site.is_stopping():
        rows, newest = await asyncio.to_thread(_news, site, filters, after, began)
        if newest != after:
            after = newest
            if rows:
                yield f"id: {newest}\ndata: {json.dumps(rows)}\n\n"
                quiet = time.monotonic()
        if time.monotonic() - quiet > BEAT_SECONDS:
            quiet = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_SECONDS)


def _news(site: Site, filters: Filters, after: int, began: float) -> tuple[str, int]:
    """Rows as HTML, newest first, and the newest answer's number; nothing new where there is no index for now."""
    try:
        with site.index() as index:
            newest = _newest(index)
            if newest <= after:
                return "", newest  # an index that was made anew counts from 1
            condition, values = filters.wanted.condition()
            bounds = {"after": after, "began": began, "limit": ON_A_PAGE}
            rows = index.execute(_NEWS.format(condition), values | bounds).fetchall()
            return site.fragment("rows.html", answers=shown(site.settings, index, rows)), newest
    except (NoIndex, sqlite3.Error):
        return "", after


def _newest(index: sqlite3.Connection) -> int:
    (newest,) = index.execute("SELECT max(id) FROM answers").fetchone()
    return newest or 0


def _address(filters: Filters, place: tuple[float, int]) -> str:
    return f"/{query(vars(filters) | {'before': f'{place[0]},{place[1]}'})}"
