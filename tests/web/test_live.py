"""live.py: answers as they come."""

import json
import re
from contextlib import closing

import pytest
from starlette.testclient import TestClient

from daemon.config import Settings
from daemon.index.schema import INSERT, open_to_write
from daemon.web.answers import Filters
from daemon.web.live import _news
from daemon.web.site import Site
from tests.index.answers import NOON, record


def names(text: str) -> list[str]:
    """Of the answers on a page, in their order."""
    return re.findall(r'<a class="name" href="/review\?id=[\w.]+">(.*?)</a>', text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c.png", "&#34;&gt;&lt;img src=x onerror=alert(1)&gt;.png", "page.png", "batch7/b.png", "a.png"]),
        ("outcome=review", ["batch7/b.png"]),
        ("outcome=rejected", ["page.png"]),
        ("outcome=corrected", []),
        ("digit=0", ["c.png"]),
        ("version=v0002", ["&#34;&gt;&lt;img src=x onerror=alert(1)&gt;.png"]),
        ("name=batch", ["batch7/b.png"]),
        ("name=*/b*", ["batch7/b.png"]),
        ("day=2025-11-25", ["page.png", "batch7/b.png", "a.png"]),
        ("day=nonsense&digit=x&outcome=y&before=z", ["c.png"]),
    ],
)
def test_answers_are_filtered_by_the_address(browser: TestClient, query: str, expected: list[str]) -> None:
    """Newest first, their names escaped; what makes no sense is not asked for."""
    found = names(browser.get(f"/?{query}").text)
    assert found[: len(expected)] == expected
    assert len(found) == len(expected) or query.startswith("day=nonsense")


@pytest.mark.parametrize(
    "address",
    [
        "/?day=0001-01-01",
        "/?day=9999-12-31",
        f"/?before=0,{10**30}",
        f"/?before=nan,{'9' * 5000}",
        f"/?before=0,-{10**30}",
        f"/grid?after=0.5,{10**30}",
        f"/picture/{10**30}..00000000/small.png",
    ],
)
def test_no_address_is_too_much(browser: TestClient, address: str) -> None:
    """What no answer can have is not found, and nobody's fault."""
    assert browser.get(address).status_code in (200, 404)


def test_a_form_leaves_a_short_address(browser: TestClient) -> None:
    """What is not asked for is not in it, so that it can be sent to somebody."""
    answer = browser.get("/?outcome=&digit=7&version=&day=&name=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?digit=7")


def test_a_rejection_says_why(browser: TestClient) -> None:
    """With its hint."""
    text = browser.get("/?outcome=rejected").text
    assert "not an image" in text
    assert "Drop an image." in text


def test_news_are_rows_in_the_order_of_the_list(site: Site, settings: Settings) -> None:
    """Each answer once; what a filling finds late is no news; an index that was made anew starts from its beginning."""
    text, newest = _news(site, Filters(), 0, NOON + 100_000)
    assert (text.strip(), newest) == ("", 5)
    with closing(open_to_write(settings.index, 1)) as index:
        index.executemany(INSERT, [record("x.png", at=NOON * 1.1), record("y.png", at=NOON * 1.1 + 1), record("old.png")])
    text, newest = _news(site, Filters(), newest, NOON + 100_000)
    assert (names(text), newest) == (["y.png", "x.png"], 8)
    assert _news(site, Filters(digit="8"), 5, NOON + 100_000)[0].strip() == ""
    assert _news(site, Filters(), 1000, NOON) == ("", 8)


def test_news_go_on_where_a_browser_lost_them(site: Site, browser: TestClient, settings: Settings) -> None:
    """It names the last answer that it has seen."""
    with closing(open_to_write(settings.index, 1)) as index:
        index.executemany(INSERT, [record("x.png", at=NOON * 2), record("y.png", at=NOON * 2 + 1)])
    asked = iter([False, True])
    site.is_stopping = lambda: next(asked)
    text = browser.get("/news?after=1", headers={"last-event-id": "6"}).text
    (data,) = re.findall(r"^id: 7\ndata: (.*)$", text, re.MULTILINE)
    assert names(json.loads(data)) == ["y.png"]


def test_without_an_index_it_says_so(browser: TestClient, settings: Settings) -> None:
    """And goes on without one; a daemon that does not run is told, too."""
    settings.index.unlink()
    answer = browser.get("/")
    assert answer.status_code == 200
    assert "expected the index of all answers" in answer.text
    assert "No daemon runs here" in answer.text
