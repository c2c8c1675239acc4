"""server.py: where the page is served, and that it ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.web.server import ServeError, serve
from tests.conftest import REPOSITORY


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
        ({"port": 70000}, "--port"),
        ({"host": "example.invalid"}, "expected an address"),
    ],
)
def test_wrong_usage_is_told(settings: Settings, token_file: Path, others: dict[str, object], said: str) -> None:
    """With what was expected."""
    with pytest.raises(ServeError, match=said):
        asked_for(settings, token_file=token_file, **others)


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
