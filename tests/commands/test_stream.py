"""stream.py: `digitd stream`, without Spark; with it, tests/cluster."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_a_stray_sighup_ends_no_stream() -> None:
    """A daemon reads its configuration again then; a stream, which cannot, goes on: systemd would not start it again."""
    trial = (
        "import importlib.util, os, signal; from daemon.commands.stream import stream; "
        "importlib.util.find_spec = lambda _name: os.kill(os.getpid(), signal.SIGHUP); print(stream(None, ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", trial], cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert "2\n" == done.stdout
    assert f"{sys.prefix}/bin/pip install --require-hashes -r requirements-spark.txt" in done.stderr
