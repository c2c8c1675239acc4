"""stream.py: `digitd stream`, without Spark; with it, tests/cluster."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_a_stray_sighup_ends_no_stream() -> None:
    """A daemon reads its configuration again then; a stream, which cannot, goes on: systemd would not start it again."""
    trial = (
        "import os, signal; from daemon.commands.stream import outlive_hangups; outlive_hangups(); "
        "os.kill(os.getpid(), signal.SIGHUP); print('lives')"
    )
    done = subprocess.run(
        [sys.executable, "-c", trial], cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert "lives\n" == done.stdout
