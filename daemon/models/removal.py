"""Which old versions are removed: none that may be a person's only copy."""

from __future__ import annotations

import logging
from contextlib import suppress

from daemon.models.adoption import ADOPTED
from daemon.models.provenance import is_known, is_shipped
from daemon.models.registry import Registry, RegistryError

log = logging.getLogger(__name__)


def remove_old(registry: Registry, keep: int) -> list[str]:
    """Remove the oldest versions beyond `keep`, of those that were made here or came with digitd; return their names.

    Never the current, the previous, or the one that answers; and nobody chooses meanwhile.
    """
    with registry.choosing():
        return _remove_old(registry, keep)


def _remove_old(registry: Registry, keep: int) -> list[str]:
    needed = {registry.current_name(), registry.previous_name()}
    with suppress(RegistryError):
        needed.add(registry.current().name)
    removed = []
    for name in registry.names()[:-keep]:
        try:
            if name in needed or not _is_ours(registry, name):
                continue
            (registry.folder / f"{name}.json").unlink()
            (registry.folder / f"{name}.h5").unlink(missing_ok=True)
        except (RegistryError, OSError) as error:
            log.warning("not removed: %s", error)
        else:
            removed.append(name)
    return removed


def _is_ours(registry: Registry, name: str) -> bool:
    manifest = registry.manifest(name)
    if manifest.training.origin.startswith(ADOPTED):
        return False  # what was put in the place of current.h5 is nowhere else
    return is_shipped(manifest) or is_known(name, manifest, registry.ledger, ("made",))
