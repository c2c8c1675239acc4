"""ledger.py: what was decided, and what was live when."""

import time
from pathlib import Path

from daemon.models.ledger import Ledger


def test_the_ledger_tells_what_was_live_when(tmp_path: Path) -> None:
    """The last version that a daemon began to answer with before the moment; a torn line at the end is passed over."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record("live", "v0001", "the daemon started")
    between = time.time()
    ledger.record("live", "v0002", "swapped")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"event": "live", "vers')
    ledger.record("current", "v0003", "after the power cut")
    assert ledger.live_at(between) == "v0001"
    assert ledger.live_at(time.time()) == "v0002"
    assert ledger.live_at(0.0) is None
    assert [line["version"] for line in ledger.lines()] == ["v0001", "v0002", "v0003"]
