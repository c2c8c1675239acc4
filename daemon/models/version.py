"""A version of the model: a name, an .h5 and what its manifest says about it; and its files, read as what they must be."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from daemon.models.calibration import Calibration
from daemon.models.manifest import Manifest


@dataclass(frozen=True)
class ModelIdentity:
    """What a result says about the model that gave it."""

    version: str
    sha256: str


@dataclass(frozen=True)
class Version:
    """A model version whose file matches its manifest.

    Attributes:
        name: such as "v0001".
        path: its .h5.
        manifest: the content of its .json.

    """

    name: str
    path: Path
    manifest: Manifest

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.name, self.manifest.sha256)

    @property
    def calibration(self) -> Calibration:
        """What its logits mean; where nobody measured it, nothing is called strange."""
        return self.manifest.calibration or Calibration()

    def describe(self) -> str:
        """In one line: how good it is, and when it was made."""
        manifest = self.manifest
        return (
            f"{manifest.holdout.accuracy:.2%} right on {manifest.holdout.images} test images, "
            f"{manifest.parameters} parameters, made {manifest.created_at[:10]}"
        )


def open_file(path: Path) -> BufferedReader:
    """Open a file of a version, where neither a link nor a pipe is expected."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(path, "rb", opener=lambda name, _: os.open(name, flags))  # os.fdopen would leave a folder open


def digest(path: Path) -> str:
    """The SHA-256 of a file of a version, in hexadecimal."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
