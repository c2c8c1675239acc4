"""What every view is handed: where the root is, and how a page is made."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from daemon import __version__
from daemon.config import PRESENCE, Settings
from daemon.index.schema import ODD, NoIndex, get_state, open_to_read
from daemon.telemetry.presence import who_runs
from daemon.web.pictures import Pictures

STATIC = Path(__file__).parent / "static"
VIEWS = (("/", "Live"), ("/review", "Review"), ("/grid", "Grid"), ("/models", "Models"), ("/status", "Status"))


def make_templates() -> Environment:
    """The pages, with what they are written with; all that is put into them is escaped."""
    environment = Environment(
        loader=PackageLoader("daemon.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (moment, percent, share, day, query, with_code)
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals["vars_of"] = vars
    content = b"".join(file.read_bytes() for file in sorted(STATIC.iterdir()))
    environment.globals["static"] = f"{zlib.crc32(content):08x}"
    return environment


@dataclass
class Site:
    """One root, as a page.

    Attributes:
        settings: of the root.
        pictures: shows images.
        is_stopping: whether the server is about to end; who waits for news asks it now and then.
        writing: held by whoever writes labels.

    """

    settings: Settings
    pictures: Pictures
    is_stopping: Callable[[], bool] = lambda: False
    writing: threading.Lock = field(default_factory=threading.Lock)
    templates: Environment = field(default_factory=make_templates)

    @property
    def may_label(self) -> bool:
        """Whether this process may write labels."""
        folder = self.settings.folder("corrections")
        while not os.access(folder, os.F_OK) and folder != folder.parent:
            folder = folder.parent
        return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A view, with what is to be known beside it."""
        shared = {"views": VIEWS, "path": request.url.path, "root": str(self.settings.root), "version": __version__}
        notices = [*self.notices(), *values.pop("notices", ())]
        text = self.templates.get_template(template).render(**shared, **values, notices=notices, may_label=self.may_label)
        return HTMLResponse(text, status)

    def fragment(self, template: str, **values: Any) -> str:
        """A part of a page."""
        return self.templates.get_template(template).render(**values, may_label=self.may_label)

    def notices(self) -> Iterator[str]:
        """What a person has to know whatever he looks at."""
        try:
            if who_runs(self.settings.folder("work") / PRESENCE) is None:
                yield "No daemon runs here: nothing that is dropped now is read until `digitd run` is started."
        except PermissionError:
            pass
        try:
            with self.index() as index:
                state = get_state(index)
                if state["since"] is not None:
                    done, total = state.get("done"), state.get("total")
                    far = f" ({done:,} of {total:,} so far)" if done and total else ""
                    yield f"The index is being filled from the folders{far}: not everything is here yet."
        except NoIndex as error:
            yield str(error)
        if not self.may_label:
            yield f"You may look, and not label: writing to {self.settings.folder('corrections')} is for others."

    @contextmanager
    def index(self) -> Iterator[Any]:
        """The index of all answers, to be read.

        Raises:
            NoIndex: there is none; in words.

        """
        try:
            connection = open_to_read(self.settings.index)
        except PermissionError as error:
            raise NoIndex(
                f"{self.settings.index}: expected a file that you may read. Received: {error.strerror}."
            ) from error
        try:
            yield connection
        except ODD as error:
            raise sqlite3.DatabaseError(repr(error)) from error
        finally:
            connection.close()


def with_code(text: str) -> Markup:
    """What stands between backquotes as code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- escaped before


def moment(seconds: float) -> str:
    """A time on this machine, as short as it can be."""
    then, now = datetime.fromtimestamp(seconds).astimezone(), datetime.now().astimezone()
    if then.date() == now.date():
        return then.strftime("%H:%M:%S")
    return then.strftime("%d %b %H:%M" if then.year == now.year else "%d %b %Y")


def percent(share: float) -> str:
    """A share of one, never rounded up to certainty."""
    return f"{min(share, 0.9999) * 100:.{1 if share < 0.995 else 2}f} %"


def share(counted: float, places: int = 2) -> str:
    """A share that was counted, and so may be all."""
    return "100 %" if counted == 1 else f"{counted * 100:.{places}f} %"


def day(timestamp: str) -> str:
    """The day of a moment as the contract writes it."""
    return f"{datetime.fromisoformat(timestamp).astimezone():%d %b %Y}" if timestamp else ""


def query(values: dict[str, object]) -> str:
    """The part of an address behind "?", without what is not given."""
    given = {key: value for key, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else "?"
