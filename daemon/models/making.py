"""Making a version: one at a time in a folder, under a name that was never used, and nothing half-made is left."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.files import give_to_owner, sync_folder, take_lock, write_durably
from daemon.models.manifest import Manifest
from daemon.models.registry import VERSION, Registry
from daemon.models.version import digest, open_file

log = logging.getLogger(__name__)

LAST = 10**18 - 1  # the highest number that VERSION allows
A_TRAINING = "a training"  # so what begins a version by one is told; all else is taken in
OF_WHOLE_ONES = {"vetted", "promoted", "refused", "insufficient_evidence", "overtaken", "current", "live"}  # ledger events


class TrainingUnderWay(Exception):
    """Another process trains into this folder."""


@contextmanager
def training(registry: Registry) -> Iterator[int]:
    """Hold the right to make a version; gives the lock's descriptor, for a child to inherit.

    Raises:
        TrainingUnderWay: another process has it.

    """
    lock = take_lock(registry.folder / ".training.lock")
    if lock is None:
        raise TrainingUnderWay(f"{registry.folder}: another training is under way; only one runs at a time")
    try:
        _remove_unfinished(registry)
        yield lock
    finally:
        os.close(lock)


def next_name(registry: Registry) -> str:
    """A version name that no file here and no line of the ledger has, with or without a manifest."""
    taken = [path.name.split(".")[0] for path in registry.folder.glob("v*")]
    taken += [str(line.get("version")) for line in registry.ledger.lines()]
    numbers = (int(name[1:]) for name in taken if VERSION.fullmatch(name))
    return f"v{1 + max((number for number in numbers if number < LAST), default=0):04d}"


def begin(registry: Registry, why: str) -> str:
    """Take the next name; who calls this has the right to make a version.

    Args:
        why: what began, in words.

    """
    name = next_name(registry)
    registry.ledger.record("begun", name, why)
    return name


def unfinished(registry: Registry, name: str) -> Path:
    """Where the .h5 of a version that was begun is written, before `finish`."""
    return registry.folder / f"{name}.tmp.h5"  # Keras refuses a name that does not end in .h5


def finish(registry: Registry, manifest: Manifest) -> Path:
    """Make a version of what was written to `unfinished`, durably: the .h5, then its manifest.

    Returns:
        The path of the .h5.

    """
    name = manifest.version
    written, path = unfinished(registry, name), registry.folder / f"{name}.h5"
    with open_file(written) as file:  # no link: root would give away what it leads to
        give_to_owner(file.fileno(), registry.folder)
        os.fsync(file.fileno())
    registry.ledger.record("made", name, manifest.training.origin, sha256=manifest.sha256)
    written.replace(path)
    sync_folder(registry.folder)
    write_durably(registry.folder / f"{name}.json", manifest.to_json())
    return path


def _remove_unfinished(registry: Registry) -> None:
    """Remove what a training left behind that was killed: nothing but what the ledger says was begun or made here.

    A version that was whole once is none of it: whoever lost its manifest may want to have its .h5 taken in again.
    """
    lines = list(registry.ledger.lines())
    whole = {line["version"] for line in lines if line["event"] in OF_WHOLE_ONES}
    for line in lines:
        name, event = line["version"], line["event"]
        if event not in ("begun", "made") or not VERSION.fullmatch(name) or (registry.folder / f"{name}.json").exists():
            continue
        if event == "made" and name in whole:
            continue
        path = unfinished(registry, name) if event == "begun" else registry.folder / f"{name}.h5"
        with suppress(OSError):  # it is not there, or no file
            if event == "begun" or digest(path) == line.get("sha256"):  # else somebody's own, under a name that was ours
                path.unlink()
                log.info("removed %s, which an interrupted training left", path.name)
