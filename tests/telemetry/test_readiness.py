"""readiness.py: what the daemon says of why it is not ready."""

import errno
import os
from pathlib import Path

import pytest

from daemon.telemetry.metrics import Metrics
from daemon.telemetry.readiness import Readiness

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.png.json")


def test_a_full_folder_on_a_disk_with_room_is_told_from_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are ENOSPC; who sees that space is free would look for the fault elsewhere."""
    readiness = Readiness(Metrics(), tmp_path)
    readiness.report("start", None)
    readiness.fault("results", FULL)
    (reason,) = readiness.reasons
    assert reason.startswith("results: [Errno 28] No space left on device: 'a.png.json', though the disk has room")
    monkeypatch.setattr("daemon.telemetry.readiness.MUCH_BYTES", 1 << 60)
    readiness.fault("results", FULL)
    assert ["results: [Errno 28] No space left on device: 'a.png.json'"] == readiness.reasons
