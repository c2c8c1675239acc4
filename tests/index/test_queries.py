"""queries.py: what the index is asked beside `digitd find`."""

from contextlib import closing

from daemon.config import Settings
from daemon.index.queries import DAY, bytes_per_day
from daemon.index.schema import open_to_read
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from tests.index.answers import NOON, record


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
