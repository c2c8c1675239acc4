"""A foreign .h5 is code-like input: it becomes a version only after a limited process has tried it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from daemon.clock import timestamp
from daemon.files import file_sha256, printable
from daemon.models import making
from daemon.models.manifest import Count, Holdout, Manifest, TrainingFacts
from daemon.models.registry import Registry, RegistryError

MAX_BYTES = 64 * 2**20  # of a file; the shipped model has 0.4 MB
PIECE = 2**20  # bytes that are copied at a time
ADOPTED = "adopted from "  # the beginning of such a version's origin


class Findings(BaseModel):
    """What a limited process found out about an .h5 that passed; see Manifest."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    keras: str
    parameters: Count
    dataset_sha256: str
    holdout: Holdout


NOT_MADE_HERE = "it passed; its file was not made here"  # why a version was vetted

# Tries an .h5, the second path being its name for people. Raises RegistryError where it does not pass, and VettingStopped.
Vet = Callable[[Path, Path], Findings]


class VettingStopped(Exception):
    """The vetting ended before it came to anything: nothing is refused, nothing passed."""


class VettingHindered(VettingStopped):
    """It came to nothing for the machine's sake or the configuration's, and so will the next until that is mended."""


def adopt(registry: Registry, vet: Vet, file: Path) -> str:
    """Make a version of a foreign .h5, after it passed; what is the file of a version here is that version.

    Returns:
        The version's name.

    Raises:
        RegistryError: it did not pass; the message says why.
        TrainingUnderWay: another process makes a version.
        VettingStopped: it came to nothing.

    """
    if file.is_file() and file.stat().st_size <= MAX_BYTES and (known := registry.proven_of(file_sha256(file))):
        return known  # a stranger has no calibration, no layers, and nothing that drift is measured against
    with making.training(registry):  # nobody else takes the next name meanwhile
        name = making.begin(registry, f"{file} is taken in")
        copy = making.unfinished(registry, name)
        try:
            size = _copy(file, copy)  # what is vetted is what is kept, whatever becomes of the original
            found = vet(copy, file)
            making.finish(
                registry,
                Manifest(
                    version=name,
                    sha256=file_sha256(copy),
                    size=size,
                    created_at=timestamp(time.time()),
                    keras=found.keras,
                    parameters=found.parameters,
                    training=TrainingFacts(origin=f"{ADOPTED}{printable(file.name)}", dataset_sha256=found.dataset_sha256),
                    holdout=found.holdout,
                ),
            )
        finally:
            copy.unlink(missing_ok=True)
    return name


def _copy(file: Path, copy: Path) -> int:
    """Copy a regular file that may grow meanwhile; give its size."""
    with open(file, "rb", opener=_without_waiting) as source, copy.open("xb") as target:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RegistryError(f"{file}: expected an .h5 file. Received: no regular file.")
        size = status.st_size
        while size <= MAX_BYTES and (piece := source.read(PIECE)):
            size = max(size, target.tell() + len(piece))
            target.write(piece)
        if size > MAX_BYTES:
            raise RegistryError(f"{file}: expected at most {MAX_BYTES} bytes. Received: {size}.")
        return target.tell()


def _without_waiting(path: str, flags: int) -> int:
    """Open what may be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
