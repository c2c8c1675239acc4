"""The page: views, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from daemon.config import PRESENCE
from daemon.files import printable
from daemon.loop import Loop
from daemon.web import grid, labels, live, models, pictures, review, status
from daemon.web.access import Access, Guard
from daemon.web.metrics import LOOK_SECONDS, LastHour
from daemon.web.site import STATIC, Site

MOST_BODY = 64 * 1024  # bytes of a form


class _Static(StaticFiles):
    """Files whose address changes with them, so that a browser asks for each once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "private, max-age=31536000, immutable"
        return response


def make_application(site: Site, access: Access) -> Starlette:
    """Put it together."""
    hour = LastHour(site.settings.folder("work") / PRESENCE)

    def fail(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            status, detail = error.status_code, error.detail
        else:  # an OSError
            status, detail = 403 if isinstance(error, PermissionError) else 503, printable(str(error))
        return site.page(request, "failed.html", status, detail=detail)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with Loop("last hour", hour.run_once, rest=LOOK_SECONDS):
            yield

    return Starlette(
        routes=[
            *(route for view in (live, review, grid, labels, models, pictures) for route in view.routes(site)),
            *status.routes(site, hour),
            Mount("/static", _Static(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, access=access, templates=site.templates)],
        exception_handlers={HTTPException: fail, OSError: fail},
        lifespan=lifespan,
        max_body_size=MOST_BODY,
    )
