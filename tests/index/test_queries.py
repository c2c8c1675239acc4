"""queries.py: what the index is asked beside `digitd find`."""

from contextlib import closing
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.index import queries
from daemon.index.queries import DAY, agreeing, bytes_per_day, of_content, sample
from daemon.index.schema import open_to_read, open_to_write
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from tests.conftest import as_ordinary_user
from tests.index.answers import NOON, record


def test_a_digest_is_looked_up(bare: Settings) -> None:
    """However many answers there are, SQLite goes through none of them but those that nothing indexes yet."""
    index = Index(bare.index, Metrics())
    index.add([record("a.png", b"a", NOON), record("b.png", b"a", NOON + 1), record("c.png", b"c")])
    index.close()
    with closing(open_to_read(bare.index)) as connection:
        digest = record("", b"a").sha256
        assert ["b.png", "a.png"] == [row["name"] for row in of_content(connection, digest or b"")]
        steps = connection.execute(f"EXPLAIN QUERY PLAN {queries._BY_SHA256}", {"sha256": digest, "length": 32})
        plan = [row["detail"] for row in steps]
    assert [] == [step for step in plan if "SCAN" in step]


def test_the_pace_is_that_of_the_last_week(bare: Settings) -> None:
    """Whole blocks of original and JSON, a day; what is older does not count, and an hour's burst is no day's pace."""
    index = Index(bare.index, Metrics())
    index.add([record(f"{number}.png", b"", NOON - number * DAY, size=5000) for number in range(10)])
    index.run_once(100.0)
    with closing(open_to_read(bare.index)) as connection:
        assert 8 * 3 * 4096 / 7 == bytes_per_day(connection, NOON)
        assert 1 * 3 * 4096 / 7 == bytes_per_day(connection, NOON + 7 * DAY)
        assert 0 == bytes_per_day(connection, NOON + 8 * DAY)
    index.add([record("burst.png", b"", NOON + 20 * DAY, size=5000)])
    index.close()
    with closing(open_to_read(bare.index)) as connection:
        assert 3 * 4096 == bytes_per_day(connection, NOON + 20 * DAY + 60)


def test_a_sample_is_of_all_answers_or_evenly_among_them(bare: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since a moment; what was rejected has no digit, and is left out."""
    index = Index(bare.index, Metrics())
    index.add([record(f"{number}.png", b"", NOON + number, digit=number % 10, confidence=0.5) for number in range(100)])
    index.add([record("x", b"x", NOON + 100, digit=None, outcome="rejected"), record("old.png", b"", NOON - 1)])
    index.close()
    with closing(open_to_read(bare.index)) as connection:
        assert [(number % 10, 0.5) for number in range(100)] == sample(connection, NOON)
        monkeypatch.setattr(queries, "SAMPLED", 9)
        assert 8 <= len(sample(connection, NOON)) <= 9
        assert [] == sample(connection, NOON + 100)


def test_labels_are_counted_by_whether_the_latest_answer_agrees(bare: Settings) -> None:
    """Each image once, since a moment; who says that it is no digit agrees with a doubt."""
    index = Index(bare.index, Metrics())
    doubted = record("d.png", b"d", outcome="review", reason="not_a_digit")
    answered = [record("a.png", b"a", NOON, digit=3), record("a2.png", b"a", NOON + 1), record("b.png", b"b"), doubted]
    index.add([*answered, record("c.png", b"c")])
    for content, digit, at in (
        (b"a", 7, NOON),
        (b"b", 1, NOON),
        (b"d", None, NOON),
        (b"c", None, NOON - DAY),
        (b"x", 7, NOON),
    ):
        index.label((record("", content).sha256 or b"", digit, "file", at))
    index.run_once(100.0)
    index.close()
    with closing(open_to_read(bare.index)) as connection:
        assert (3, 2) == agreeing(connection, NOON)
        assert (4, 2) == agreeing(connection, NOON - DAY)
        assert (0, 0) == agreeing(connection, NOON + 1)


def test_an_index_that_is_closed_to_us_is_not_called_damaged(open_path: Path) -> None:
    """Whoever may not read it is told so, and not to make it anew."""
    open_to_write(open_path / "index.sqlite", 1.0).close()
    for path in open_path.iterdir():
        path.chmod(0)
    with as_ordinary_user(), pytest.raises(PermissionError):
        open_to_read(open_path / "index.sqlite")
