"""SIGHUP: the configuration is read again while the daemon works."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.changes import by_key, in_force, is_live
from daemon.config import Settings, load_settings
from tests.conftest import Daemon, Digits, make_root, wait_until


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the tests of this module, each of which changes keys of its own."""
    running = Daemon(make_root(tmp_path_factory.mktemp("reload")))
    try:
        wait_until((running.root / "work" / ".lock").exists, "the start to begin")
        running.process.send_signal(signal.SIGHUP)
        yield running.wait_ready()
    finally:
        running.close()


def change(daemon: Daemon, before: str, after: str, expected: str = "") -> str:
    """Replace a part of config.toml and send SIGHUP; what the daemon says to it, once that is there which is expected."""
    config = daemon.root / "config.toml"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after, 1))
    said = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)

    def answer() -> str:
        new = daemon.log[said:]
        return new if ("config.toml again" in new or "stays as it was" in new) and expected in new else ""

    return wait_until(answer, "an answer to SIGHUP")


def test_a_reload_in_the_middle_of_a_start_waits_for_its_end(daemon: Daemon) -> None:
    """It ended the daemon, which systemd does not start again after SIGHUP."""
    wait_until(lambda: "config.toml again" in daemon.log, "an answer to SIGHUP")


def test_what_can_change_live_does(daemon: Daemon, digits: Digits) -> None:
    """With review_below = 1.0 an answer of less confidence is one to be reviewed, which was accepted before."""
    daemon.drop("before.png", digits.png(8))
    before = daemon.result("before.png")
    assert (0.9 < before["confidence"] < 1.0, before["decision"]) == (True, "accepted")
    change(daemon, "review_below = 0.9 ", "review_below = 1.0 ", "inference.review_below is now 1.0; it was 0.9")
    daemon.drop("after.png", digits.png(8))
    assert daemon.result("after.png")["decision"] == "review"


def test_names_that_are_no_longer_ignored_are_taken(daemon: Daemon, digits: Digits) -> None:
    """A file that waited because of its name is answered without being touched."""
    daemon.drop("scan.tmp", digits.png(1))
    daemon.drop("other.png", digits.png(2))
    daemon.result("other.png")
    assert not (daemon.root / "results/scan.tmp.json").exists()
    change(daemon, '"*.tmp", ', "")
    assert daemon.result("scan.tmp")["digit"] == digits.labels[1]


def test_what_cannot_change_live_is_named(daemon: Daemon) -> None:
    """Another number of decoder processes is not taken up, and the log says what to do."""
    assert "inbox.workers = 3 needs a restart; 2 stays in force" in change(daemon, "workers = 2", "workers = 3")


def test_what_needs_a_restart_is_in_force_nowhere(tmp_path: Path) -> None:
    """Nor for those who are handed the whole: after a reload with other folders trainings and archives used them at once."""
    running = load_settings(make_root(tmp_path / "root") / "config.toml")
    others: dict[str, dict[str, Any]] = {
        "paths": {"logs": "elsewhere"},
        "inbox": {"workers": 3, "grace_seconds": 1.0},
        "gate": {"margin": 0.5},
    }
    read = running.model_copy(update={key: getattr(running, key).model_copy(update=new) for key, new in others.items()})
    now = in_force(running, read)
    assert (running.folder("logs"), 2) == (now.folder("logs"), now.inbox.workers)
    assert (1.0, 0.5) == (now.inbox.grace_seconds, now.gate.margin)
    handed_on = Settings.from_text(now.to_text())
    assert (now, now.file) == (handed_on, handed_on.file)


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    """Whoever is on the machine may read there what is handed on to our own processes."""
    settings = load_settings(make_root(tmp_path / "root") / "config.toml")
    stream = settings.stream.model_copy(update={"spark": ["spark.authenticate.secret=told-to-nobody"]})
    text = settings.model_copy(update={"stream": stream}).to_text()
    assert "told-to-nobody" not in text
    assert settings == Settings.from_text(text)


def test_every_live_key_is_taken_up_by_the_part_that_it_is_for(root: Path, start_daemon: Callable[..., Daemon]) -> None:
    """Each key that is marked live is told, once, as being in force; none of them is said to need a restart."""
    daemon = start_daemon().wait_ready()
    before = by_key(load_settings(root / "config.toml"))
    live = {key: changed(key, value) for key, value in before.items() if is_live(key)}
    tables: dict[str, dict[str, object]] = {}
    for key, value in (before | live).items():
        table, _, name = key.rpartition(".")
        tables.setdefault(table, {})[name] = value
    layers = tables["training"].pop("layers")
    text = "".join(
        f"[{table}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
        for table, keys in tables.items()
    ) + "".join(
        "[[training.layers]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in layer.items())
        for layer in layers
    )
    (root / "config.toml").write_text(text.replace("port = 9787", "port = 0"))
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "config.toml again" in daemon.log, "an answer to SIGHUP")
    wait_until(lambda: "inference.review_below is now" in daemon.log, "the pipeline's next pass")
    assert dict.fromkeys(live, 1) == {
        key: daemon.log.count(f" {key} is now {value!r}; it was") for key, value in live.items()
    }
    assert "needs a restart" not in daemon.log


def changed(key: str, value: Any) -> Any:
    """Another value that is allowed too."""
    others = {
        "inbox.ignore": ["*.part"],
        "training.dataset": "keras:mnist",
        "training.scans": "elsewhere.npz",
        "training.loss": "kl_divergence",
        "training.optimizer": "sgd",
        "training.layers": [{"layer": "Flatten"}, {"layer": "Dense", "units": 10, "activation": "softmax"}],
        "retrain.cron": "",
        "retrain.interval_hours": 24.0,
        "retention.archive": "elsewhere",
    }
    if key in others:
        return others[key]
    return value + 1 if isinstance(value, int) else value * 0.9


def test_a_wrong_schedule_changes_nothing(daemon: Daemon) -> None:
    """A cron that is none is refused as a whole: nothing else of that configuration is said to be in force, or is."""
    said = change(daemon, 'cron = "0 3 * * *"', 'cron = "0 25 * * *"')
    assert "the configuration stays as it was: [retrain] cron: expected" in said
    assert "is now" not in said
    assert daemon.get("/readyz")[0] == 200
    change(daemon, 'cron = "0 25 * * *"', 'cron = "0 3 * * *"')


def test_a_wrong_configuration_changes_nothing(daemon: Daemon) -> None:
    """The daemon says what is wrong with it, and goes on."""
    said = change(daemon, "grace_seconds = 5.0", "grace_seconds = -1.0")
    assert "the configuration stays as it was:" in said
    assert "[inbox] grace_seconds: expected greater than or equal to 0. Received: -1.0" in said
    assert daemon.get("/readyz")[0] == 200
    change(daemon, "grace_seconds = -1.0", "grace_seconds = 5.0")


def test_closing_the_terminal_ends_the_daemon(root: Path) -> None:
    """The kernel sends SIGHUP then, too; whoever closes the window of a `digitd run` means it to stop."""
    master, slave = os.openpty()
    log = root / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "daemon", "run", "--config", str(root / "config.toml")],
            stdin=slave,
            stderr=file,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "DIGITD_HTTP__PORT": "0"},
        )
    os.close(slave)
    try:
        wait_until(lambda: "ready after" in log.read_text(), "the daemon to be ready")
        os.close(master)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
