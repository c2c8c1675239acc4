"""find.py: `digitd find` and `digitd export`."""

import csv
import io
import json
from contextlib import closing
from datetime import UTC, datetime

import pytest

from daemon.commands.find import _cell, moment
from daemon.config import Settings
from daemon.index.schema import append, open_to_write, put_state
from tests.conftest import Run
from tests.index.answers import record


def found(ask: Run, *arguments: object) -> list[str]:
    """The names that `digitd find --json` gives."""
    _, out, _ = ask("find", "--json", *arguments)
    return [json.loads(line)["file"] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["=c.png", "größe.txt", "batch7/b.png", "a.png"]),
        (("png",), ["=c.png", "batch7/b.png", "a.png"]),
        (("*.png",), ["=c.png", "batch7/b.png", "a.png"]),
        (("?.png",), ["a.png"]),
        (("größe",), ["größe.txt"]),
        (("--digit", 3), ["batch7/b.png"]),
        (("--outcome", "rejected"), ["größe.txt"]),
        (("--version", "v0002"), ["=c.png"]),
        (("--confidence", "..0.5"), ["batch7/b.png"]),
        (("--confidence", "0.5.."), ["=c.png", "a.png"]),
        (("--since", "2025-11-26T00:00:00Z"), ["=c.png"]),
        (("--until", "2025-11-25T12:00:01Z"), ["a.png"]),
        (("--limit", 2), ["=c.png", "größe.txt"]),
    ],
)
def test_answers_are_found(ask: Run, arguments: tuple[object, ...], expected: list[str]) -> None:
    """By name, digit, outcome, version, confidence and time; the newest first."""
    assert expected == found(ask, *arguments)


def test_a_day_is_a_local_one(ask: Run) -> None:
    """From midnight to midnight where the caller is."""
    assert ["größe.txt", "batch7/b.png", "a.png"] == found(ask, "--day", "2025-11-25")
    assert [] == found(ask, "--day", "yesterday")


def test_the_table_says_what_and_where(ask: Run) -> None:
    """A line an answer, under a heading, with its reason and where its original is."""
    code, out, err = ask("find", "b.png")
    assert (0, "") == (code, err)
    heading, line = out.splitlines()
    assert heading.split()[:2] == ["answered", "(UTC)"]
    assert line == "2025-11-25 12:00:01      3      40.00%  review    v0001   processed/batch7/b.png  (low_confidence)"


def test_what_was_not_kept_is_said_to_be_nowhere(ask: Run, answered: Settings) -> None:
    """Of a link there is a JSON and nothing else: `find` names no place of it, and `restore` says so."""
    (answered.root / "rejected" / "link.png.json").write_text(
        '{"schema":1,"file":"link.png","sha256":null,"reason":"not_a_regular_file","detail":"A link.","hint":"A copy.",'
        '"rejected_at":"2025-11-27T12:00:00.000000Z"}'
    )
    with closing(open_to_write(answered.index, 1.0)) as index:
        append(index, [record("link.png")._replace(sha256=None, outcome="rejected", reason="not_a_regular_file")])
    assert ask("find", "link.png")[1].endswith("  link.png (not kept)  (not_a_regular_file)\n")
    assert json.loads(ask("find", "--json", "link.png")[1])["original"] is None
    code, _, err = ask("restore", "link.png", "--to", answered.root / "back")
    assert (1, "link.png: it was not kept, for it was no regular file\n") == (code, err)
    assert (answered.root / "back" / "link.png.json").exists()


def test_nothing_found_exits_with_1(ask: Run) -> None:
    """As grep does."""
    assert (1, "", "") == ask("find", "nothing")


@pytest.mark.parametrize("limit", [-(10**20), -1, 10**20])
def test_a_limit_that_is_none_limits_nothing(ask: Run, limit: int) -> None:
    """However large, or below zero."""
    code, out, err = ask("find", "--json", "--limit", limit)
    assert (0, "", 4) == (code, err, len(out.splitlines()))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--since", "soon"), "Received: 'soon'"),
        (("--confidence", "high"), "Received: 'high'"),
        (("--day", "9999-12-31"), "'9999-12-31'"),
    ],
)
def test_a_wrong_option_exits_with_2(ask: Run, arguments: tuple[object, ...], complaint: str) -> None:
    """What was expected is said, and what came."""
    code, _, err = ask("find", *arguments)
    assert code == 2
    assert complaint in err


def test_export_opens_as_it_is(ask: Run) -> None:
    """CSV with a byte order mark, oldest first, times that spreadsheets read, and no name that they would compute."""
    code, out, _ = ask("export", "--since", "2025-11-25", "--csv")
    assert code == 0
    assert out.startswith("\ufefffile,outcome,digit,confidence,reason,version,answered_at,received_at,")
    rows = list(csv.DictReader(io.StringIO(out.removeprefix("\ufeff"))))
    assert ["a.png", "batch7/b.png", "größe.txt", "./=c.png"] == [row["file"] for row in rows]
    assert {"2025-11-25 12:00:00.000"} == {rows[0]["answered_at"]}
    assert ("7", "0.99", "") == (rows[0]["digit"], rows[0]["confidence"], rows[2]["digit"])


@pytest.mark.parametrize("first", "=+-@\t\r\uff1d\uff0b\uff0d\uff20")
def test_what_spreadsheets_compute_is_spelled_otherwise(first: str) -> None:
    """The wide forms, too, which some take for the narrow ones."""
    assert f"./{first}1" == _cell("file", f"{first}1")


def test_moments() -> None:
    """Days in words, dates and times, local unless they say otherwise."""
    now = datetime(2025, 3, 30, 14, 5, tzinfo=UTC).astimezone().replace(hour=14)
    assert now.replace(day=29, hour=0, minute=0).timestamp() == moment("yesterday", now)
    assert now.replace(hour=0, minute=0).timestamp() == moment("today", now)
    assert now.replace(minute=0).timestamp() == moment("2025-03-30 14:00", now)
    with pytest.raises(ValueError, match="Received: 'tomorrow'"):
        moment("tomorrow", now)


def test_an_index_that_is_not_whole_says_so(ask: Run, answered: Settings) -> None:
    """Nobody takes what is there so far for all that there is."""
    with closing(open_to_write(answered.index, 0)) as connection:
        put_state(connection, since=0.0)
    assert "being filled" in ask("find")[2]


def test_without_an_index_it_is_said_what_to_do(ask: Run, answered: Settings) -> None:
    """Where there is none, or a damaged one."""
    answered.index.write_bytes(b"no database" * 1000)
    code, _, err = ask("find")
    assert (1, True) == (code, "digitd index --rebuild" in err)
    answered.index.unlink()
    code, _, err = ask("find")
    assert (1, True) == (code, "no such file" in err)
