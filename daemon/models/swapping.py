"""Follows current.h5: whoever moves it, the gate, a person or a script, the daemon swaps to what it names."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from daemon.clock import timestamp
from daemon.files import file_system_time, replace_symlink
from daemon.models.adoption import NOT_MADE_HERE, Vet, VettingHindered, VettingStopped, adopt
from daemon.models.backend import keras
from daemon.models.live import ModelSlot
from daemon.models.making import TrainingUnderWay
from daemon.models.network import ModelError
from daemon.models.registry import CURRENT, PREVIOUS, Registry, RegistryError
from daemon.models.version import Version
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

COPIED_SECONDS = 1.0  # a file in the place of current.h5 that changed so lately may still be being copied
LONGEST_PAUSE = 60.0  # seconds between two vettings while something hinders them; at first one


class Swapper:
    """Keeps the live model the one that current.h5 names.

    Whatever was not made here is vetted before it is live. That takes a while: so a daemon begins with the best version that
    needs no vetting, and only where there is none waits for one.

    Args:
        registry: where current.h5 is.
        vet: tries a foreign model in a limited process.
        metrics: counts swaps, names the live model.

    Raises:
        RegistryError, ModelError: there is no usable model to begin with.

    """

    def __init__(self, registry: Registry, vet: Vet, metrics: Metrics) -> None:
        self._registry, self._vet, self._metrics = registry, vet, metrics
        self._refused: object = None  # what current.h5 or its version was, when of no use: said once, not every second
        self._hindered: object = None  # what current.h5 was when its vetting came to nothing
        self._waiting: object = None  # what it was when it had to wait for a training: said once, too
        self._hindrance = ""  # why: said once, too
        self._pause, self._not_before = 0.0, -math.inf
        self._unrecorded: deque[Callable[[], None]] = deque()  # for the ledger, once the disk takes it
        self._live: Version | None = None
        try:
            self.slot, version = self._begin()
        except VettingStopped as stopped:
            raise RegistryError(f"there is no model to begin with: {stopped}") from stopped
        registry.settle(version)
        self._show(version, "the daemon started")

    def _begin(self) -> tuple[ModelSlot, Version]:
        """Load the first version that is usable and proven; where there is none, the first that passes."""
        problems = []
        for version in sorted(self._versions(), key=lambda version: not self._registry.is_proven(version)):
            try:
                self._prove(version)
                return ModelSlot(version), version
            except (RegistryError, ModelError) as error:
                self._fail(version.name, str(error))
                problems.append(str(error))
        raise RegistryError("\n".join(problems))

    def _versions(self) -> list[Version]:
        try:
            return list(self._registry.usable())
        except RegistryError:
            self._adopt_foreign()  # a root may have nothing but a model of somebody's own
            return list(self._registry.usable())

    def run_once(self, now: float) -> None:
        """Swap if current.h5 names another version than the live one.

        Args:
            now: of a monotonic clock, in seconds.

        """
        self._write_records()
        wanted = self._registry.current_name() or self._foreign()
        if wanted == self._hindered and now < self._not_before:
            return
        try:
            self._adopt_foreign()
            self._follow()
        except VettingHindered as hindered:
            self._hinder(wanted, str(hindered), now)
        except VettingStopped as stopped:
            log.info("%s", stopped)
        else:
            self._hindered, self._hindrance = None, ""

    def _follow(self) -> None:
        name, live = self._registry.current_name(), self.slot.live.identity.version
        if name is None:
            self._say_astray()
        if name == live:
            self._refused = None  # what was refused may have been mended by the time that it is named again
        if name is None or name == live or (files := self._files_of(name)) == self._refused:
            return
        try:
            version = self._registry.version(name)
            self._prove(version)
            started = time.monotonic()
            back = self.slot.swap(version)
        except (RegistryError, ModelError) as error:
            self._refused = files
            self._fail(name, str(error))
            return
        self._refused = None
        self._metrics.swap_seconds.observe(time.monotonic() - started)
        self._metrics.swaps.labels("rolled_back" if back else "swapped").inc()
        self._show(version, "went back" if back else "swapped")

    def _say_astray(self) -> None:
        """Say once that current.h5 leads nowhere; a file that waits in its place is no such case."""
        target = self._registry.astray()
        if target is not None and target != self._refused:
            self._refuse(
                target,
                f"{self._registry.folder / CURRENT}: expected a link to a version, or to a model that the daemon may read. "
                f"Received: a link to {target}. Copy the model to the place of the link.",
            )

    def _files_of(self, name: str) -> object:
        """What changes when a version's files do: what was wrong with them may have been mended then."""
        found: list[tuple[int, ...]] = []
        for path in (self._registry.folder / f"{name}.h5", self._registry.folder / f"{name}.json"):
            with suppress(OSError):
                status = path.lstat()
                found.append((status.st_ino, status.st_size, status.st_ctime_ns))
        return name, found

    def _prove(self, version: Version) -> None:
        """Have a version vetted whose file did not come through the registry, such as one that was copied there; once."""
        if not self._registry.is_proven(version):
            log.info("%s was neither made nor vetted here: it is vetted now", version.name)
            self._vet(version.path, version.path)
            self._record("vetted", version.name, NOT_MADE_HERE, sha256=version.manifest.sha256)

    def _adopt_foreign(self) -> None:
        """Where somebody put a model of their own in the place of current.h5, make a version of it if it passes."""
        path, status, key = self._registry.folder / CURRENT, self._registry.foreign(), self._foreign()
        if status is None or key == self._refused:
            return
        if abs(file_system_time(path.parent) - status.st_mtime) < COPIED_SECONDS:
            return
        try:
            name = adopt(self._registry, self._vet, path)
            with self._registry.choosing():
                if os.path.samestat(status, path.stat()):  # else somebody chose another version meanwhile
                    if self._live and self._live.name != name:
                        replace_symlink(path.with_name(PREVIOUS), f"{self._live.name}.h5")
                    replace_symlink(path, f"{name}.h5")
                    self._record("current", name, "put in the place of current.h5 by hand")
        except TrainingUnderWay:  # it holds the right to the next version; again in a moment
            if key != self._waiting:
                log.info("%s: somebody's own model; it is taken in once the training that runs has ended", path)
            self._waiting = key
        except OSError as error:  # the machine's doing, such as a full disk, and not the file's
            raise VettingHindered(f"{path}: it cannot be taken in now: {error.strerror}") from error
        except RegistryError as error:
            self._refuse(key, str(error))
            with suppress(FileNotFoundError), self._registry.choosing():
                if os.path.samestat(status, path.stat()):
                    path.rename(path.with_name(f"refused-{status.st_ino}.h5"))  # aside, so that it can be looked at

    def _foreign(self) -> tuple[int, ...] | None:
        """What tells a model of somebody's own in the place of current.h5 from another; None where there is none."""
        status = self._registry.foreign()
        return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)

    def _hinder(self, wanted: object, reason: str, now: float) -> None:
        """Leave time until the next vetting of the same, twice as much each time; say why, where that is news."""
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) if wanted == self._hindered else 1.0
        self._not_before = now + self._pause
        if (wanted, reason) != (self._hindered, self._hindrance):
            self._fail(str(wanted), reason)
        self._hindered, self._hindrance = wanted, reason

    def _refuse(self, key: object, reason: str) -> None:
        self._refused = key
        self._fail(str(key), reason)

    def _fail(self, version: str, reason: str) -> None:
        self._metrics.swaps.labels("failed").inc()
        log.error("not swapped; %s stays live: %s", self._live.name if self._live else "the version before", reason)
        self._record("swap_failed", version, reason)

    def _record(self, event: str, version: str, reason: str, **facts: Any) -> None:
        """Add a line to the ledger; where the disk refuses it, later, with the time that it is now."""
        now = time.time()
        facts |= {"at": timestamp(now), "time": now}
        self._unrecorded.append(partial(self._registry.ledger.record, event, version, reason, **facts))
        if error := self._write_records():
            log.error("the ledger cannot be written now: %s", error)

    def _write_records(self) -> OSError | None:
        while self._unrecorded:
            try:
                self._unrecorded[0]()
            except OSError as error:
                return error
            self._unrecorded.popleft()
        return None

    def _show(self, version: Version, why: str) -> None:
        manifest = version.manifest
        self._live = version
        self._metrics.model_info.clear()
        self._metrics.model_info.labels(version.name, manifest.sha256, keras.__version__).set(1)
        self._metrics.model_loaded.set_to_current_time()
        self._metrics.drift.follow(manifest.reference.model_dump() if manifest.reference else None)
        self._metrics.holdout_accuracy.labels("champion").set(manifest.holdout.accuracy)
        self._record("live", version.name, why)
        log.info("model %s is live (%s): %s", version.name, why, version.describe())
