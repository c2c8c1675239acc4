"""Clients that mean harm: images walk on, threads and memory stay bounded, and the others get their answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.faults.harness import Daemon, Drops, until

CONNECTIONS = 300
MOST_THREADS = 4  # more than with nobody connected
MOST_MEMORY_MB = 50.0


@pytest.fixture
def idle(daemon: Daemon) -> Iterator[tuple[int, float]]:
    """Threads and memory before; afterwards the daemon still answers and works."""
    threads, memory = daemon.threads, daemon.memory_mb
    yield threads, memory
    assert daemon.get("/metrics", 30.0)[0] == 200
    images_walk(daemon)
    assert daemon.threads <= threads + MOST_THREADS
    assert daemon.memory_mb <= memory + MOST_MEMORY_MB


def images_walk(daemon: Daemon) -> None:
    """A digit dropped now is answered."""
    (name,) = Drops(daemon.root / "inbox", count=images_walk.count).drop_digits(1)  # type: ignore[attr-defined]
    images_walk.count += 1  # type: ignore[attr-defined]
    until((daemon.root / "results" / f"{name}.json").exists, what=f"{name} is answered")


images_walk.count = 20_000_000  # type: ignore[attr-defined]


def connect(daemon: Daemon) -> socket.socket:
    """A connection to the daemon's port."""
    host, _, port = daemon.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.settimeout(10)
    return connection


def test_slow_connections_take_no_threads(daemon: Daemon, idle: tuple[int, float]) -> None:
    """Three hundred clients that send a header byte by byte get no thread each, and /metrics answers beside them."""
    threads, memory = idle
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(daemon)) for _ in range(CONNECTIONS)]
        for byte in b"GET /metrics":
            for connection in slow:
                with contextlib.suppress(OSError):  # it may be tired of them
                    connection.send(bytes([byte]))
        assert daemon.threads <= threads + MOST_THREADS
        assert daemon.memory_mb <= memory + MOST_MEMORY_MB
        assert daemon.get("/metrics", 30.0)[0] == 200
        images_walk(daemon)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff" * 500 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + bytes(5000),
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_garbage_gets_an_error_or_nothing(daemon: Daemon, request_bytes: bytes) -> None:
    """A request that is none is answered with an error or not at all, and the connection is closed."""
    with connect(daemon) as connection:
        connection.sendall(request_bytes)
        with contextlib.suppress(OSError):  # it hangs up
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
            assert answer == b"" or answer.split()[1] in {b"400", b"404", b"405", b"413", b"431", b"501", b"505", b"200"}


@pytest.mark.usefixtures("idle")
def test_a_huge_header_is_refused(daemon: Daemon) -> None:
    """A header of a hundred megabytes is refused long before its end."""
    block = b"X-Long: " + b"a" * 65_000 + b"\r\n"
    sent = 0
    with connect(daemon) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        while sent < 100 << 20:
            connection.sendall(block)
            sent += len(block)
    assert sent < 100 << 20


def test_it_listens_on_loopback(daemon: Daemon) -> None:
    """Nobody but this machine reaches it, unless it is told otherwise."""
    assert daemon.address.startswith("127.0.0.1:")
