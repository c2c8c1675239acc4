"""`digitd status`: what the running daemon says of itself, for a person."""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config import PRESENCE, Settings
from daemon.index.queries import Wanted, as_dict, find
from daemon.index.schema import NoIndex, open_to_read
from daemon.telemetry.presence import who_runs
from daemon.telemetry.samples import Samples, read_samples

TIMEOUT_SECONDS = 5.0
LATEST = 5  # answers that are shown
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy is not for this machine's own


def print_status(settings: Settings, as_json: bool) -> int:
    """Print it.

    Returns:
        0 when the daemon is ready, 1 when it is not or does not run.

    """
    status = read_status(settings.folder("work"))
    latest = latest_answers(settings)
    if as_json:
        print(json.dumps(status | {"latest": latest}, indent=2))
    elif not status["running"]:
        print(f"not running on {settings.root}")
    else:
        print("\n".join([*_lines(status), *_latest_lines(latest)]))
    return 0 if status.get("ready") else 1


def read_status(work: Path) -> dict[str, Any]:
    """Ask the daemon whose work/ this is.

    Returns:
        At least "running"; where it runs also "pid", "address", "ready", "reasons" and its figures.

    Raises:
        PermissionError: this user may not look.

    """
    daemon = who_runs(work / PRESENCE)
    if daemon is None:
        return {"running": False}
    status: dict[str, Any] = {"running": True, **daemon}
    base = f"http://{daemon['address']}"
    try:
        ready, text = _get(f"{base}/readyz")
        metrics = read_samples(_get(f"{base}/metrics")[1])
    except OSError as error:
        return status | {"ready": False, "reasons": [f"it does not answer on {base}: {error}"]}
    return status | {
        "ready": ready,
        "reasons": [] if ready else text.splitlines(),
        "model": next((dict(labels)["version"] for labels in metrics.get("digitd_model_info", {})), None),
        "model_loaded_at": _time(_value(metrics, "digitd_model_loaded_timestamp_seconds")),
        "waiting": int(_value(metrics, "digitd_backlog_images", folder="inbox")),
        "in_work": int(_value(metrics, "digitd_backlog_images", folder="work")),
        "oldest_waiting_seconds": _value(metrics, "digitd_oldest_waiting_seconds"),
        "images": _by_label(metrics, "digitd_images_total", "outcome"),
        "rejections": _by_label(metrics, "digitd_rejections_total", "reason"),
        "started_at": _time(_value(metrics, "process_start_time_seconds")),
    }


def latest_answers(settings: Settings) -> list[dict[str, Any]]:
    """The newest answers and rejections; none where there is no index to ask."""
    try:
        with closing(open_to_read(settings.index)) as connection:
            return [as_dict(row, settings) for row in find(connection, Wanted(), LATEST)]
    except (NoIndex, OSError, sqlite3.Error):
        return []


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
        return lines
    model = f"{status['model']}, loaded {status['model_loaded_at']}" if status["model"] else "none loaded yet"
    images, rejections = status["images"], status["rejections"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejections.items()))
    lines += [
        f"model     {model}",
        f"waiting   {status['waiting']} in the inbox, {status['in_work']} in work",
        f"oldest    waits for {status['oldest_waiting_seconds']:.1f} s",
        f"answered  {images.get('accepted', 0)} accepted, {images.get('review', 0)} to be reviewed",
        f"rejected  {images.get('rejected', 0)}" + (f" ({reasons})" if reasons else ""),
        f"metrics   http://{status['address']}/metrics",
    ]
    return lines


def _get(url: str) -> tuple[bool, str]:
    try:
        with WITHOUT_PROXY.open(url, timeout=TIMEOUT_SECONDS) as response:
            return True, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, error.read().decode()


def _value(metrics: Samples, name: str, **labels: str) -> float:
    return metrics.get(name, {}).get(frozenset(labels.items()), 0.0)


def _by_label(metrics: Samples, name: str, label: str) -> dict[str, int]:
    return {dict(labels)[label]: int(value) for labels, value in metrics.get(name, {}).items()}


def _time(seconds: float) -> str | None:
    """A time for a person; None for a gauge that was never set."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else None
