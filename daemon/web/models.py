"""Models: the versions, what is known of each, which was live when, the training that runs; promote and roll back."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon.config import PRESENCE
from daemon.index.schema import NoIndex
from daemon.models.adoption import VettingStopped
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import VERSION, Registry, RegistryError
from daemon.telemetry.asking import ask, value_of
from daemon.training import choosing
from daemon.web import versions
from daemon.web.charts import band
from daemon.web.site import Site

DONE = {"promoted": "{} is current now. A daemon that runs swaps to it at once.", "back": "Back to {}."}
END_WORDS = versions.VERDICT_WORDS | {"failed": "failed", "stopped": "stopped", "overtaken": "overtaken by another choice"}


def routes(site: Site) -> list[Route]:
    """The list, a version, its training, and two questions before something is changed."""

    def overview(request: Request) -> Response:
        registry = _registry(site)
        lines = list(registry.ledger.lines())
        spans = versions.live_spans(lines)
        kind, _, name = request.query_params.get("done", "").partition(" ")
        done = DONE[kind].format(name) if kind in DONE and VERSION.fullmatch(name) else ""
        return site.page(
            request,
            "models.html",
            versions=[versions.look_up(registry, name, lines) for name in reversed(registry.names())],
            spans=spans,
            bands={"wide": band(spans, time.time(), 900), "narrow": band(spans, time.time(), 380)},
            done=done,
            may_choose=_may_choose(site),
            can_go_back=registry.previous_name() not in (None, registry.current_name()),
            models=site.settings.folder("models"),
            **_training(site, lines),
        )

    def training(_request: Request) -> Response:
        return HTMLResponse(site.fragment("training.html", **_training(site, list(_registry(site).ledger.lines()))))

    def version(request: Request) -> Response:
        registry, name = _registry(site), _name(request)
        shown = versions.look_up(registry, name, list(registry.ledger.lines()))
        return site.page(
            request,
            "version.html",
            404 if name not in registry.names() else 200,
            shown=shown,
            curves=versions.learning_curves(site.settings, name),
            matrix=versions.confusion(shown.manifest) if shown.manifest else [],
            may_choose=_may_choose(site),
        )

    async def promote(request: Request) -> Response:
        name = _name(request)
        shown = await run_in_threadpool(lambda: _look_up(site, name))
        if shown.manifest is None:
            raise HTTPException(404, shown.problem)
        sentences = [f"It reads {shown.manifest.holdout.accuracy:.2%} of the hold-out rightly."]
        if shown.verdict:
            sentences.append(f"The gate said {shown.verdict_words}: {shown.reason}")
        else:
            sentences.append("The gate was never asked about it.")
        return await _choose(
            site,
            request,
            f"Promote {name}?",
            sentences,
            "Promote it",
            lambda: choosing.promote(site.settings, name),
            "promoted",
        )

    async def roll_back(request: Request) -> Response:
        previous = await run_in_threadpool(lambda: _registry(site).previous_name())
        return await _choose(
            site,
            request,
            f"Roll back to {previous}?" if previous else "Roll back?",
            [] if previous else ["There is no version before the current one."],
            "Roll back",
            lambda: choosing.roll_back(site.settings),
            "back",
        )

    return [
        Route("/models", overview),
        Route("/models/training", training),
        Route("/models/rollback", roll_back, methods=["GET", "POST"]),
        Route("/models/{name}", version),
        Route("/models/{name}/promote", promote, methods=["GET", "POST"]),
    ]


async def _choose(
    site: Site,
    request: Request,
    title: str,
    sentences: list[str],
    verb: str,
    choose: Callable[[], choosing.Choice],
    done: str,
) -> Response:
    """Ask; or do it, where that was the answer."""
    if not _may_choose(site):
        raise HTTPException(403, f"Expected somebody who may write to {site.settings.folder('models')}. You may look.")
    current = await run_in_threadpool(lambda: _registry(site).current_name())
    problem = ""
    if request.method == "POST":
        asked_of = parse_qs((await request.body()).decode(errors="replace")).get("instead_of", [""])[0]
        if asked_of != (current or ""):
            problem = f"Somebody else has chosen meanwhile: {current} is current now, and no more {asked_of or 'none'}."
        else:
            try:
                choice = await run_in_threadpool(choose)
            except (RegistryError, TrainingUnderWay, VettingStopped, OSError) as error:
                problem = str(error)
            else:
                return RedirectResponse(f"/models?done={quote(f'{done} {choice.name}')}", 303)
    if current:
        sentences = [*sentences, f"{current} is current, and a daemon that runs answers with what is current from then on."]
    values: dict[str, Any] = {"title": title, "sentences": sentences, "verb": verb, "problem": problem, "current": current}
    return site.page(request, "choose.html", 409 if problem else 200, action=request.url.path, **values)


def _training(site: Site, lines: list[versions.Line]) -> dict[str, Any]:
    """What training.html is about."""
    settings, now = site.settings, time.time()
    try:
        status, samples = ask(settings.folder("work") / PRESENCE)
    except PermissionError:
        status, samples = {"running": False}, {}
    runs = versions.running(settings, lines, bool(value_of(samples, "digitd_training_in_progress")), now)
    wanted = settings.retrain.after_corrections
    if not status["running"]:
        next_ = "when a daemon runs"
    elif due := value_of(samples, "digitd_training_next_run_timestamp_seconds"):
        next_ = datetime.fromtimestamp(due).astimezone().strftime("%a %d %b, %H:%M")
    else:
        next_ = "not by the clock"
    last = next((line for line in reversed(lines) if line["event"] in END_WORDS), None)
    return {
        "training": runs,
        "curves": versions.learning_curves(settings, runs.version) if runs else [],
        "next": next_,
        "waiting": _waiting(site),
        "wanted": wanted,
        "last": last and last | {"words": END_WORDS[last["event"]], "reason": last.get("reason", "")},
    }


def _waiting(site: Site) -> str:
    try:
        with site.index() as index:
            return f"{versions.waiting_corrections(site.settings, index):,}"
    except (NoIndex, OSError, sqlite3.Error):
        return "not known"


def _look_up(site: Site, name: str) -> versions.Shown:
    registry = _registry(site)
    return versions.look_up(registry, name, list(registry.ledger.lines()))


def _registry(site: Site) -> Registry:
    return Registry(site.settings.folder("models"))


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if not VERSION.fullmatch(name):
        raise HTTPException(404, "Expected a version such as v0002.")
    return name


def _may_choose(site: Site) -> bool:
    """Whether this process may choose what is live."""
    return os.access(site.settings.folder("models"), os.W_OK | os.X_OK, effective_ids=True)
