"""What walks through the house crosses to other processes as it is."""

from __future__ import annotations

import pickle

import pytest

from daemon.drops import Drop, ImageFacts, Rows


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Drop("a/\udcff.png", 1.5), Drop("b.png", 2.0)],
        [ImageFacts("ab", "PNG", 28, 28), ImageFacts("cd", "JPEG", 600, 800, 5000)],
    ],
    ids=["none", "drops", "facts"],
)
def test_rows_cross_in_columns(rows: list[tuple[object, ...]]) -> None:
    """Named tuples that crossed in columns are the same rows, and can grow."""
    crossed = pickle.loads(pickle.dumps(Rows(rows)))  # noqa: S301 -- our own
    assert rows == crossed
    assert [type(row) for row in rows] == [type(row) for row in crossed]
    crossed += rows
    assert Rows(2 * rows) == pickle.loads(pickle.dumps(crossed))  # noqa: S301 -- our own
