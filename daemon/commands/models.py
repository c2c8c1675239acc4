"""`digitd models`, `promote` and `rollback`: the versions, for a person."""

from __future__ import annotations

import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.config import Settings
from daemon.models.adoption import NOT_MADE_HERE, VettingStopped, adopt
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import VERSION, Registry, RegistryError
from daemon.training.gate import PROMOTED, VERDICTS
from daemon.training.vetting import Vetting


def print_models(settings: Settings) -> int:
    """Print a line for each version.

    Returns:
        0.

    """
    registry = Registry(settings.folder("models"))
    verdicts = {line["version"]: line for line in registry.ledger.lines() if line.get("event") in VERDICTS}
    current, previous = registry.current_name(), registry.previous_name()
    print(f"{'version':<9} {'made':<17} {'hold-out':>8}  {'corrections':>11}  {'verdict':<21}  learnt")
    for name in registry.names():
        try:
            manifest = registry.manifest(name)
        except RegistryError as error:
            print(f"{name:<9} {error}")
            continue
        corrections = manifest.corrections
        corrected = "-" if corrections.accuracy is None else f"{corrections.accuracy:.1%} of {corrections.gate}"
        learnt = manifest.training.origin
        if corrections.training:
            learnt += f", {corrections.training} corrections"
        place = " (current)" if name == current else " (previous)" if name == previous else ""
        print(
            f"{name:<9} {manifest.created_at[:16].replace('T', ' ')}  {manifest.holdout.accuracy:8.2%}  "
            f"{corrected:>11}  "
            f"{verdicts.get(name, {}).get('event', '-'):<21}  {learnt}{place}"
        )
    return 0


def print_live_at(settings: Settings, text: str) -> int:
    """Print which version was live at a time, local unless it says otherwise.

    Returns:
        0, 1 where none was, 2 where it is no time.

    """
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except ValueError:
        print(f'--live-at: expected a time such as "2026-11-23 14:03". Received: {text!r}.', file=sys.stderr)
        return 2
    name = Registry(settings.folder("models")).ledger.live_at(moment)
    print(name or f"none was live at {text}")
    return 0 if name else 1


def promote(settings: Settings, model: str) -> int:
    """Make a version current, or a foreign .h5 after it was vetted; the ledger says that a person did it.

    Returns:
        0, or 1 where it cannot be used.

    """
    registry = Registry(settings.folder("models"))
    vet = Vetting(settings.file, threading.Event())
    try:
        if VERSION.fullmatch(model):
            version = registry.version(model)
            if not registry.is_proven(version):
                vet(version.path, version.path)
                registry.ledger.record("vetted", model, NOT_MADE_HERE, sha256=version.manifest.sha256)
            name = model
        elif Path(model).is_file():
            name = adopt(registry, vet, Path(model))
        else:
            known = ", ".join(registry.names())
            raise RegistryError(f"Expected a version ({known}) or an .h5 file. Received: {model!r}.")
    except (RegistryError, TrainingUnderWay, VettingStopped, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    verdicts = [line for line in registry.ledger.lines() if line.get("version") == name and line.get("event") in VERDICTS]
    verdict: dict[str, Any] = verdicts[-1] if verdicts else {}
    forced = verdict.get("event", PROMOTED) != PROMOTED
    before = registry.current_name()
    registry.make_current(name, f"forced by hand: the gate had said {verdict['event']}" if forced else "promoted by hand")
    print(f"{before} -> {name}{', although the gate had said: ' + verdict['reason'] if forced else ''}")
    return 0


def roll_back(settings: Settings) -> int:
    """Make the previous version current.

    Returns:
        0, or 1 where there is none.

    """
    registry = Registry(settings.folder("models"))
    before = registry.current_name()
    try:
        name = registry.roll_back()
    except RegistryError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{before} -> {name}")
    return 0
