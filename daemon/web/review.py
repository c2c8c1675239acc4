"""Review: one image at a time, what the network saw, and why a person is asked."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from daemon.config import Settings
from daemon.index.retention import parts
from daemon.index.schema import NoIndex
from daemon.web.answers import Filters, as_place, count_back, look_back, read, read_json, shown
from daemon.web.site import Site, query

AHEAD = 6  # images that are there before they are asked for
LOOKED_AT = 60  # answers that are looked through at once for some that nobody has labelled
MOST_CHOSEN = 200  # images that an address may name
WHY = {
    "low_confidence": "The network is not sure enough.",
    "not_a_digit": "The network doubts that it is a digit at all.",
    "several_digits": "There seem to be several digits.",
}

Case = dict[str, Any]


def routes(site: Site) -> list[Route]:
    """The page, and what comes next on it."""

    def review(request: Request) -> Response:
        values = request.query_params
        cases: list[Case] = []
        further, left, notices = None, None, []
        try:
            with site.index() as index:
                cases, further = _ahead(site.settings, index, values)
                if "id" not in values:
                    left = count_back(index, dataclasses.replace(_filters(values).wanted, is_labelled=False))
        except NoIndex:
            pass  # it is among the notices
        except sqlite3.Error as error:
            notices.append(f"The index cannot be read ({error}): `digitd index --rebuild` makes it anew.")
        return site.page(
            request, "review.html", cases=cases, further=further, left=left, undo=values.get("undo", ""), notices=notices
        )

    def ahead(request: Request) -> Response:
        try:
            with site.index() as index:
                cases, further = _ahead(site.settings, index, request.query_params)
        except (NoIndex, sqlite3.Error):
            cases, further = [], None
        text = site.fragment("cases.html", cases=cases, further=further)
        return HTMLResponse(text)

    return [Route("/review", review), Route("/review/ahead", ahead)]


def _filters(values: Mapping[str, str]) -> Filters:
    filters = Filters.of(values)
    return filters if filters.outcome else dataclasses.replace(filters, outcome="review")


def _ahead(settings: Settings, index: sqlite3.Connection, values: Mapping[str, str]) -> tuple[list[Case], str | None]:
    """What is to be looked at now and next, and the address behind that; None where there is nothing more."""
    if "id" in values:
        called = values["id"].split(",")[:MOST_CHOSEN]
        found = [(row, ",".join(called[place:])) for place, one in enumerate(called[:AHEAD], 1) if (row := read(index, one))]
        cases = [_case(settings, index, row, {"id": behind} if behind else {}) for row, behind in found]
        further = ",".join(called[AHEAD:])
        return cases, query({"id": further}) if further else None
    filters = _filters(values)
    seen = look_back(index, filters.wanted, LOOKED_AT, as_place(values.get("before", "")))
    answers = shown(settings, index, seen.rows)
    cases = []
    for row, answer in zip(seen.rows, answers, strict=True):
        place = vars(filters) | {"before": f"{row['answered_at']},{row['id']}"}
        if not answer["label"] or filters.outcome == "corrected":
            cases.append(_case(settings, index, row, place))
            if len(cases) == AHEAD:
                return cases, query(place)
    next_ = seen.next and vars(filters) | {"before": f"{seen.next[0]},{seen.next[1]}"}
    return cases, query(next_) if next_ else None


def _case(settings: Settings, index: sqlite3.Connection, row: sqlite3.Row, behind: dict[str, Any]) -> Case:
    """All that is shown of an image; `behind` is what comes after it, as an address says it."""
    (answer,) = shown(settings, index, [row])
    json = parts(row)[1]
    content = {} if row["gone"] & json.bit else read_json(settings, json)
    given = content.get("probabilities")
    given = given if isinstance(given, list) and len(given) == 10 else []
    probabilities = [min(max(float(p), 0.0), 1.0) for p in given if isinstance(p, float | int)]
    image = content.get("image")
    size = image if isinstance(image, dict) else {}
    return answer | {
        "why": WHY.get(row["reason"], "") if row["outcome"] == "review" else "",
        "probabilities": probabilities,
        "size": f"{size.get('width')}x{size.get('height')} {size.get('format')}" if size else "",
        "behind": f"/review{query(behind)}",
    }
