"""index.py: `digitd index`."""

from contextlib import closing

from daemon.config import Settings
from daemon.index.schema import open_to_write, put_state
from tests.conftest import Run


def test_it_tells_what_it_holds(ask: Run, answered: Settings) -> None:
    """How much, and that it is whole; or how far its filling is."""
    code, out, _ = ask("index")
    assert code == 0
    assert f"{answered.index}: 4 answers and rejections, 0 labels, " in out
    assert "it is whole" in out
    with closing(open_to_write(answered.index, 0)) as connection:
        put_state(connection, since=0.0, done=1234, total=5000)
    code, out, _ = ask("index")
    assert (1, True) == (code, "1,234 of 5,000" in out)


def test_it_is_rebuilt(ask: Run, answered: Settings) -> None:
    """From whatever is in its place, to the same rows; stale ones are gone."""
    _, before, _ = ask("find")
    answered.index.write_bytes(b"no database" * 1000)
    assert 0 == ask("index", "--rebuild")[0]
    assert before == ask("find")[1]
    (answered.root / "results" / "a.png.json").unlink()
    assert 0 == ask("index", "--rebuild")[0]
    assert "a.png" not in ask("find")[1].replace("größe", "")


def test_it_is_not_rebuilt_without_the_archives(ask: Run, answered: Settings) -> None:
    """What has left would be found no more, only because a disk is not mounted."""
    with closing(open_to_write(answered.index, 0)) as connection:
        connection.execute("UPDATE answers SET archive = '2025-11-25.tar' WHERE name = 'a.png'")
    _, before, _ = ask("find")
    code, _, err = ask("index", "--rebuild")
    assert (1, True) == (code, "Mount their disk" in err)
    assert before == ask("find")[1]
    (answered.root / "archive").mkdir(exist_ok=True)
    (answered.root / "archive" / "they are on tape").touch()
    assert 0 == ask("index", "--rebuild")[0]
