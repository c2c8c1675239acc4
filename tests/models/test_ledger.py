"""ledger.py: what was decided, and what was live when."""

import time
from pathlib import Path

import pytest

from daemon.models import ledger as ledger_module
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


def test_a_long_ledger_is_put_aside_and_what_decisions_rest_on_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of versions that are there, the highest number, the last verdict on each hold-out; all else is aside."""
    monkeypatch.setattr(ledger_module, "ROTATED_BYTES", 1)
    monkeypatch.setattr(ledger_module, "KEPT_LINES", 2)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record("made", "v0001", "there still", sha256="a")
    ledger.record("live", "v0002", "removed since")
    between = time.time()
    ledger.record("promoted", "v0003", "of another hold-out", holdout_sha256="x", best_accuracy=0.99)
    ledger.record("refused", "v0004", "not the last", holdout_sha256="y", best_accuracy=0.5)
    ledger.record("refused", "v0005", "the last", holdout_sha256="y", best_accuracy=0.6)
    ledger.record("begun", "v10000", "the highest")
    ledger.record("live", "v9999", "one of the newest")
    ledger.record("current", "v9999", "one of the newest")
    everything = list(ledger.lines())
    aside = ledger.rotate(["v0001"])
    assert aside is not None
    assert ["v0001", "v0003", "v0005", "v10000", "v9999", "v9999"] == [line["version"] for line in ledger.lines()]
    assert everything == list(Ledger(aside).lines())
    assert "v0002" == ledger.live_at(between)
    assert "v9999" == ledger.live_at(time.time())
    assert ledger.rotate(["v0001"]) is None, "once a day"
    ledger.record("live", "v0001", "went back")
    assert "v0001" == ledger.live_at(time.time())
