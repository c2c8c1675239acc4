"""vetting.py: a foreign model in a limited process, which is ended when it is time to stop and imports nothing from here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import Settings, load_settings
from daemon.models.adoption import VettingHindered, VettingStopped
from daemon.models.registry import Registry, RegistryError
from daemon.training import vetting
from daemon.training.vetting import Vetting
from tests.conftest import REPOSITORY, Daemon, wait_until

SHIPPED = REPOSITORY / "models" / "v0001.h5"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration without a data set."""
    return load_settings(Path(shutil.copy(REPOSITORY / "config.toml", tmp_path)))


def test_without_a_data_set_a_few_digits_must_do(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model reads them, though a module of the current folder would have ended the process.

    Ctrl-C, which on a terminal goes to the whole group of processes, reaches only who started it.
    """
    (settings.root / "selectors.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(settings.root)
    found = Vetting(settings, threading.Event(), waiting=lambda: signal_children(signal.SIGINT))(SHIPPED, SHIPPED)
    assert (100, 299818) == (found.holdout.images, found.parameters)
    assert found.holdout.accuracy > 0.95


def test_what_is_no_model_is_refused_under_its_own_name(settings: Settings) -> None:
    """The reason names the file that was given, and not the copy that was tried."""
    (settings.root / "copy.h5").write_bytes(b"no model")
    with pytest.raises(RegistryError, match=r"^own\.h5: expected a Keras model"):
        Vetting(settings, threading.Event())(settings.root / "copy.h5", Path("own.h5"))


def test_a_vetting_heeds_a_stop(settings: Settings) -> None:
    """Its process is gone, and nothing refused."""
    stop = threading.Event()
    with pytest.raises(VettingStopped):
        Vetting(settings, stop, waiting=stop.set)(SHIPPED, SHIPPED)
    assert [] == children()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_vetting_that_somebody_ends_refuses_nothing(settings: Settings, number: signal.Signals) -> None:
    """Neither a signal of somebody's nor the kernel's, out of memory, is the model's fault."""
    with pytest.raises(VettingHindered, match=number.name):
        Vetting(settings, threading.Event(), waiting=lambda: signal_children(number))(SHIPPED, SHIPPED)


def test_what_the_disk_does_not_give_is_not_the_models_fault(settings: Settings) -> None:
    """EIO, as this file gives it."""
    with pytest.raises(VettingHindered, match=r"own\.h5: the vetting came to nothing: .*Input/output error"):
        Vetting(settings, threading.Event())(Path("/proc/self/mem"), Path("own.h5"))


def test_no_room_for_what_a_vetting_says_refuses_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's fault is the machine's, wherever it is met."""
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(VettingHindered, match="came to nothing"):
        Vetting(settings, threading.Event())(SHIPPED, SHIPPED)


def test_a_vetting_goes_by_what_is_in_force(settings: Settings) -> None:
    """What was written into config.toml since is not, right or wrong, before it was read and checked."""
    wrong = settings.model_copy(update={"gate": settings.gate.model_copy(update={"canary_accuracy": 2.0})})
    settings.file.write_text("[gate]\ncanary = 1\n")
    vetting = Vetting(wrong, threading.Event())
    vetting.apply(settings)
    assert 100 == vetting(SHIPPED, SHIPPED).holdout.images


def test_a_vetting_yields_until_that_takes_too_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single drops do not wait for it; and a machine that is busy for ever has a model vetted all the same."""
    policies: dict[int, int] = {}
    now = 0.0

    def look() -> None:
        nonlocal now
        for pid in children():
            policies[pid] = os.sched_getscheduler(pid)
            if len(policies) == 1 and Path(f"/proc/{pid}/fd/1").stat().st_size:  # it is about to open the file
                os.kill(pid, signal.SIGSTOP)
                now = vetting.YIELDING_SECONDS + 1

    monkeypatch.setattr(vetting.time, "monotonic", lambda: now)
    assert 100 == Vetting(settings, threading.Event(), waiting=look)(SHIPPED, SHIPPED).holdout.images
    assert [os.SCHED_IDLE, os.SCHED_OTHER] == list(policies.values())


def signal_children(number: int) -> None:
    """Send a signal to each vetting."""
    for pid in children():
        os.kill(pid, number)


def test_a_daemon_stops_while_it_vets(root: Path, start_daemon: Callable[..., Daemon]) -> None:
    """It was ready with another version; the one that was being vetted is neither refused nor live, and nothing runs on."""
    for kind in ("h5", "json"):
        shutil.copy(root / "models" / f"v0001.{kind}", root / "models" / f"v0002.{kind}")
    manifest = json.loads((root / "models" / "v0002.json").read_bytes()) | {"created_at": "2026-11-28T08:00:00.000000Z"}
    (root / "models" / "v0002.json").write_text(json.dumps(manifest))
    (root / "models" / "current.h5").symlink_to("v0002.h5")
    (root / "datasets").unlink()
    (root / "datasets").mkdir()
    os.mkfifo(data := root / "datasets" / "mnist.npz")  # it comes to no end before somebody writes into this
    daemon = start_daemon().wait_ready()
    wait_until(lambda: "v0002 was neither made nor vetted here" in daemon.log, "the vetting to begin")
    assert 0 == daemon.terminate()
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads it
        os.open(data, os.O_WRONLY | os.O_NONBLOCK)
    events = [(line["event"], line["version"]) for line in Registry(root / "models").ledger.lines()]
    assert [("live", "v0001")] == events
    assert Path("v0002.h5") == (root / "models" / "current.h5").readlink()


def children() -> list[int]:
    """The vettings that this process has started and not yet ended."""
    found = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [int(pid) for pid in found if b"daemon.training.vetting" in Path(f"/proc/{pid}/cmdline").read_bytes()]
