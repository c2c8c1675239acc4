"""Where a version is from: shipped, made here, or vetted here. What is from elsewhere is vetted before it answers."""

from __future__ import annotations

from functools import cache

from daemon.config import SHARE
from daemon.models.ledger import Ledger
from daemon.models.manifest import Manifest
from daemon.models.version import Version

PROOFS = ("made", "vetted")  # events of the ledger that name the digest of a version's file


def is_shipped(version: Version) -> bool:
    """Whether it is the one that came with this digitd, under whatever name."""
    return version.manifest == _shipped_manifest()


def is_known(version: Version, ledger: Ledger) -> bool:
    """Whether just this file was made or vetted here."""
    proof = {"version": version.name, "sha256": version.manifest.sha256}
    return any(line.get("event") in PROOFS and line.items() >= proof.items() for line in ledger.lines())


@cache
def _shipped_manifest() -> Manifest | None:
    """That of the version that came with this digitd; None where it came without."""
    try:
        return Manifest.parse((SHARE / "models" / "v0001.json").read_bytes())
    except (OSError, ValueError):
        return None
