"""Which version is live, as a person chooses: by a command, or on the page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Settings
from daemon.models.adoption import NOT_MADE_HERE, adopt
from daemon.models.registry import VERSION, Registry, RegistryError
from daemon.training.gate import PROMOTED, VERDICTS
from daemon.training.vetting import Vetting


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        name: the version that is current now.
        before: the one that was; None where none was.
        although: why the gate had not promoted it, in words; None where it had, or was not asked.

    """

    name: str
    before: str | None
    although: str | None = None

    def __str__(self) -> str:
        although = f", although the gate had said: {self.although}" if self.although else ""
        return f"{self.before} -> {self.name}{although}"


def verdicts(registry: Registry) -> dict[str, dict[str, Any]]:
    """The ledger's line with the gate's latest verdict on each version."""
    return {line["version"]: line for line in registry.ledger.lines() if line["event"] in VERDICTS}


def promote(settings: Settings, model: str) -> Choice:
    """Make a version current, or a foreign .h5 after it was vetted; the ledger says that a person did it.

    Args:
        settings: where models are.
        model: the name of a version, or the path of an .h5.

    Raises:
        RegistryError: it cannot be used, or did not pass.
        TrainingUnderWay, VettingStopped: not now.
        OSError: the machine failed, or this user may not.

    """
    registry = Registry(settings.folder("models"))
    vet = Vetting(settings, threading.Event())
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
        raise RegistryError(f"Expected a version ({known}) or an .h5 file. Received: {model!r}, and there is no such file.")
    verdict = verdicts(registry).get(name, {})
    forced = verdict.get("event", PROMOTED) != PROMOTED
    before = registry.current_name()
    registry.make_current(name, f"forced by hand: the gate had said {verdict['event']}" if forced else "promoted by hand")
    return Choice(name, before, verdict["reason"] if forced else None)


def roll_back(settings: Settings) -> Choice:
    """Make the previous version current again.

    Raises:
        RegistryError: there is none, or it cannot be used.
        OSError: the machine failed, or this user may not.

    """
    registry = Registry(settings.folder("models"))
    before = registry.current_name()
    return Choice(registry.roll_back(), before)
