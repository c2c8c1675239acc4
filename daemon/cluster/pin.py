"""Which model the next batch is pinned to: the one that current.h5 names, if it was made or vetted here."""

from __future__ import annotations

import logging
from pathlib import Path

from daemon.models.registry import Registry, RegistryError
from daemon.models.version import ModelIdentity

log = logging.getLogger(__name__)


class Pin:
    """Follows current.h5 without TensorFlow.

    Args:
        models: the folder of the versions.

    Raises:
        RegistryError: there is no version to begin with.

    """

    def __init__(self, models: Path) -> None:
        self._registry = Registry(models)
        self.identity = self._registry.current().identity
        self._refused: str | None = None  # said once, not at every sweep

    def follow(self) -> ModelIdentity:
        """The identity of the version that is current now, or of the one before where that cannot be used."""
        name = self._registry.current_name()
        if name == self.identity.version:
            self._refused = None
        elif name is not None and name != self._refused:
            try:
                self.identity = self._proven(name)
            except RegistryError as error:
                self._refused = name
                log.error("not swapped; %s stays live: %s", self.identity.version, error)
        return self.identity

    def usable(self, wanted: ModelIdentity) -> ModelIdentity:
        """What a batch was pinned to; where that version is gone since, what is current."""
        try:
            if self._proven(wanted.version) == wanted:
                return wanted
        except RegistryError as error:
            log.warning("batch pinned to %s is done with %s: %s", wanted.version, self.identity.version, error)
        return self.follow()

    def _proven(self, name: str) -> ModelIdentity:
        version = self._registry.version(name)
        if not self._registry.is_proven(version):
            raise RegistryError(
                f"{version.path}: expected a version that was made or vetted here. Received: another one. Have it vetted "
                f"with `digitd promote {name}`."
            )
        return version.identity
