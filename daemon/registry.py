"""models/ on disk: versions with their manifests, which one is current, and the ledger of what was decided.

A version is `v0001.h5` plus its manifest `v0001.json`, which is written last: a version without a manifest does not exist.
`current.h5` and `previous.h5` are relative symlinks.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.files import file_sha256, replace_symlink

VERSION = re.compile(r"v\d{4,}")


class RegistryError(Exception):
    """models/ holds no usable version under that name; the message says what was expected and what was received."""


@dataclass(frozen=True)
class Version:
    """A model version whose file matches its manifest.

    Attributes:
        name: such as "v0001".
        path: its .h5.
        manifest: the content of its .json; `sha256` is the digest of the .h5.

    """

    name: str
    path: Path
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        return str(self.manifest["sha256"])

    def describe(self) -> str:
        """In one line: how good it is, and when it was trained."""
        holdout = self.manifest["holdout"]
        return (
            f"{holdout['accuracy']:.2%} right on {holdout['images']} test images, "
            f"{self.manifest['parameters']} parameters, made {self.manifest['created_at'][:10]}"
        )


class Registry:
    """The folder models/.

    Args:
        folder: models/; made when missing.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """The versions that have a manifest, oldest first."""
        names = [path.stem for path in self.folder.glob("v*.json") if VERSION.fullmatch(path.stem)]
        return sorted(names, key=_number)

    def next_name(self) -> str:
        """A version name that no file here has, with or without a manifest."""
        taken = [path.name.split(".")[0] for path in self.folder.glob("v*")]
        return f"v{1 + max((_number(name) for name in taken if VERSION.fullmatch(name)), default=0):04d}"

    def version(self, name: str) -> Version:
        """Look a version up and check its digest, before anything opens the .h5.

        Raises:
            RegistryError: there is no such version, or the .h5 is not the one that its manifest describes.

        """
        path, manifest_path = self.folder / f"{name}.h5", self.folder / f"{name}.json"
        try:
            manifest = json.loads(manifest_path.read_bytes())
            expected = manifest["sha256"]
            received = file_sha256(path)
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise RegistryError(
                f"{error.filename}: expected a model version with its manifest. Received: no such file. "
                f"Versions here: {known}."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{manifest_path}: expected a readable manifest. Received: {error}") from error
        if received != expected:
            raise RegistryError(
                f"{path}: expected the file that its manifest describes, sha256 {expected}. Received: {received}."
            )
        return Version(name, path, manifest)

    def current(self) -> Version:
        """The version that is live; where none was chosen yet, the newest.

        Raises:
            RegistryError: there is no usable version.

        """
        link = self.folder / "current.h5"
        if link.is_symlink():
            return self.version(link.readlink().stem)
        names = self.names()
        if not names:
            raise RegistryError(f"{self.folder}: expected at least one model version. Received: none. Run `make train`.")
        self.make_current(names[-1])
        return self.version(names[-1])

    def make_current(self, name: str) -> None:
        """Point current.h5 at a version."""
        replace_symlink(self.folder / "current.h5", f"{name}.h5")


def _number(name: str) -> int:
    return int(name[1:])
