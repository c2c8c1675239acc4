"""One daemon for all hostile files, with short limits; it must survive every one of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.harness import Daemon, Drops, Nursery, lay_out

LIMIT_SECONDS = 2.0  # to decode one image
LIMITS = {"DIGITD_INBOX__DECODE_SECONDS": str(LIMIT_SECONDS), "DIGITD_INBOX__GRACE_SECONDS": "5.0"}


@pytest.fixture(scope="session")
def daemon(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has been at work, on a root of its own."""
    root = lay_out(tmp_path_factory.mktemp("hostile") / "root")
    (root / "prepared").mkdir()
    with Daemon(nursery, root, LIMITS, log=root / "log", obey_modes=True) as daemon:
        Drops(root / "inbox").drop_digits(600)
        daemon.settle()
        daemon.idle_mb = daemon.memory_mb
        yield daemon
