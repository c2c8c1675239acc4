"""Chromium from Debian, `digitd web` and a daemon, once for all that is tried with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from daemon.config import Settings, load_settings
from daemon.files import file_sha256
from daemon.index.filling import fill
from daemon.models.registry import Registry
from tests.conftest import REPOSITORY, Daemon, Digits, make_root, wait_until
from tests.index.answers import answer, reject
from tests.index.test_daemon import names

CHROMIUM = shutil.which("chromium")
STRANGER = "stranger.example"  # somebody else's name, that leads here: DNS rebinding
HOSTILE_NAME = '"><img src=x onerror=hacked=1><script>hacked=1</script>.png'
PAGE = b"<!doctype html><script>hacked=1</script>"
REVIEWS, SEVENS = 24, 64


@dataclass
class Web:
    """`digitd web` on a root, as a process of its own."""

    settings: Settings
    token: str
    process: subprocess.Popen[str]
    origin: str
    said: list[str] = field(default_factory=list)  # by browsers, on their consoles

    @property
    def address(self) -> str:
        """The first one to open."""
        return f"{self.origin}/?token={self.token}"

    def labels(self) -> set[str]:
        """The files below corrections/."""
        corrections = self.settings.folder("corrections")
        return {str(path.relative_to(corrections)) for path in corrections.rglob("[!.]*") if path.is_file()}


def start_web(root: Path) -> Web:
    """Start it on any free port, and wait for its address."""
    with (root / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "web", "-c", str(root / "config.toml"), "--port", "0", "--no-browser"],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", line)
    assert found is not None, line + (root / "web.log").read_text()
    return Web(load_settings(root / "config.toml"), found[2], process, found[1])


def lay_out(root: Path, digits: Digits) -> None:
    """Answers to be reviewed, 7s to be confirmed, hostile ones, and a second version; all in the index."""
    settings = load_settings(root / "config.toml")
    now = time.time() - 3600
    for number in range(REVIEWS):
        doubt = {"outcome": "review", "reason": "low_confidence", "digit": digits.labels[number], "confidence": 0.5}
        answer(root, f"doubtful/{number}.png", digits.png(number), now - number, **doubt)
    for number in range(SEVENS):
        answer(root, f"seven-{number}.png", digits.png(100 + number), now - 100 - number, confidence=0.91 + number / 1000)
    answer(root, HOSTILE_NAME, digits.png(300), now + 1, digit=2)
    answer(root, "polyglot.png", digits.png(301) + PAGE, now + 2, digit=3)
    answer(root, "page-in-disguise.png", PAGE, now + 3, digit=4)
    reject(root, "page.png", PAGE, now + 4)
    fill(settings.index, settings)
    registry = Registry(settings.folder("models"))
    shutil.copy(registry.folder / "v0001.h5", registry.folder / "v0002.h5")
    manifest = json.loads((registry.folder / "v0001.json").read_bytes())
    manifest |= {"version": "v0002", "sha256": file_sha256(registry.folder / "v0002.h5")}
    manifest["holdout"]["confusion"] = [[980 if a == b else 2 * (a == b + 1) for a in range(10)] for b in range(10)]
    (registry.folder / "v0002.json").write_text(json.dumps(manifest))
    registry.ledger.record("live", "v0001", "the daemon started")
    registry.ledger.record("made", "v0002", "here", sha256=manifest["sha256"])
    registry.ledger.record("promoted", "v0002", "Hold-out: 99.60% to 99.62% right of 10000 images.", began=now)
    logs = settings.folder("logs") / "training" / "v0002"
    logs.mkdir(parents=True)
    rows = "".join(f"{epoch},{0.9 + epoch / 150},{1 / (epoch + 1)},0.9{epoch},{0.5 / (epoch + 1)}\n" for epoch in range(10))
    (logs / "history.csv").write_text(f"epoch,accuracy,loss,val_accuracy,val_loss\n{rows}")


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Path:
    """A root that has answered before."""
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian: apt install chromium)")
    root = make_root(tmp_path_factory.mktemp("browser") / "root")
    lay_out(root, digits)
    return root


@pytest.fixture(scope="module")
def daemon(answered: Path) -> Iterator[Daemon]:
    """A daemon on it."""
    running = Daemon(answered, INBOX__RESCAN_SECONDS=1)
    try:
        running.wait_ready()
        wait_until(lambda: names(answered, whole=True), "its index to be whole: what is found anew has new numbers", 300)
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser. Nothing is fetched for it: it is the machine's own."""
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian: apt install chromium)")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*sandbox, "--disable-gpu", f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def web(answered: Path) -> Iterator[Web]:
    """The page of that root."""
    running = start_web(answered)
    yield running
    running.process.terminate()
    assert running.process.wait(30) == 0
    running.process.communicate()
    assert not [line for line in running.said if "Content Security Policy" in line]


@pytest.fixture
def open_browser(chromium: Browser, web: Web) -> Iterator[Callable[..., Page]]:
    """Opens a window of somebody who has the address with the token, on one of the views."""
    contexts: list[BrowserContext] = []

    def open_(view: str = "/", **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: web.said.append(message.text))
        page.goto(web.address)
        if view != "/":
            page.goto(web.origin + view)
        return page

    yield open_
    for context in contexts:
        context.close()


def wait_for_labels(web: Web, expected: set[str]) -> None:
    """Until these are among the labels."""
    wait_until(lambda: expected <= web.labels(), f"the labels {sorted(expected)}")
