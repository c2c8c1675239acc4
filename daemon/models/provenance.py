"""Where a version is from: shipped, made here, or vetted here. What is from elsewhere is vetted before it answers."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from daemon.config import SHARE
from daemon.models.ledger import Ledger
from daemon.models.manifest import Manifest


def is_shipped(manifest: Manifest) -> bool:
    """Whether it is that of the version that came with this digitd, under whatever name."""
    return manifest == _shipped_manifest()


def is_known(name: str, manifest: Manifest, ledger: Ledger, events: Collection[str]) -> bool:
    """Whether one of some events of the ledger, "made" or "vetted", names just this file."""
    proof = {"version": name, "sha256": manifest.sha256}
    return any(line["event"] in events and line.items() >= proof.items() for line in ledger.lines())


@cache
def _shipped_manifest() -> Manifest | None:
    """That of the version that came with this digitd; None where it came without."""
    try:
        return Manifest.parse((SHARE / "models" / "v0001.json").read_bytes())
    except (OSError, ValueError):
        return None
