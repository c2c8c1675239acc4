"""What systemd and the daemon tell each other: sd_notify(3), sd_listen_fds(3), the journal's priorities of sd-daemon(3)."""

from __future__ import annotations

import logging
import math
import os
import socket
from contextlib import suppress
from pathlib import Path

CLOSED = ".closed"  # below the root; digitd-open.path watches it
FIRST_REST, LONGEST_REST = 1.0, 15.0  # seconds between two times that it is woken; they double
FORGOTTEN_SECONDS = 60.0  # without a folder that keeps the daemon out: then it begins anew
FIRST_SOCKET = 3  # SD_LISTEN_FDS_START
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def notify(state: str) -> None:
    """Tell systemd, where it asked for it, such as "READY=1"; where it cannot be reached, it finds out by itself."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(state.encode())


def ask_for_time(seconds: float) -> None:
    """Ask for so long from now, where a start or a stop takes longer than the unit's own time-out."""
    notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")


class Opener:
    """digitd-open.service, which lets the daemon into folders that keep it out. For one thread.

    Args:
        root: the root folder.

    """

    def __init__(self, root: Path) -> None:
        self._bell = root / CLOSED
        self._due, self._rest, self._installed = -math.inf, 0.0, False

    def ask(self, now: float) -> bool:
        """Wake it, because a folder in the inbox keeps the daemon out; less often, where somebody shuts his again and again.

        Args:
            now: of a monotonic clock, in seconds.

        Returns:
            Whether it is installed, and could be woken.

        """
        if now >= self._due:
            self._rest = min(LONGEST_REST, 2 * self._rest) if now < self._due + FORGOTTEN_SECONDS else FIRST_REST
            self._due = now + self._rest
            try:
                os.utime(self._bell)
            except OSError:  # it is not there, or is not ours
                self._installed = False
            else:
                self._installed = True
        return self._installed


def passed_socket() -> socket.socket | None:
    """The listening socket that a .socket unit passed to this very process, if any."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
        return None
    return socket.socket(fileno=FIRST_SOCKET)


def log_handler() -> logging.Handler:
    """Writes to stderr: for the journal where that is what stderr is, else for a person."""
    handler = logging.StreamHandler()
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    return handler


class _JournalFormatter(logging.Formatter):
    """The journal adds the time itself, and reads the priority from <N>."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(value for level, value in PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())
