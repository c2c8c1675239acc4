"""service.py: a stop has a bound, and a second signal ends it at once."""

import signal
from pathlib import Path

import pytest

from daemon.config import Settings
from tests.conftest import Forked, shared_nursery, wait_until

# A daemon with nothing in it but a part that does not heed its stop.
STUCK = """
import logging, sys, threading
from pathlib import Path
import daemon.service
from daemon.config import load_settings
class Stuck(daemon.service.Service):
    def _start(self, stack):
        self._heed_signals()
        self._loop(stack, "stuck", threading.Event().wait)
        logging.info("started")
logging.basicConfig(level=logging.INFO)
daemon.service.STOP_SECONDS = float(sys.argv[2])
sys.exit(Stuck(load_settings(Path(sys.argv[1])), None).run())
"""


@pytest.mark.parametrize(
    ("seconds", "signals", "why"),
    [
        (600.0, [signal.SIGINT, signal.SIGINT], "it was told so again"),
        (0.1, [signal.SIGTERM], "stopping took more than 0 s"),
    ],
)
def test_a_stop_comes_to_its_end(settings: Settings, tmp_path: Path, seconds: float, signals: list[int], why: str) -> None:
    """Whatever does not stop is named; the process ends with 1 when told so again, or when its time is over."""
    log, script = tmp_path / "log", tmp_path / "stuck.py"
    script.write_text(STUCK)
    run = {"config": "", "environment": {}, "log": str(log), "script": str(script)}
    process = Forked(shared_nursery().ask(run=run | {"arguments": [str(settings.file), str(seconds)]})["pid"])
    try:
        wait_until(lambda: log.exists() and "started" in log.read_text(), "the start")
        for number, word in zip(signals, ("stopping", "ends at once"), strict=False):
            process.send_signal(number)
            wait_until(lambda word=word: word in log.read_text(), word)
        assert 1 == process.wait(60)
        assert f"ends at once, {why}; threads that still run: stuck." in log.read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
