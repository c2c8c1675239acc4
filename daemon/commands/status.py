"""`digitd status`: what the running daemon says of itself, for a person."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from daemon.config import PRESENCE, Settings
from daemon.index.queries import DAY, Wanted, agreeing, as_dict, find, sample
from daemon.index.schema import NoIndex, reading
from daemon.models.registry import Registry, RegistryError
from daemon.telemetry.asking import read_status
from daemon.telemetry.drift import drift_of_answers
from daemon.telemetry.presence import in_words, who_runs

LATEST = 5  # answers that are shown
WINDOWS = (7, 30)  # days; how often people agreed in them, and how far answers drifted
Value = TypeVar("Value")


def print_status(settings: Settings, as_json: bool) -> int:
    """Print it.

    Returns:
        0 when the daemon is ready, 1 when it is not or does not run.

    """
    status = read_status(settings.folder("work") / PRESENCE)
    if house := who_runs(settings.folder("logs") / PRESENCE):
        status |= {"house": house}
    now = time.time()
    latest, labelled, drift = latest_answers(settings), labelled_lately(settings, now), drifted_lately(settings, now)
    if as_json:
        print(json.dumps(status | {"latest": latest, "labelled": labelled, "drift": drift}, indent=2))
    elif not status["running"]:
        print("\n".join([f"not running on {settings.root}", *_house_lines(status)]))
    else:
        print("\n".join([*_lines(status), *_labelled_lines(labelled), *_drift_lines(drift), *_latest_lines(latest)]))
    return 0 if status.get("ready") else 1


def latest_answers(settings: Settings) -> list[dict[str, Any]]:
    """The newest answers and rejections; none where there is no index to ask."""
    return _ask(settings, lambda index: [as_dict(row, settings) for row in find(index, Wanted(), LATEST)]) or []


def labelled_lately(settings: Settings, now: float) -> dict[str, dict[str, int]]:
    """How many images people labelled in the last days, and how often the answer was right; nothing without an index."""
    counts = _ask(settings, lambda index: {days: agreeing(index, now - days * DAY) for days in WINDOWS}) or {}
    return {f"{days} days": {"labelled": labelled, "agree": agree} for days, (labelled, agree) in counts.items()}


def drifted_lately(settings: Settings, now: float) -> dict[str, dict[str, float]]:
    """How far the answers of the last days are from those to the validation data of the version that is current now.

    Nothing without an index, or where nobody knows those.
    """
    try:
        registry = Registry(settings.folder("models"))
        reference = registry.manifest(registry.current_name() or "").reference
    except (RegistryError, OSError):
        return {}
    if reference is None:
        return {}
    answers = _ask(settings, lambda index: {days: sample(index, now - days * DAY) for days in WINDOWS}) or {}
    drift = {f"{days} days": drift_of_answers(reference.model_dump(), found) for days, found in answers.items()}
    return {days: indices for days, indices in drift.items() if indices}


def _ask(settings: Settings, question: Callable[[sqlite3.Connection], Value]) -> Value | None:
    try:
        with reading(settings.index) as connection:
            return question(connection)
    except (NoIndex, OSError, sqlite3.Error):
        return None


def _labelled_lines(labelled: dict[str, dict[str, int]]) -> list[str]:
    shares = [
        f"{n['agree'] / n['labelled']:.1%} of {n['labelled']} in {days}" for days, n in labelled.items() if n["labelled"]
    ]
    return [f"right     by people's labels: {', '.join(shares)}"] if shares else []


def _drift_lines(drift: dict[str, dict[str, float]]) -> list[str]:
    of = [
        f"{', '.join(f'{feature} {index:.2f}' for feature, index in indices.items())} in {days}"
        for days, indices in drift.items()
    ]
    return [f"drift     of answers (from 0.25 on other than at validation): {'; '.join(of)}"] if of else []


def _latest_lines(latest: list[dict[str, Any]]) -> list[str]:
    lines = []
    for number, answer in enumerate(latest):
        what = answer["reason"] if answer["digit"] is None else f"{answer['digit']} ({answer['confidence']:.1%})"
        time = answer["answered_at"][:19].replace("T", " ")
        lines.append(f"{'latest' if not number else '':<8}  {time} UTC  {answer['file']}: {answer['outcome']}, {what}")
    return lines


def _lines(status: dict[str, Any]) -> list[str]:
    lines = [f"running   pid {status['pid']}" + (f" since {status['started_at']}" if "started_at" in status else "")]
    lines.append("ready     yes" if status["ready"] else f"ready     no: {'; '.join(status['reasons'])}")
    if "model" not in status:
        return lines + _house_lines(status)
    model = f"{status['model']}, loaded {status['model_loaded_at']}" if status["model"] else "none loaded yet"
    images, rejections = status["images"], status["rejections"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejections.items()))
    lines += [
        f"model     {model}",
        f"waiting   {status['waiting']} in the inbox, {status['in_work']} in work",
        *([f"oldest    waits for {waits:.1f} s"] if (waits := status["oldest_waiting_seconds"]) else []),
        f"answered  {images.get('accepted', 0)} accepted, {images.get('review', 0)} to be reviewed",
        f"rejected  {images.get('rejected', 0)}" + (f" ({reasons})" if reasons else ""),
        f"metrics   http://{status['address']}/metrics",
    ]
    return lines + _house_lines(status)


def _house_lines(status: dict[str, Any]) -> list[str]:
    """Who trains and indexes, where that is not who answers."""
    if not (house := status.get("house")):
        return []
    return [f"house     kept by {in_words(house)}"]
