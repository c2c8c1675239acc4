"""Follows current.h5: whoever moves it, the gate, a person or a script, the daemon swaps to what it names."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from daemon.clock import timestamp
from daemon.config import Settings
from daemon.files import replace_symlink
from daemon.models.backend import keras
from daemon.models.live import ModelError, ModelIdentity, ModelSlot
from daemon.models.registry import CURRENT, Registry, RegistryError, TrainingUnderWay, Version
from daemon.models.vetting import adopt
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Swapper:
    """Keeps the live model the one that current.h5 names.

    Args:
        settings: the configuration.
        registry: where current.h5 is.
        metrics: counts swaps, names the live model.

    Raises:
        RegistryError, ModelError: there is no usable model to begin with.

    """

    def __init__(self, settings: Settings, registry: Registry, metrics: Metrics) -> None:
        self._settings, self._registry, self._metrics = settings, registry, metrics
        self._refused: object = None  # what current.h5 was when it could not be used: said once, not every second
        self._hindered = ""  # what of the machine keeps a foreign model from being taken in: said once, too
        self._unrecorded: deque[Callable[[], None]] = deque()  # for the ledger, once the disk takes it
        self._adopt_foreign()
        version = registry.current()
        registry.settle(version)
        self.slot = ModelSlot(version.path, _identity(version))
        self._show(version, "the daemon started")

    def run_once(self) -> None:
        """Swap if current.h5 names another version than the live one."""
        self._write_records()
        self._adopt_foreign()
        name = self._registry.current_name()
        if name == self.slot.live.identity.version:
            self._refused = None  # what was refused may have been mended by the time that it is named again
        if name is None or name in (self.slot.live.identity.version, self._refused):
            return
        started = time.monotonic()
        try:
            version = self._registry.version(name)
            back = self.slot.swap(version.path, _identity(version))
        except (RegistryError, ModelError) as error:
            self._refuse(name, str(error))
            return
        self._refused = None
        self._metrics.swap_seconds.observe(time.monotonic() - started)
        self._metrics.swaps.labels("rolled_back" if back else "swapped").inc()
        self._show(version, "went back" if back else "swapped")

    def apply(self, settings: Settings) -> None:
        """Put a changed configuration in force, for the next foreign model."""
        self._settings = settings

    def _adopt_foreign(self) -> None:
        """Where somebody put a model of their own in the place of current.h5, make a version of it if it passes."""
        path = self._registry.folder / CURRENT
        if self._registry.current_name() is not None or not path.is_file():
            return
        status = path.stat()
        key = (status.st_ino, status.st_size, status.st_mtime_ns)
        if key == self._refused or time.time() - status.st_mtime < 1.0:  # perhaps it is still being copied
            return
        try:
            name = adopt(self._registry, self._settings, path)
        except TrainingUnderWay:
            return  # it holds the right to the next version; again in a moment
        except OSError as error:  # the machine's doing, such as a full disk, and not the file's: again in a moment
            if str(error) != self._hindered:
                self._hindered = str(error)
                self._fail(str(key), str(error))
        except RegistryError as error:
            self._refuse(key, str(error))
            if not path.is_symlink():
                path.rename(path.with_name(f"refused-{status.st_ino}.h5"))  # aside, so that it can be looked at
        else:
            self._hindered = ""
            replace_symlink(path, f"{name}.h5")
            self._record("current", name, "put in the place of current.h5 by hand")

    def _refuse(self, key: object, reason: str) -> None:
        self._refused = key
        self._fail(str(key), reason)

    def _fail(self, version: str, reason: str) -> None:
        self._metrics.swaps.labels("failed").inc()
        log.error("not swapped; %s stays live: %s", self._live_name(), reason)
        self._record("swap_failed", version, reason)

    def _record(self, event: str, version: str, reason: str) -> None:
        """Add a line to the ledger; where the disk refuses it, later, with the time that it is now."""
        now = time.time()
        self._unrecorded.append(partial(self._registry.record, event, version, reason, at=timestamp(now), time=now))
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

    def _live_name(self) -> str:
        return self.slot.live.identity.version if hasattr(self, "slot") else "the version before"

    def _show(self, version: Version, why: str) -> None:
        self._metrics.model_info.clear()
        self._metrics.model_info.labels(version.name, version.sha256, keras.__version__).set(1)
        self._metrics.model_loaded.set_to_current_time()
        self._metrics.drift.follow(version.manifest.get("reference"))
        self._metrics.holdout_accuracy.labels("champion").set(version.manifest["holdout"]["accuracy"])
        self._record("live", version.name, why)
        log.info("model %s is live (%s): %s", version.name, why, version.describe())


def _identity(version: Version) -> ModelIdentity:
    return ModelIdentity(version.name, version.sha256)
