"""`digitd find` and `digitd export`: which images were answered, with what, and where they are; asked of the index."""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from daemon.config import Settings
from daemon.index.queries import COLUMNS, Wanted, as_dict, find
from daemon.index.schema import NOT_KEPT, get_state, reading

FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")  # what a spreadsheet computes instead of showing it; the last are wide


def wanted(options: argparse.Namespace, now: datetime) -> Wanted:
    """What the options ask for.

    Raises:
        ValueError: one of them is no moment or no range, in words.

    """
    since, until = (moment(text, now) if text else None for text in (options.since, options.until))
    if options.day:
        since = moment(options.day, now)
        try:
            until = (datetime.fromtimestamp(since) + timedelta(days=1)).timestamp()  # noqa: DTZ006 -- local, where a day may have 25 hours
        except OverflowError:
            raise ValueError(f"expected a day that has a next one. Received: {options.day!r}.") from None
    least, most = _range(options.confidence)
    return Wanted(options.name, options.digit, since, until, options.outcome, options.version, least, most)


def moment(text: str, now: datetime) -> float:
    """A day or a time in words, local unless it says otherwise, as seconds since the epoch.

    Raises:
        ValueError: it is none.

    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        return (days.get(text) or datetime.fromisoformat(text)).timestamp()
    except ValueError:
        raise ValueError(
            f"expected 'today', 'yesterday' or a time such as '2026-11-25 14:00'. Received: {text!r}."
        ) from None


def print_answers(settings: Settings, which: Wanted, limit: int, form: str, newest_first: bool) -> int:
    """Print them.

    Args:
        limit: at most so many; -1 for all.
        form: "table", "json" (an object a line) or "csv".
        newest_first: or oldest first.

    Returns:
        0, or 1 where there is none.

    Raises:
        NoIndex: there is nothing to ask.

    """
    try:
        with reading(settings.index) as connection:
            answers = (as_dict(row, settings) for row in find(connection, which, limit, newest_first))
            count = {"table": _print_table, "json": _print_json, "csv": _print_csv}[form](answers)
            state = get_state(connection)
    except sqlite3.DatabaseError as error:
        print(f"{settings.index}: {error}; `digitd index --rebuild` makes it anew", file=sys.stderr)
        return 1
    if state["since"] is not None:
        print("The index is being filled; there may be more: see `digitd index`.", file=sys.stderr)
    if count == limit:
        print(f"The first {limit}; --limit shows more.", file=sys.stderr)
    return 0 if count else 1


def _print_table(answers: Iterable[dict[str, Any]]) -> int:
    count = 0
    for answer in answers:
        if not count:
            print(f"{'answered (UTC)':<19}  {'digit':>5}  {'confidence':>10}  {'outcome':<8}  {'model':<6}  where")
        digit = "-" if answer["digit"] is None else answer["digit"]
        confidence = "-" if answer["confidence"] is None else f"{answer['confidence']:.2%}"
        where = answer["original"] or f"{answer['file']} ({'not kept' if answer['reason'] == NOT_KEPT else 'deleted'})"
        reason = f"  ({answer['reason']})" if answer["reason"] else ""
        time = answer["answered_at"][:19].replace("T", " ")
        print(
            f"{time}  {digit:>5}  {confidence:>10}  {answer['outcome']:<8}  {answer['version'] or '-':<6}  {where}{reason}"
        )
        count += 1
    return count


def _print_json(answers: Iterable[dict[str, Any]]) -> int:
    count = 0
    for count, answer in enumerate(answers, 1):  # noqa: B007 -- how many there were
        print(json.dumps(answer))
    return count


def _print_csv(answers: Iterable[dict[str, Any]]) -> int:
    """With a byte order mark, by which spreadsheets know UTF-8, and times as they read them."""
    count = 0
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    sys.stdout.write("\ufeff")
    table = csv.DictWriter(sys.stdout, COLUMNS)
    table.writeheader()
    for count, answer in enumerate(answers, 1):  # noqa: B007 -- how many there were
        table.writerow({key: _cell(key, value) for key, value in answer.items()})
    return count


def _cell(key: str, value: Any) -> Any:
    if key.endswith("_at") and value:
        return value[:23].replace("T", " ")  # to the millisecond, UTC
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"./{value}"  # another spelling of the same path
    return value


def _range(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    least, separator, most = text.partition("..")
    try:
        if not separator:
            raise ValueError
        return float(least) if least else None, float(most) if most else None
    except ValueError:
        raise ValueError(f"expected a range such as 0.9.. or ..0.5 or 0.3..0.6. Received: {text!r}.") from None
