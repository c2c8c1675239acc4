"""/metrics, /livez and /readyz, served by waitress: a fixed number of threads, however many connections there are."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import waitress
from prometheus_client import make_wsgi_app

from daemon.config import HttpSettings
from daemon.systemd import passed_socket
from daemon.telemetry.metrics import Metrics

THREADS = 2
CONNECTIONS = 500  # more wait in the kernel's queue; the usual limit of 1,024 open files leaves room for the daemon's own
SECONDS_PER_CONNECTION = 10  # without a byte
CLEANUP_SECONDS = 5  # between two looks for such connections
MAX_HEADER_BYTES = 8192
MAX_BODY_BYTES = 1024

logging.getLogger("waitress").setLevel(logging.ERROR)  # it warns whenever a request queues


class HttpServer:
    """Serves the metrics and the two health questions.

    Args:
        settings: where to listen, unless systemd passed a socket.
        metrics: what /metrics shows.
        dead, unready: give the reasons for not being live and for not being ready; no reason when all is well.

    Raises:
        OSError: the address is in use or not ours; the message names it.

    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: Metrics,
        dead: Callable[[], list[str]],
        unready: Callable[[], list[str]],
    ) -> None:
        listener = passed_socket() or _listen(settings)
        address = listener.getsockname()
        self.address = _as_in_url(address)
        expose = make_wsgi_app(metrics.registry)

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            match environ["PATH_INFO"]:
                case "/metrics":
                    exposed: Iterable[bytes] = expose(environ, start_response)
                    return exposed
                case "/livez":
                    return _answer(start_response, dead())
                case "/readyz":
                    return _answer(start_response, unready())
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Expected /metrics, /livez or /readyz.\n"]

        self._server = waitress.create_server(
            application,
            sockets=[listener],
            threads=THREADS,
            connection_limit=CONNECTIONS,
            channel_timeout=SECONDS_PER_CONNECTION,
            cleanup_interval=CLEANUP_SECONDS,
            asyncore_use_poll=True,  # select(2) cannot watch descriptors from 1,024 on
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )

    def run(self) -> None:
        """Serve until the process ends."""
        self._server.run()


def _answer(start_response: Callable[..., Any], problems: list[str]) -> list[bytes]:
    status = "503 Service Unavailable" if problems else "200 OK"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return ["".join(f"{line}\n" for line in problems or ["ok"]).encode()]


def _listen(settings: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno,
            f"expected [http] host and port to be free to listen on. Received: {settings.host}:{settings.port}: "
            f"{error.strerror}. Choose another port, or 0 for any",
        ) from error
    return listener


def _as_in_url(address: Any) -> str:
    """host:port, with the brackets that an IPv6 address has in a URL; the path of a Unix socket as it is."""
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
