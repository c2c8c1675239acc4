"""Serves the page until it is told to stop."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import uvicorn

from daemon.config import Settings
from daemon.systemd import passed_socket
from daemon.web.access import Access, read_token
from daemon.web.application import make_application
from daemon.web.pictures import Pictures
from daemon.web.site import Site

STOP_SECONDS = 2  # for answers that are under way
PORTS = {"http": 80, "https": 443}
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class ServeError(Exception):
    """The page cannot be served as it was asked for; the message says why."""


def serve(settings: Settings, host: str, port: int, token_file: Path | None, url: str | None, browser: bool) -> NoReturn:
    """Serve the page until SIGINT or SIGTERM; that ends the process, with 0.

    Args:
        settings: of the root.
        host, port: where to listen, unless systemd passed a socket; port 0 is any.
        token_file: holds the token; a new one is made unless given.
        url: how browsers address the page, where something stands before it, such as "https://digits.example.org".
        browser: whether to open one, where there is one.

    Raises:
        ServeError: the address cannot be used, or is not allowed.
        TokenError: the token cannot be used.

    """
    if token_file is None and not _is_loopback(host):
        raise ServeError(
            f"--host {host}: expected an address of this machine alone, such as 127.0.0.1. Whoever comes from elsewhere "
            "needs a token that you hand out: name its file with --token-file."
        )
    token = read_token(token_file) if token_file else secrets.token_urlsafe(32)
    listener = passed_socket() or _listen(host, port)
    with listener:
        access = Access(token, origins(url, host, listener.getsockname()))
        stopping = threading.Event()
        site = Site(settings, Pictures(settings), stopping.is_set)
        config = uvicorn.Config(
            make_application(site, access),
            log_config=None,
            access_log=False,  # it would write the token down
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        for name in site.templates.list_templates():
            site.templates.get_template(name)  # compiled before somebody waits for it
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        print(
            f"{settings.root} is shown on {access.address(token) if token_file is None else access.origins[0]}", flush=True
        )
        if token_file is not None:
            print(f"whoever comes first names the token in {token_file}: {access.origins[0]}/?token=…", flush=True)
        if browser and _has_browser():
            threading.Thread(target=webbrowser.open, args=(access.invite(),), daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has ended: then it is done
        signal.signal(signal.SIGINT, lambda *_: None)
        os.environ["PYTHONWARNINGS"] = "ignore"  # of multiprocessing's tracker, which says that it cleans up behind us
        _Server(config, stopping).run([listener])
        with site.writing:  # a label is written whole
            os._exit(0)  # the decoders end with this process; to end them one by one would take seconds where much is done


class _Server(uvicorn.Server):
    """Tells those who wait for news that it ends."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: object) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # whoever reads the address may come before there is a loop to answer
    except (OSError, OverflowError) as error:
        listener.close()
        raise ServeError(
            f"--host and --port: expected an address that is free. Received: {host}:{port}: "
            f"{(getattr(error, 'strerror', None) or str(error)).rstrip('.')}. "
            "Choose another port, or 0 for any."
        ) from error
    return listener


def origins(url: str | None, host: str, address: Sequence[Any]) -> tuple[str, ...]:
    """How browsers may address the page, the usual way first.

    Args:
        url, host: as of `serve`.
        address: where it listens, as a socket says it.

    Raises:
        ServeError: nobody can know.

    """
    if url:
        return (_origin(url),)
    number, port = address[:2]
    if _is_loopback(host):
        first = f"[{host}]" if ":" in host else host
        return tuple(f"http://{name}:{port}" for name in dict.fromkeys((first, *LOOPBACK_NAMES)))
    if ipaddress.ip_address(number).is_unspecified:
        raise ServeError(
            f"--host {host}: expected --url beside it, such as https://digits.example.org: how browsers ask for it."
        )
    return (f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",)


def _origin(url: str) -> str:
    """What browsers send as Host and Origin where this is the address: without the port that goes without saying."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError):
        name, parts = "", urlsplit("")
    if not name or parts.path.strip("/") or parts.query or parts.username is not None:
        raise ServeError(f"--url: expected an address such as https://digits.example.org. Received: {url}.")
    place = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{place}" if port == PORTS[parts.scheme] else f"{parts.scheme}://{place}:{port}"


def _has_browser() -> bool:
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
