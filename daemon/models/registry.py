"""models/ on disk: versions with their manifests, which one is current, and the ledger of what was decided.

A version is `v0001.h5` plus its manifest `v0001.json`, which is written last: a version without a manifest does not exist.
`current.h5` and `previous.h5` are relative symlinks. `ledger.jsonl` has a line for each verdict, each change of the current
version, and each time a daemon began to answer with one, so that it tells which model was live at any moment.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.clock import timestamp
from daemon.files import append_line, file_sha256, read_lines, replace_symlink

log = logging.getLogger(__name__)

VERSION = re.compile(r"v\d{4,}")
CURRENT, PREVIOUS = "current.h5", "previous.h5"


class RegistryError(Exception):
    """models/ holds no usable version under that name; the message says what was expected and what was received."""


class TrainingUnderWay(Exception):
    """Another process trains into this folder."""


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
        """In one line: how good it is, and when it was made."""
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

    # -- versions

    def names(self) -> list[str]:
        """The versions that have a manifest, oldest first."""
        names = [path.stem for path in self.folder.glob("v*.json") if VERSION.fullmatch(path.stem)]
        return sorted(names, key=_number)

    def next_name(self) -> str:
        """A version name that no file here and no line of the ledger has, with or without a manifest."""
        taken = [path.name.split(".")[0] for path in self.folder.glob("v*")]
        taken += [str(line.get("version")) for line in self.ledger()]
        return f"v{1 + max((_number(name) for name in taken if VERSION.fullmatch(name)), default=0):04d}"

    def manifest(self, name: str) -> dict[str, Any]:
        """What a version's manifest says, without a look at the .h5.

        Raises:
            RegistryError: there is no such version.

        """
        path = self.folder / f"{name}.json"
        try:
            manifest = json.loads(path.read_bytes())
            facts = (manifest["sha256"], manifest["created_at"], manifest["parameters"])
            if [type(fact) for fact in facts] != [str, str, int] or not manifest["holdout"]["accuracy"] <= 1.0:
                raise TypeError("sha256, created_at, parameters and holdout are not of their types")
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise RegistryError(
                f"{path}: expected a model version with its manifest. Received: no such file. Versions here: {known}."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{path}: expected a readable manifest. Received: {error!r}.") from error
        return dict(manifest)

    def version(self, name: str) -> Version:
        """Look a version up and check its digest, before anything opens the .h5.

        Raises:
            RegistryError: there is no such version, or the .h5 is not the one that its manifest describes.

        """
        manifest, path = self.manifest(name), self.folder / f"{name}.h5"
        try:
            received = file_sha256(path)
        except OSError as error:
            raise RegistryError(f"{path}: expected the file that {name}.json describes. Received: {error}.") from error
        if received != manifest["sha256"]:
            raise RegistryError(
                f"{path}: expected the file that its manifest describes, sha256 {manifest['sha256']}. Received: {received}."
            )
        return Version(name, path, manifest)

    def current_name(self) -> str | None:
        """The version that current.h5 points to; None where nothing was chosen yet, or it is no link to a version."""
        return self._link(CURRENT)

    def previous_name(self) -> str | None:
        """The version that was current before."""
        return self._link(PREVIOUS)

    def current(self) -> Version:
        """The version to answer with: the current one; where that cannot be used, the previous; then the newest of those
        that ever were current; then the oldest of the others.

        Raises:
            RegistryError: there is no usable version.

        """
        proven = {str(line["version"]) for line in self.ledger() if line.get("event") == "current"}
        others = sorted(
            self.names(), key=lambda name: (name not in proven, -_number(name) if name in proven else _number(name))
        )
        problems = []
        for name in dict.fromkeys(name for name in [self.current_name(), self.previous_name(), *others] if name):
            try:
                version = self.version(name)
            except RegistryError as error:
                log.error("%s", error)
                problems.append(str(error))
                continue
            return version
        raise RegistryError(
            "\n".join(problems)
            or f"{self.folder}: expected at least one model version. Received: none. Run `digitd retrain`."
        )

    def settle(self, version: Version) -> None:
        """Point current.h5 at the version that `current` found, where it names none or one that cannot be used."""
        link = self.folder / CURRENT
        if self.current_name() != version.name and (link.is_symlink() or not link.exists()):  # not over a file of somebody's
            replace_symlink(link, f"{version.name}.h5")
            self.record("current", version.name, "there was no usable current version")

    def make_current(self, name: str, reason: str) -> None:
        """Point current.h5 at a version, and previous.h5 at the one before it."""
        before = self.current_name()
        if before == name:
            return
        if before:
            replace_symlink(self.folder / PREVIOUS, f"{before}.h5")
        replace_symlink(self.folder / CURRENT, f"{name}.h5")
        self.record("current", name, reason, before=before)

    def roll_back(self) -> str:
        """Make the previous version current again.

        Raises:
            RegistryError: there is none, or it cannot be used.

        """
        previous = self.previous_name()
        if previous is None or previous == self.current_name():
            raise RegistryError(f"{self.folder / PREVIOUS}: expected a previous version. Received: none.")
        self.version(previous)
        self.make_current(previous, "rolled back")
        return previous

    def remove_old(self, keep: int) -> list[str]:
        """Remove the oldest versions beyond `keep`, never the current or the previous one; return their names."""
        needed = {self.current_name(), self.previous_name()}
        removed = [name for name in self.names()[:-keep] if name not in needed]
        for name in removed:
            (self.folder / f"{name}.json").unlink()
            (self.folder / f"{name}.h5").unlink(missing_ok=True)
        return removed

    # -- the ledger

    def record(self, event: str, version: str, reason: str, **facts: Any) -> None:
        """Add a line to the ledger.

        Args:
            event: "promoted", "refused", "insufficient_evidence", "failed", "stopped", "nothing_to_learn", "current"
                (what should be live changed) or "live" (a daemon began to answer with it).
            version: which version it is about.
            reason: one sentence.
            facts: anything else that JSON can hold.

        """
        now = time.time()
        line = {"at": timestamp(now), "time": now, "event": event, "version": version, "reason": reason, **facts}
        append_line(self.folder / "ledger.jsonl", json.dumps(line))

    def ledger(self) -> Iterator[dict[str, Any]]:
        """Its lines, oldest first."""
        return read_lines(self.folder / "ledger.jsonl")

    def live_at(self, moment: float) -> str | None:
        """The version that was answering at a moment, in seconds since the epoch; None before the first."""
        name = None
        for line in self.ledger():
            if line.get("event") == "live" and line.get("time", 0) <= moment:
                name = str(line["version"])
        return name

    # -- training into it

    @contextmanager
    def training(self) -> Iterator[int]:
        """Hold the right to train into this folder; gives the lock's descriptor, for a child to inherit.

        Raises:
            TrainingUnderWay: another process has it.

        """
        descriptor = os.open(self.folder / ".training.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TrainingUnderWay(f"{self.folder}: another training is under way; only one runs at a time") from None
            self._remove_unfinished()
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove_unfinished(self) -> None:
        """Remove what a training that was killed left behind."""
        for path in self.folder.glob("v*.h5"):
            name = path.name.removesuffix(".h5").removesuffix(".tmp")
            if VERSION.fullmatch(name) and not (self.folder / f"{name}.json").exists() and name != self.current_name():
                path.unlink()
                log.info("removed %s, which an interrupted training left", path.name)

    def _link(self, name: str) -> str | None:
        link = self.folder / name
        if not link.is_symlink():
            return None
        target = link.readlink()
        return target.stem if VERSION.fullmatch(target.stem) else None


def _number(name: str) -> int:
    return int(name[1:])
