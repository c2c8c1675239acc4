"""`digitd web`: the page to look and correct."""

from __future__ import annotations

import sys
from pathlib import Path

from daemon.config import Settings
from daemon.web.access import TokenError
from daemon.web.server import ServeError, serve


def show(settings: Settings, host: str, port: int, token_file: Path | None, url: str | None, browser: bool) -> int:
    """Serve the page until SIGINT or SIGTERM; arguments are as of `serve`.

    Returns:
        2, where it cannot be served as it was asked for.

    """
    try:
        serve(settings, host, port, token_file, url, browser)
    except (ServeError, TokenError) as error:
        print(error, file=sys.stderr)
    return 2
