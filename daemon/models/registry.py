"""models/ on disk: versions with their manifests, and which one is current.

A version is `v0001.h5` plus its manifest `v0001.json`, which is written last: a version without a manifest does not exist.
`current.h5` and `previous.h5` are relative symlinks; nothing else here is reached through a link. A version may answer
without being vetted only if the ledger says that its file was made or vetted here, or if it is the one that digitd ships.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.files import locked, replace_symlink
from daemon.models.ledger import Ledger
from daemon.models.manifest import Manifest
from daemon.models.provenance import is_known, is_shipped
from daemon.models.version import Version, digest, open_file

log = logging.getLogger(__name__)

VERSION = re.compile(r"v[0-9]{4,18}")
CURRENT, PREVIOUS = "current.h5", "previous.h5"
MAX_MANIFEST = 2**20  # bytes


class RegistryError(Exception):
    """models/ holds no usable version under that name; the message says what was expected and what was received."""


class ChampionChanged(RegistryError):
    """The version that answers is no longer the one that a decision was made against."""


class Registry:
    """The folder models/.

    Args:
        folder: models/; made when missing.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(folder / "ledger.jsonl")

    # -- versions

    def names(self) -> list[str]:
        """The versions that have a manifest, oldest first."""
        names = [path.stem for path in self.folder.glob("v*.json") if VERSION.fullmatch(path.stem)]
        return sorted(names, key=_number)

    def manifest(self, name: str) -> Manifest:
        """What a version's manifest says, without a look at the .h5.

        Raises:
            RegistryError: there is no such version, or its manifest cannot be used.

        """
        path = self.folder / f"{name}.json"
        try:
            with open_file(path) as file:
                return Manifest.parse(file.read(MAX_MANIFEST))
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise RegistryError(
                f"{path}: expected a model version with its manifest. Received: no such file. Versions here: {known}."
            ) from error
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path}: expected a readable manifest. Received: {error}.") from error

    def version(self, name: str) -> Version:
        """Look a version up and check its digest, before anything opens the .h5.

        Raises:
            RegistryError: there is no such version, or the .h5 is not the one that its manifest describes.

        """
        manifest, path = self.manifest(name), self.folder / f"{name}.h5"
        try:
            received = digest(path)
        except OSError as error:
            raise RegistryError(f"{path}: expected the file that {name}.json describes. Received: {error}.") from error
        if received != manifest.sha256:
            raise RegistryError(
                f"{path}: expected the file that its manifest describes, sha256 {manifest.sha256}. Received: {received}."
            )
        return Version(name, path, manifest)

    def proven_of(self, sha256: str) -> str | None:
        """The newest proven version whose .h5 has this digest; None where there is none."""
        for name in reversed(self.names()):
            with suppress(RegistryError):
                if self.manifest(name).sha256 == sha256 and self.is_proven(self.version(name)):
                    return name
        return None

    def is_proven(self, version: Version) -> bool:
        """Whether its file was made or vetted here, or is the one that digitd ships."""
        return is_shipped(version.manifest) or is_known(version.name, version.manifest, self.ledger, ("made", "vetted"))

    def current_name(self) -> str | None:
        """The version that current.h5 points to; None where nothing was chosen yet, or it is no link to a version."""
        return self._link(CURRENT)

    def previous_name(self) -> str | None:
        """The version that was current before."""
        return self._link(PREVIOUS)

    def foreign(self) -> os.stat_result | None:
        """Of a model of somebody's own in the place of current.h5, which a daemon takes in; None where there is none."""
        link = self.folder / CURRENT
        try:
            return link.stat() if self.current_name() is None and link.is_file() else None
        except OSError:  # it has just been taken in, or is a link to where we may not look: pathlib raises that
            return None

    def astray(self) -> str | None:
        """Where current.h5 leads, if to no version and to no file that can be looked at; None where it does not."""
        link = self.folder / CURRENT
        try:
            target = link.readlink()
        except OSError:  # there is no link
            return None
        return None if self.current_name() or self.foreign() else str(target)

    def _history(self) -> list[str]:
        """The versions that became current or live, in this order: a choice that was cut short is told by what went live."""
        return [str(line["version"]) for line in self.ledger.lines() if line["event"] in ("current", "live")]

    def usable(self) -> Iterator[Version]:
        """The versions that can be used, in the order of a daemon's choice: the current one, or where current.h5 names none
        the one that was last, the previous, the newest of those that ever were current, then the oldest of the others; but
        none that was made here and never promoted. What is wrong with the rest is logged.

        Raises:
            RegistryError: at the end, where there was none; the message names all that is wrong.

        """
        history = self._history()
        chosen, begun = set(history), {str(line["version"]) for line in self.ledger.lines() if line["event"] == "begun"}
        others = sorted(
            self.names(), key=lambda name: (name not in chosen, -_number(name) if name in chosen else _number(name))
        )
        problems, found = [], False
        linked = [name for name in (self.current_name() or next(reversed(history), None), self.previous_name()) if name]
        for name in dict.fromkeys([*linked, *others]):
            if name in begun - chosen and name not in linked:
                problems.append(f"{name} was made here and never promoted; only `digitd promote {name}` makes it answer.")
                continue
            try:
                version = self.version(name)
            except RegistryError as error:
                log.error("%s", error)
                problems.append(str(error))
            else:
                found = True
                yield version
        if not found:
            raise RegistryError(
                "\n".join(problems)
                or f"{self.folder}: expected at least one model version. Received: none. Run `digitd retrain`."
            )

    def current(self) -> Version:
        """The version that a daemon would answer with: the first usable one that is proven, and was not in vain tried since.

        Raises:
            RegistryError: there is none.

        """
        failed: set[str] = set()
        for line in self.ledger.lines():
            if line["event"] == "swap_failed":
                failed.add(line["version"])
            elif line["event"] in ("live", "current"):
                failed.discard(line["version"])
        passed_over = []
        for version in self.usable():
            if not self.is_proven(version):
                log.warning("%s is passed over: it was neither made nor vetted here", version.path)
            elif version.name in failed:
                log.warning("%s is passed over: the daemon could not load it", version.path)
            else:
                return version
            passed_over.append(version.name)
        raise RegistryError(
            f"{self.folder}: expected a version that was made or vetted here, and can be loaded. "
            f"Received: {', '.join(passed_over)}. "
            f"Have one tried with `digitd promote {passed_over[0]}`, or by starting the daemon."
        )

    def settle(self, version: Version) -> None:
        """Point current.h5 at the version that answers, where it names none or one that cannot be used."""
        with self.choosing():
            link, named = self.folder / CURRENT, self.current_name()
            if named == version.name or _is_no_link(link):  # not over a file of somebody's
                return
            if named:
                try:
                    self.version(named)
                except RegistryError:
                    pass
                else:
                    return  # it waits to be vetted
            if (target := self.astray()) is not None:
                log.warning(
                    "%s led to %s, where there is nothing that can be read; it names %s now", link, target, version.name
                )
            replace_symlink(link, f"{version.name}.h5")
            self.ledger.record("current", version.name, "there was no usable current version")

    def make_current(self, name: str, reason: str, instead_of: str | None = None) -> None:
        """Point current.h5 at a version, and previous.h5 at the one before it.

        Args:
            name: the version.
            reason: one sentence, for the ledger.
            instead_of: the champion that `name` was judged against; None where it does not matter.

        Raises:
            ChampionChanged: another version than `instead_of` would answer now, or a model of somebody's own waits.
            RegistryError: there is no such version, as it was removed for its age meanwhile.

        """
        with self.choosing():
            self.manifest(name)
            if instead_of is not None and self.foreign() is not None:
                raise ChampionChanged(
                    f"{name}: expected {instead_of} to be the champion still. Received: somebody's own model."
                )
            if instead_of is not None and (champion := self.current().name) != instead_of:
                raise ChampionChanged(f"{name}: expected {instead_of} to be the champion still. Received: {champion}.")
            before = self.current_name()
            if before is None:
                with suppress(RegistryError):  # there is none to go back to
                    before = self.current().name  # nobody has chosen yet: the one that would answer
            self._choose(name, reason, before)

    def roll_back(self) -> str:
        """Make the previous version current again.

        Raises:
            RegistryError: there is none, or it cannot be used.

        """
        with self.choosing():
            previous, current = self.previous_name(), self.current_name()
            if previous in (None, current):  # a choice ended between its two links
                previous = next((name for name in reversed(self._history()) if name != current), None)
            if previous is None:
                raise RegistryError(f"{self.folder / PREVIOUS}: expected a previous version. Received: none.")
            self.version(previous)
            self._choose(previous, "rolled back", current)
        return previous

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Keep others from choosing meanwhile: what was looked at holds until it is replaced.

        Raises:
            PermissionError: the lock is another user's, who holds it.

        """
        with locked(self.folder / ".current.lock"):
            yield

    def _choose(self, name: str, reason: str, before: str | None) -> None:
        if self.current_name() == name:
            return
        older = before if before != name else None
        is_back = name == self.previous_name()
        if older and not is_back:
            replace_symlink(self.folder / PREVIOUS, f"{older}.h5")
        link = self.folder / CURRENT
        if _is_no_link(link):
            aside = link.rename(self.folder / f"aside-{link.stat().st_ino}.h5")
            log.warning("somebody's own model stood in the place of %s; it is %s now", link, aside.name)
        replace_symlink(link, f"{name}.h5")
        if older and is_back:  # only now: after an end in between nothing would be left to go back to
            replace_symlink(self.folder / PREVIOUS, f"{older}.h5")
        self.ledger.record("current", name, reason, before=before)

    def _link(self, name: str) -> str | None:
        link = self.folder / name
        if not link.is_symlink():
            return None
        target = link.readlink()
        is_here = os.path.realpath(self.folder / target.parent) == os.path.realpath(self.folder)
        return target.stem if is_here and VERSION.fullmatch(target.stem) else None


def _number(name: str) -> int:
    return int(name[1:])


def _is_no_link(path: Path) -> bool:
    """Whether there is something that is no link; where one leads is not looked at, for there we may have no right to."""
    return os.path.lexists(path) and not path.is_symlink()
