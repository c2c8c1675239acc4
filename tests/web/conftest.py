"""The page on a root with a few answers, asked as a browser would, without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from daemon.config import Settings
from daemon.index.filling import fill
from daemon.index.schema import open_to_read
from daemon.web.access import Access
from daemon.web.answers import handle
from daemon.web.application import make_application
from daemon.web.pictures import Pictures
from daemon.web.site import Site
from tests.conftest import Digits
from tests.index.answers import DAY, NOON, answer, reject
from tests.index.conftest import bare_settings

ORIGIN = "http://127.0.0.1:9788"
TOKEN = "t" * 43


@pytest.fixture
def settings(tmp_path: Path, digits: Digits) -> Settings:
    """A root with answers of two days: accepted, to be reviewed, rejected, and one with a hostile name."""
    made = bare_settings(tmp_path / "root")
    answer(made.root, "a.png", digits.png(0), NOON)
    answer(
        made.root,
        "batch7/b.png",
        digits.png(1),
        NOON + 1,
        outcome="review",
        reason="low_confidence",
        digit=3,
        confidence=0.4,
    )
    reject(made.root, "page.png", b"<!doctype html><script>alert(1)</script>", NOON + 2)
    answer(made.root, '"><img src=x onerror=alert(1)>.png', digits.png(2), NOON + DAY, version="v0002")
    answer(made.root, "c.png", digits.png(3), NOON + DAY + 1, digit=0, confidence=0.95)
    fill(made.index, made)
    return made


@pytest.fixture
def site(settings: Settings) -> Site:
    """The root's page."""
    return Site(settings, Pictures(settings))


@pytest.fixture
def open_page(site: Site) -> Iterator[Callable[..., TestClient]]:
    """Makes a browser that has no cookie yet."""
    clients: list[TestClient] = []

    def open_() -> TestClient:
        app = make_application(site, Access(TOKEN, (ORIGIN, "http://localhost:9788")))
        client = TestClient(app, base_url=ORIGIN, follow_redirects=False)
        clients.append(client)
        return client

    yield open_
    for client in clients:
        client.close()
    site.pictures.close()


@pytest.fixture
def browser(open_page: Callable[..., TestClient]) -> TestClient:
    """A browser that has the cookie, and says where its forms come from."""
    client = open_page()
    assert client.get("/", params={"token": TOKEN}).status_code == 303
    client.headers["origin"] = ORIGIN
    return client


def handle_of(settings: Settings, name: str) -> str:
    """What pages call an answer."""
    with closing(open_to_read(settings.index)) as index:
        return handle(index.execute("SELECT * FROM answers WHERE name = ?", (name,)).fetchone())
