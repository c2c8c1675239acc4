"""Status: what `digitd status` says, and the last hour."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from daemon.telemetry.asking import value_of
from daemon.web.metrics import LOOK_SECONDS, LastHour
from daemon.web.site import Site, moment


def routes(site: Site, hour: LastHour) -> list[Route]:
    """The view, and its part that changes."""

    def status(request: Request) -> Response:
        return site.page(request, "status.html", **_values(hour))

    def now(_request: Request) -> Response:
        return HTMLResponse(site.fragment("status_now.html", **_values(hour)))

    return [Route("/status", status), Route("/status/now", now)]


def _values(hour: LastHour) -> dict[str, Any]:
    """What status_now.html is about."""
    status, looks = hour.status, hour.looks
    if not status["running"]:
        state, headline = "off", "No daemon runs here"
    elif status["ready"]:
        state, headline = "good", "Ready"
    else:
        state, headline = "bad", "Not ready"
    return {
        "state": state,
        "headline": headline,
        "reasons": status.get("reasons", []),
        "figures": _figures(hour) if "model" in status else [],
        "rejections": sorted(status.get("rejections", {}).items(), key=lambda item: -item[1]),
        "shown": hour.charts(time.time()) if looks else [],
        "since": looks[0].at if looks else 0.0,
        "every": f"{LOOK_SECONDS:g}",
    }


def _figures(hour: LastHour) -> list[tuple[str, str, str]]:
    """(name, value, what is to be known beside it)."""
    status, samples = hour.status, hour.samples

    def since(name: str) -> str:
        seconds = value_of(samples, name)
        return f"since {moment(seconds)}" if seconds else ""

    images = status["images"]
    figures = [
        ("Model", status["model"] or "none loaded yet", since("digitd_model_loaded_timestamp_seconds")),
        ("Waiting", f"{status['waiting']:,}", f"and {status['in_work']:,} in work" if status["in_work"] else ""),
    ]
    if status["waiting"] or status["in_work"]:
        figures.append(("Oldest waits", f"{status['oldest_waiting_seconds']:.1f} s", ""))
    figures += [
        ("Accepted", f"{images.get('accepted', 0):,}", "since its start"),
        ("To be reviewed", f"{images.get('review', 0):,}", ""),
        ("Rejected", f"{images.get('rejected', 0):,}", ""),
    ]
    if labelled := value_of(samples, "digitd_live_accuracy_images"):
        share = value_of(samples, "digitd_live_accuracy_ratio")
        figures.append(("Right, as people say", f"{share:.1%}", f"of the latest {labelled:.0f} labelled"))
    if size := value_of(samples, "digitd_disk_size_bytes"):
        free = value_of(samples, "digitd_disk_free_bytes")
        figures.append(("Disk free", f"{free / 1e9:.3g} GB", f"{free / size:.0%} of it"))
    figures.append(("Process", f"pid {status['pid']}", since("process_start_time_seconds")))
    return figures
