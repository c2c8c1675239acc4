"""Grid: what was read as one digit, the least certain first; the wrong ones are marked, the rest is confirmed."""

from __future__ import annotations

import sqlite3
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.index.schema import NoIndex
from daemon.web.answers import END, as_place, shown
from daemon.web.site import Site, query

ON_A_PAGE = 60
LOOKED_AT = 240  # answers that are looked through at once for some that nobody has labelled
_LEAST_CERTAIN = """
SELECT id, confidence FROM answers
WHERE digit = :digit AND (confidence > :confidence OR confidence = :confidence AND id > :id) AND gone & 1 = 0
    AND sha256 NOT IN (SELECT sha256 FROM labels)
ORDER BY confidence, id LIMIT :limit
"""
_CHOSEN = "SELECT * FROM answers WHERE id IN ({}) ORDER BY confidence, id"


def routes(site: Site) -> list[Route]:
    """The page."""

    def grid(request: Request) -> Response:
        values = request.query_params
        digit = values.get("digit", "")
        digit = digit if digit in tuple("0123456789") else "0"
        answers: list[dict[str, Any]] = []
        next_, notices = None, []
        try:
            with site.index() as index:
                answers, next_ = _least_certain(site, index, int(digit), values.get("after", ""))
        except NoIndex:
            pass  # it is among the notices
        except sqlite3.Error as error:
            notices.append(f"The index cannot be read ({error}): `digitd index --rebuild` makes it anew.")
        wrong = values.get("wrong", "")
        return site.page(
            request,
            "grid.html",
            digit=digit,
            answers=answers,
            next=f"/grid{query({'digit': digit, 'after': next_})}" if next_ else None,
            wrong=wrong,
            undo=values.get("undo", ""),
            notices=notices,
        )

    return [Route("/grid", grid)]


def _least_certain(site: Site, index: sqlite3.Connection, digit: int, after: str) -> tuple[list[dict[str, Any]], str | None]:
    """Some that nobody has labelled, and behind which place there are more."""
    place = as_place(after)
    confidence, id_ = (-1.0, 0) if place == END else place
    bounds = {"digit": digit, "confidence": confidence, "id": id_}
    found = index.execute(_LEAST_CERTAIN, bounds | {"limit": LOOKED_AT}).fetchall()
    answers: list[dict[str, Any]] = []
    for start in range(0, len(found), ON_A_PAGE):
        chosen = ",".join(str(id_) for id_, _ in found[start : start + ON_A_PAGE])
        rows = index.execute(_CHOSEN.format(chosen)).fetchall()
        for answer in shown(site.settings, index, rows):
            if not answer["label"] and answer["picture"]:
                answers.append(answer)
                if len(answers) == ON_A_PAGE:
                    return answers, f"{answer['confidence']},{answer['id']}"
    return answers, f"{found[-1][1]},{found[-1][0]}" if len(found) == LOOKED_AT else None
