"""What a daemon that runs says of itself, asked from outside."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from daemon.telemetry.presence import HOST, who_runs
from daemon.telemetry.samples import Samples, read_samples

TIMEOUT_SECONDS = 5.0
WITHOUT_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy is not for this machine's own


def read_status(presence: Path) -> dict[str, Any]:
    """Ask the daemon that announced itself there.

    Returns:
        At least "running"; where it runs also "pid", "host", "address", "ready", "reasons" and its figures.

    Raises:
        PermissionError: this user may not look.

    """
    return ask(presence)[0]


def ask(presence: Path) -> tuple[dict[str, Any], Samples]:
    """What `read_status` returns, and all that /metrics says; nothing where nobody answers."""
    daemon = who_runs(presence)
    if daemon is None:
        return {"running": False}, {}
    status: dict[str, Any] = {"running": True, **daemon}
    base = f"http://{daemon['address']}"
    if daemon.get("host", HOST) != HOST:
        return status | {"ready": False, "reasons": [f"it runs on {daemon['host']}: ask there, or Prometheus"]}, {}
    try:
        ready, text = _get(f"{base}/readyz")
        metrics = read_samples(_get(f"{base}/metrics")[1])
    except (OSError, HTTPException) as error:  # the second where it ends in the middle of an answer
        return status | {"ready": False, "reasons": [f"it does not answer on {base}: {error}"]}, {}
    status |= {
        "ready": ready,
        "reasons": [] if ready else text.splitlines(),
        "model": next((dict(labels)["version"] for labels in metrics.get("digitd_model_info", {})), None),
        "model_loaded_at": _time(value_of(metrics, "digitd_model_loaded_timestamp_seconds")),
        "waiting": int(value_of(metrics, "digitd_backlog_images", folder="inbox")),
        "in_work": int(value_of(metrics, "digitd_backlog_images", folder="work")),
        "oldest_waiting_seconds": value_of(metrics, "digitd_oldest_waiting_seconds"),
        "images": _by_label(metrics, "digitd_images_total", "outcome"),
        "rejections": _by_label(metrics, "digitd_rejections_total", "reason"),
        "started_at": _time(value_of(metrics, "process_start_time_seconds")),
    }
    return status, metrics


def _get(url: str) -> tuple[bool, str]:
    try:
        with WITHOUT_PROXY.open(url, timeout=TIMEOUT_SECONDS) as response:
            return True, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, error.read().decode()


def value_of(metrics: Samples, name: str, **labels: str) -> float:
    """One sample; 0.0 where there is none."""
    return metrics.get(name, {}).get(frozenset(labels.items()), 0.0)


def _by_label(metrics: Samples, name: str, label: str) -> dict[str, int]:
    return {dict(labels)[label]: int(value) for labels, value in metrics.get(name, {}).items()}


def _time(seconds: float) -> str | None:
    """A time for a person; None for a gauge that was never set."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else None
