"""server.py: where the page is served, and that it ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.index.filling import fill
from daemon.web.server import ServeError, origins, serve
from tests.conftest import NOBODY, REPOSITORY, Digits
from tests.index.answers import NOON, answer, reject
from tests.index.conftest import bare_settings
from tests.web.conftest import handle_of

AS_SOMEBODY_ELSE = """
import concurrent.futures.thread, os, sys
import daemon.commands.web
from daemon.cli import main
from daemon.web.site import make_templates
templates = make_templates()
for name in templates.list_templates():
    templates.get_template(name)
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
sys.exit(main(["web", *sys.argv[2:]]))
"""  # root's interpreter may be where others may not look


def asked_for(settings: Settings, **others: object) -> None:
    """Serve it as it would be from the command line."""
    arguments = {"host": "127.0.0.1", "port": 0, "token_file": None, "url": None, "browser": False}
    serve(settings, **(arguments | others))  # type: ignore[arg-type]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """One that is good."""
    file = tmp_path / "token"
    file.write_text("t" * 40)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])  # noqa: S104 -- it is refused
def test_others_need_a_token_file(settings: Settings, host: str) -> None:
    """Nobody serves it to a network by mistake."""
    with pytest.raises(ServeError, match="--token-file"):
        asked_for(settings, host=host)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"host": "0.0.0.0"}, "--url"),  # noqa: S104 -- it is refused
        ({"host": "192.0.2.1"}, "expected an address that is free"),
        ({"url": "digits.example.org"}, "--url"),
        ({"url": "https://digits.example.org/page"}, "--url"),
        ({"url": "ftp://digits.example.org"}, "--url"),
        ({"url": "https://[::1"}, "--url"),
        ({"url": "https://digits.example.org:99999"}, "--url"),
        ({"url": "https://@digits.example.org"}, "--url"),
        ({"host": ""}, "--url"),
        ({"port": 70000}, r"--port: .*[^.]\. Choose another port"),
        ({"host": "example.invalid"}, "expected an address"),
    ],
)
def test_wrong_usage_is_told(settings: Settings, token_file: Path, others: dict[str, object], said: str) -> None:
    """With what was expected."""
    with pytest.raises(ServeError, match=said):
        asked_for(settings, token_file=token_file, **others)


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("https://Digits.Example.org:443/", "127.0.0.1", "https://digits.example.org"),
        ("http://digits.example.org:8080", "127.0.0.1", "http://digits.example.org:8080"),
        ("https://[::1]:80", "127.0.0.1", "https://[::1]:80"),
        (None, "digits", "http://digits:8080"),
    ],
)
def test_the_page_knows_how_browsers_call_it(url: str | None, host: str, expected: str) -> None:
    """They leave out the port that goes without saying; a host may have a name."""
    assert (expected,) == origins(url, host, ("192.0.2.1", 8080))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("closed", [False, True])
def test_who_may_only_look_is_told(open_path: Path, digits: Digits, closed: bool) -> None:
    """Somebody without rights sees every view, and reads why he may not label; closed folders break none of them."""
    settings = bare_settings(open_path / "root")
    answer(settings.root, "a.png", digits.png(0), NOON, outcome="review", reason="low_confidence")
    reject(settings.root, "page.png", b"text", NOON + 1)
    fill(settings.index, settings)
    named = handle_of(settings, "a.png")
    for name in ("results", "processed", "rejected", "corrections", "models", "logs", "work"):
        settings.folder(name).mkdir(exist_ok=True)
        settings.folder(name).chmod(0o700 if closed else 0o755)
    page = subprocess.Popen(
        [sys.executable, "-c", AS_SOMEBODY_ELSE, str(NOBODY), "-c", str(settings.file), "--port", "0", "--no-browser"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert page.stdout is not None
        origin, _, token = page.stdout.readline().split()[-1].partition("/?token=")
        jar = urllib.request.HTTPCookieProcessor()
        opener = urllib.request.build_opener(jar, urllib.request.ProxyHandler({}))
        opener.addheaders = [("Origin", origin), ("Accept", "application/json")]
        opener.open(f"{origin}/?token={token}").close()
        for view in ("/", "/review", "/grid?digit=7", "/models", "/models/training", "/status", "/?outcome=rejected"):
            try:
                shown = opener.open(origin + view)
            except urllib.error.HTTPError as refused:
                shown = refused
            with shown:
                text = shown.read().decode()
            assert shown.status == 200 or (closed and shown.status == 403 and "Permission denied" in text)
            assert "You may look, and not label" in text or view == "/models/training"
        for path, form in (("/label", f"answer={named}&label=7"), ("/models/v0001/promote", ""), ("/models/rollback", "")):
            with pytest.raises(urllib.error.HTTPError) as refused, opener.open(origin + path, form.encode()):
                pass
            with refused.value as response:
                said = response.read().decode()
            assert 400 <= refused.value.code < 500, said
            assert path != "/label" or "you may look, and not label" in said or closed
    finally:
        page.kill()
        page.communicate()


def test_it_ends_at_once(settings: Settings) -> None:
    """Though a browser waits for news; the address that it printed had let it in. TensorFlow was never imported."""
    page = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "daemon", "web", "-c", str(settings.file), "--port", "0", "--no-browser"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert page.stdout is not None
        address = page.stdout.readline().split()[-1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), urllib.request.ProxyHandler({}))
        assert "Live · digitd" in opener.open(address).read().decode()
        news = opener.open(address.partition("?")[0] + "news")
        assert news.readline() == b"retry: 2000\n"
        page.send_signal(signal.SIGINT)
        _, errors = page.communicate(timeout=60)
    finally:
        page.kill()
    assert page.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines()}
    assert "starlette" in imported
    assert not {"tensorflow", "keras"} & imported
    assert [line for line in errors.splitlines() if not line.startswith("import time:")] == []
