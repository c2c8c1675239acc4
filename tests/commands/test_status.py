"""`digitd status`: what the running daemon says of itself."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.config import PRESENCE, HttpSettings
from daemon.index.writer import Index
from daemon.telemetry.asking import read_status
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.presence import announce
from tests.answering.test_hosts import why_no_host
from tests.conftest import REPOSITORY, Daemon, Digits, Run, digitd
from tests.index.answers import DAY, record


def test_status_without_a_daemon_exits_with_1(run: Run, root: Path) -> None:
    """It says so, in words and in JSON."""
    assert (1, f"not running on {root}\n", "") == run("status")
    code, out, err = run("status", "--json")
    assert (1, {"running": False, "latest": [], "labelled": {}, "drift": {}}, "") == (code, json.loads(out), err)


def test_status_of_a_daemon(daemon: Daemon, digits: Digits) -> None:
    """A running daemon's status is 0, with its model, its figures and where its metrics are."""
    daemon.drop("status.png", digits.png(0))
    daemon.result("status.png")
    done = digitd("status", "-c", daemon.root / "config.toml")
    assert (0, "") == (done.returncode, done.stderr)
    assert f"running   pid {daemon.process.pid} since " in done.stdout
    assert "ready     yes\nmodel     v0001, loaded 20" in done.stdout
    assert f"metrics   http://{daemon.address}/metrics\n" in done.stdout
    assert "oldest" not in done.stdout, "nothing waits"
    done = digitd("status", "--json", "-c", daemon.root / "config.toml")
    status = json.loads(done.stdout)
    assert (0, True, True, daemon.process.pid, "v0001") == (
        done.returncode,
        status["running"],
        status["ready"],
        status["pid"],
        status["model"],
    )
    assert status["images"]["accepted"] >= 1


@pytest.fixture
def announced(root: Path) -> Iterator[Callable[[str], None]]:
    """Says that this process is the daemon of the root, under an address."""
    with ExitStack() as stack:
        path = root / "work" / ".daemon.json"
        yield lambda address: stack.callback(os.close, announce(path, {"pid": os.getpid(), "address": address})) and None


def test_status_of_a_daemon_that_loads_its_model(run: Run, root: Path, announced: Callable[[str], None]) -> None:
    """Before the model is there, the status is 1 with the reason, and invents neither model nor date."""
    server = HttpServer(HttpSettings(port=0), Metrics(), list, lambda: ["start: the model is being loaded"])
    threading.Thread(target=server.run, daemon=True).start()
    announced(server.address)
    code, out, _ = run("status")
    status = read_status(root / "work" / PRESENCE)
    assert code == 1
    assert "ready     no: start: the model is being loaded\n" in out
    assert "None" not in out
    assert "1970" not in out
    assert (None, None) == (status["model"], status["model_loaded_at"])


def test_status_of_a_daemon_that_does_not_answer(run: Run, announced: Callable[[str], None]) -> None:
    """An address where nobody answers is said."""
    announced("127.0.0.1:1")
    code, out, _ = run("status")
    assert code == 1
    assert "it does not answer on http://127.0.0.1:1" in out


def test_status_of_a_daemon_that_is_killed_while_it_answers(run: Run, announced: Callable[[str], None]) -> None:
    """Half an answer is none, and that is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            asked, _ = server.accept()
            with asked:
                asked.recv(4096)
                asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")

        threading.Thread(target=answer, daemon=True).start()
        announced(f"127.0.0.1:{server.getsockname()[1]}")
        code, out, _ = run("status")
    assert (1, True) == (code, "it does not answer on http://127.0.0.1:" in out)


@pytest.mark.skipif(bool(why_no_host()), reason=why_no_host() or "-")
def test_status_of_a_daemon_on_another_host(run: Run, root: Path) -> None:
    """An address of this host is not asked in its stead; it is said where it runs."""
    path = root / "work" / ".daemon.json"
    other = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere; exec "$0" "$@"', sys.executable, "-c"]
    announce_and_wait = (
        "import sys; from pathlib import Path; from daemon.telemetry.presence import announce\n"
        "announce(Path(sys.argv[1]), {'pid': 1, 'address': '127.0.0.1:1'}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [*other, announce_and_wait, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, out, _ = run("status")
        assert process.stdin is not None
        process.stdin.close()
    assert (1, True) == (code, "it runs on elsewhere" in out)


def test_status_asks_no_proxy(root: Path, announced: Callable[[str], None]) -> None:
    """The daemon is on this machine, whatever http_proxy says of the way to others."""
    server = HttpServer(HttpSettings(port=0), Metrics(), list, list)
    threading.Thread(target=server.run, daemon=True).start()
    announced(server.address)
    done = digitd("status", "-c", root / "config.toml", http_proxy="http://127.0.0.1:1", no_proxy="")
    assert "ready     yes" in done.stdout, done.stdout


def test_status_names_the_latest_answers(ask: Run) -> None:
    """The newest first, also while no daemon runs."""
    latest = json.loads(ask("status", "--json")[1])["latest"]
    assert [("=c.png", 7), ("größe.txt", None)] == [(answer["file"], answer["digit"]) for answer in latest[:2]]


def test_status_says_how_far_answers_drifted_in_weeks(run: Run, root: Path) -> None:
    """By the index, against the current version's validation data; also while no daemon runs."""
    (root / "models/current.h5").symlink_to("v0001.h5")
    index = Index(root / "index.sqlite", Metrics())
    index.add([record(f"{number}.png", b"", time.time() - 20 * DAY, digit=number % 10) for number in range(500)])
    index.add([record(f"late{number}.png", b"", time.time() - DAY, digit=1, confidence=0.6) for number in range(500)])
    index.close()
    drift = json.loads(run("status", "--json")[1])["drift"]
    assert ["7 days", "30 days"] == list(drift)
    assert drift["7 days"]["digit"] > drift["30 days"]["digit"] > 0.25
    assert drift["7 days"]["confidence"] > drift["30 days"]["confidence"] > 0.25
