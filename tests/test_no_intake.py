"""`digitd run --no-intake`: everything but answers, on a root whose images others answer."""

import json
import os
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from daemon.answering.publish import prepare, publish_predictions
from daemon.answering.root import StartError, keep_house, take_root
from daemon.commands.status import latest_answers
from daemon.config import Settings, load_settings
from daemon.drops import Drop, ImageFacts, Predictions
from daemon.files import file_sha256
from daemon.index import following
from daemon.index.following import Following
from daemon.index.schema import append, get_state, open_to_write
from daemon.index.tending import tend
from tests.conftest import Digits, Run, digitd, wait_until
from tests.faults.harness import Daemon, Nursery, lay_out
from tests.index.answers import record


def answer(root: Path, name: str, content: bytes, digit: int) -> None:
    """What another program does that answers: a stream on Spark, or a daemon on another host."""
    (root / "processed" / name).write_bytes(content)
    facts = ImageFacts(file_sha256(root / "processed" / name), "PNG", 28, 28)
    rows = np.eye(10, dtype=np.float32)[digit : digit + 1]
    now = (root / "processed" / name).stat().st_mtime
    publish_predictions(root / "results", Predictions([Drop(name, now)], [facts], rows, [None], "v0001", "m" * 64, now, now))


def test_it_keeps_house_and_answers_nothing(nursery: Nursery, tmp_path: Path, digits: Digits) -> None:
    """What others answer is indexed, what people label is compared with it, drops are left alone; and all says so."""
    root = lay_out(tmp_path / "root", nursery.model)
    settings = load_settings(root / "config.toml")
    with Daemon(nursery, root, presence="logs/.daemon.json", arguments=["--no-intake"]) as keeper:
        (root / "inbox" / "a.png").write_bytes(digits.png(0))
        answer(root, "a.png", digits.png(0), digits.labels[0])
        label = root / "corrections" / str(digits.labels[0]) / "a.png"
        label.parent.mkdir(exist_ok=True)
        label.write_bytes(digits.png(0))
        wait_until(lambda: keeper.metric("digitd_corrections_total", agrees="yes"), "the correction to be noticed")
        assert 1 == keeper.metric("digitd_model_info", version="v0001")
        wait_until(lambda: latest_answers(settings), "the answer to be indexed")
        assert ["a.png"] == [found["file"] for found in latest_answers(settings)]
        assert {"a.png"} == set(os.listdir(root / "inbox"))
        with pytest.raises(StartError, match="expected nobody else who keeps its index"), ExitStack() as stack:
            keep_house(settings, stack)
        done = digitd("status", "-c", root / "config.toml")
        assert (1, True) == (done.returncode, f"house     kept by pid {keeper.pid} on " in done.stdout)
        assert 0 == keeper.stop()
        assert "answering nothing" in keeper.log.read_text()


def test_who_answers_and_who_keeps_house_may_be_two(settings: Settings) -> None:
    """A stream takes the root, and a daemon that answers nothing keeps its house; of either there is one."""
    with ExitStack() as stack, ExitStack() as house:
        take_root(settings, stack)
        keep_house(settings, house)
        with pytest.raises(StartError, match="expected no other daemon on this root"), ExitStack() as second:
            take_root(settings, second)
        with pytest.raises(StartError, match="expected nobody else who keeps its index"), ExitStack() as second:
            keep_house(settings, second)


def test_an_index_follows_what_others_answer(settings: Settings, digits: Digits, run: Run) -> None:
    """Also what was answered while nobody followed, and what is answered anew; each is there once, however a look ended."""
    for folder in ("results", "rejected"):
        prepare(settings.folder(folder))
    settings.folder("processed").mkdir(exist_ok=True)
    assert 0 == tend(settings, time.time())  # which makes the index
    answer(settings.root, "a.png", digits.png(0), 7)
    first = Following(settings)
    first.run_once(0.0)
    assert ["a.png"] == names(run)
    answer(settings.root, "b.png", digits.png(1), 2)
    first.run_once(1.0)  # which is too soon
    assert ["a.png"] == names(run)
    first.run_once(1e6)
    assert ["b.png", "a.png"] == names(run)
    answer(settings.root, "a.png", digits.png(0), 7)
    answer(settings.root, "c.png", digits.png(2), 1)
    first.close()
    first.run_once(2e6)  # which is stopped at once
    assert 0 == tend(settings, time.time())
    second = Following(settings)
    second.run_once(0.0)
    assert ["a.png", "b.png", "c.png"] == sorted(names(run))


def test_an_answer_from_the_future_hides_none_that_came_while_nobody_followed(
    settings: Settings, digits: Digits, run: Run
) -> None:
    """The clock of one host was ahead for a moment."""
    for folder in ("results", "rejected"):
        prepare(settings.folder(folder))
    assert 0 == tend(settings, time.time())
    now = time.time()
    with closing(open_to_write(settings.index, 0)) as connection:
        append(connection, [record("old.png", at=now - 3 * 3600), record("ahead.png", at=now + 1e9)])
    answer(settings.root, "b.png", digits.png(1), 2)
    os.utime(settings.folder("results") / "b.png.json", (now - 2 * 3600,) * 2)
    Following(settings).run_once(0.0)
    assert "b.png" in names(run)


def test_nobody_rebuilds_an_index_between_a_look_at_it_and_what_is_noted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what has just been emptied would be noted as nearly whole."""
    prepare(settings.folder("results"))
    assert 0 == tend(settings, time.time())
    looks = []

    def look(connection: sqlite3.Connection) -> dict[str, object]:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_to_write(settings.index, 0)
        looks.append(get_state(connection))
        return looks[-1]

    monkeypatch.setattr(following, "get_state", look)
    Following(settings).run_once(0.0)
    assert [None] == [state["since"] for state in looks]


def names(run: Run) -> list[str]:
    """The files that the index knows."""
    return [json.loads(line)["file"] for line in run("find", "--json")[1].splitlines()]
