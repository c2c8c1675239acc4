"""access.py: who may ask."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from daemon.web.access import Access, TokenError, read_token
from daemon.web.application import make_application
from daemon.web.site import Site
from tests.web.conftest import ORIGIN, TOKEN

Open = Callable[..., TestClient]


def test_the_token_becomes_a_cookie(open_page: Open) -> None:
    """Which scripts cannot read and other sites cannot use; the token is gone from the address, the rest of it stays."""
    client = open_page()
    answer = client.get("/", params={"token": TOKEN, "digit": "7"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?digit=7")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/?token=", "/?token=wrong", "/?token=%C3%BC", "/static/style.css", "/news", "/picture/1/a/small.png"]
)
def test_without_the_token_there_is_nothing(open_page: Open, path: str) -> None:
    """Not a view, not a picture, not the style sheet."""
    answer = open_page().get(path)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9788", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:9788", ""]
)
def test_another_host_is_refused(browser: TestClient, host: str) -> None:
    """A name that somebody points to this machine is none of ours, whatever cookie comes with it."""
    assert browser.get("/", headers={"host": host}).status_code == 421
    assert browser.get("/", headers={"host": "localhost:9788"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8080", "https://127.0.0.1:9788", None])
def test_forms_of_others_are_refused(browser: TestClient, origin: str | None) -> None:
    """Whoever does not say where he comes from, too."""
    del browser.headers["origin"]
    answer = browser.post("/label", headers={"origin": origin} if origin else {}, data={"id": "1", "label": "7"})
    assert answer.status_code == 403


def test_a_link_in_a_mail_works(open_page: Open) -> None:
    """The cookie is not sent along from elsewhere: a page of ours asks again, once."""
    stranger = open_page()
    answer = stranger.get("/?digit=7&x=%22%3E", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert 'content="0; url=/?digit=7&amp;x=%22%3E"' in answer.text
    assert stranger.get("/?digit=7", headers={"sec-fetch-site": "same-origin"}).status_code == 401


def test_two_pages_on_one_host_know_each_other_not(site: Site) -> None:
    """Cookies know no ports: who was let in by one is let in still when the other has let him in."""
    ports = {9788: TOKEN, 9789: "u" * 43}
    pages = {port: Access(token, (f"http://127.0.0.1:{port}",)) for port, token in ports.items()}
    apps = {port: make_application(site, page) for port, page in pages.items()}
    with (
        TestClient(apps[9788], base_url="http://127.0.0.1:9788") as first,
        TestClient(apps[9789], base_url="http://127.0.0.1:9789") as second,
    ):
        first.get("/", params={"token": ports[9788]})
        second.cookies.update(first.cookies)
        second.get("/", params={"token": ports[9789]})
        first.cookies.update(second.cookies)
        assert (first.get("/").status_code, second.get("/").status_code) == (200, 200)


def test_a_redirect_stays_here(open_page: Open) -> None:
    """Whatever the path looks like."""
    answer = open_page().get(f"{ORIGIN}//evil.example/?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/"


def test_every_answer_forbids(browser: TestClient, open_page: Open) -> None:
    """Scripts of others, frames, guesses at what a file is; pages are not kept, what their look is made of is."""
    for answer in (browser.get("/"), browser.get("/nothing"), open_page().get("/"), browser.get("/static/script.js")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = browser.get("/")
    assert page.headers["cache-control"] == "no-store"
    script = re.search(r'src="(/static/script.js\?\w+)"', page.text)
    assert script is not None
    assert "immutable" in browser.get(script[1]).headers["cache-control"]


def test_an_invitation_is_good_once() -> None:
    """Others can see the arguments of the browser that we open."""
    access = Access(TOKEN, (ORIGIN,))
    code = access.invite().partition("token=")[2]
    assert [access.admits(code), access.admits(code), access.knows(code)] == [True, False, False]


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [(0o600, "short", "at least"), (0o604, "x" * 40, "closed to others"), (0o600, "ü" * 40, "a token")],
)
def test_a_token_file_must_be_good(tmp_path: Path, mode: int, text: str, said: str) -> None:
    """Long enough, and nobody else's to read."""
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    with pytest.raises(TokenError, match=said):
        read_token(file)


def test_behind_a_proxy_its_own_name_counts(site: Site) -> None:
    """And no other, not even this machine's; the cookie is sent over TLS alone."""
    client = TestClient(
        make_application(site, Access(TOKEN, ("https://digits.example.org",))),
        base_url="http://digits.example.org",
        follow_redirects=False,
    )
    assert "; secure" in client.get("/", params={"token": TOKEN}).headers["set-cookie"].lower()
    assert client.get("/", headers={"host": "127.0.0.1:9788"}).status_code == 421
    assert client.post("/undo", headers={"origin": "http://digits.example.org"}).status_code == 403
