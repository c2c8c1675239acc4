"""http.py: /metrics, /livez and /readyz over a real socket."""

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from daemon.config import HttpSettings
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from tests.conftest import REPOSITORY, samples


class Health:
    """What the two questions are answered from."""

    def __init__(self) -> None:
        self.dead: list[str] = []
        self.unready: list[str] = []


@pytest.fixture(scope="module")
def health() -> Health:
    """What this module's server says of itself."""
    return Health()


@pytest.fixture(scope="module")
def server(health: Health) -> HttpServer:
    """A server on a free port; its thread ends with the process, as in the daemon."""
    return serve(HttpSettings(port=0), health)


def serve(settings: HttpSettings, health: Health) -> HttpServer:
    """Start a server in a thread."""
    server = HttpServer(settings, Metrics(), lambda: health.dead, lambda: health.unready)
    threading.Thread(target=server.run, daemon=True).start()
    return server


def get(server: HttpServer, path: str) -> tuple[int, str]:
    """The status and the text."""
    try:
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_default_is_this_machine_only() -> None:
    """Nobody else can reach the port unless the configuration says so."""
    assert HttpSettings() == HttpSettings(host="127.0.0.1", port=9787)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_all_is_well(server: HttpServer, path: str) -> None:
    """Without problems both questions are answered with 200."""
    assert get(server, path) == (200, "ok\n")


def test_readyz_says_why_not(server: HttpServer, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """With problems it is 503 and a line each; /livez stays well."""
    monkeypatch.setattr(health, "unready", ["inbox: größer", "results: disk full"])
    assert get(server, "/readyz") == (503, "inbox: größer\nresults: disk full\n")
    assert get(server, "/livez")[0] == 200


def test_livez_says_why_not(server: HttpServer, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thread that does not move it is 503."""
    monkeypatch.setattr(health, "dead", ["a thread made no pass for 31 s"])
    assert get(server, "/livez") == (503, "a thread made no pass for 31 s\n")


def test_metrics_are_prometheus_text(server: HttpServer) -> None:
    """What /metrics shows can be parsed, and names the program."""
    status, text = get(server, "/metrics")
    assert status == 200
    assert any(name == "digitd_build_info" for name, _ in samples(text))


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/..%2f..%2fetc/passwd"])
def test_other_paths_are_not_found(server: HttpServer, path: str) -> None:
    """There is nothing else to see."""
    status, text = get(server, path)
    assert (404, "Expected /metrics, /livez or /readyz.\n") == (status, text)


def test_slow_connections_take_no_threads(server: HttpServer) -> None:
    """A hundred connections that never send a request neither make threads nor keep others waiting."""
    before = threading.active_count()
    host, port = server.address.rsplit(":", 1)
    connections = [socket.create_connection((host, int(port)), timeout=60) for _ in range(100)]
    try:
        for connection in connections:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert get(server, "/readyz") == (200, "ok\n")
        assert threading.active_count() <= before
    finally:
        for connection in connections:
            connection.close()


def test_an_address_in_use_is_named() -> None:
    """The message names host and port, and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"Received: 127\.0\.0\.1:{port}: Address already in use\. Choose another port"):
            HttpServer(HttpSettings(port=port), Metrics(), list, list)


def test_a_host_that_is_not_ours_is_named() -> None:
    """An address of another machine is refused with its name."""
    with pytest.raises(OSError, match=r"Received: 192\.0\.2\.1:0: "):
        HttpServer(HttpSettings(host="192.0.2.1", port=0), Metrics(), list, list)


def test_ipv6_has_a_usable_address(health: Health) -> None:
    """The address of an IPv6 host can be put into a URL as it is."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    server = serve(HttpSettings(host="::1", port=0), health)
    assert server.address.startswith("[::1]:")
    assert get(server, "/livez") == (200, "ok\n")


SOCKET_ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
from daemon.config import HttpSettings
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
print(HttpServer(HttpSettings(port=0), Metrics(), list, list).address)
"""


def test_a_socket_from_systemd_is_used() -> None:
    """With LISTEN_PID and LISTEN_FDS it serves on descriptor 3, whatever [http] says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        done = subprocess.run(
            [sys.executable, "-c", SOCKET_ACTIVATED, str(number)],
            pass_fds=[number],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"127.0.0.1:{listener.getsockname()[1]}\n" == done.stdout


def test_a_socket_for_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_PID of a parent says nothing to its child."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="Address already in use"):
        HttpServer(HttpSettings(port=taken.getsockname()[1]), Metrics(), list, list)
