"""`digitd models`, `promote` and `rollback`: the versions, for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime

from daemon.config import Settings
from daemon.models.adoption import VettingStopped
from daemon.models.making import TrainingUnderWay
from daemon.models.registry import Registry, RegistryError
from daemon.training import choosing


def print_models(settings: Settings) -> int:
    """Print a line for each version.

    Returns:
        0.

    """
    registry = Registry(settings.folder("models"))
    verdicts = choosing.verdicts(registry)
    current, previous = registry.current_name(), registry.previous_name()
    print(f"{'version':<9} {'made (UTC)':<17} {'hold-out':>8}  {'corrections':>11}  {'verdict':<21}  learnt")
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
    """Make a version current, or a foreign .h5 after it was vetted.

    Returns:
        0, or 1 where it cannot be used.

    """
    return _choose(lambda: choosing.promote(settings, model))


def roll_back(settings: Settings) -> int:
    """Make the previous version current.

    Returns:
        0, or 1 where there is none.

    """
    return _choose(lambda: choosing.roll_back(settings))


def _choose(choose: Callable[[], choosing.Choice]) -> int:
    try:
        print(choose())
    except PermissionError:
        raise  # cli.py says who may
    except (RegistryError, TrainingUnderWay, VettingStopped, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
