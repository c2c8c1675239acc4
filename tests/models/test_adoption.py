"""adoption.py: a foreign file becomes a version only if it passed, and nothing of anybody's is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from daemon.models.adoption import MAX_BYTES, Findings, VettingStopped, adopt
from daemon.models.manifest import Holdout
from daemon.models.registry import Registry, RegistryError
from daemon.models.removal import remove_old
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "models" / "v0001.h5"


def passes(_file: Path, _shown: Path) -> Findings:
    """What a limited process says of a good model."""
    return Findings(keras="3.15.1", parameters=7, dataset_sha256="d" * 64, holdout=Holdout(images=10, accuracy=0.9))


def fails(_file: Path, shown: Path) -> Findings:
    """What it says of a bad one."""
    raise RegistryError(f"{shown}: it is bad")


def stopped(_file: Path, _shown: Path) -> Findings:
    """What comes of one that was told to stop."""
    raise VettingStopped


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """models/ without a version."""
    return Registry(tmp_path / "models")


def files(registry: Registry) -> list[str]:
    """What lies in models/, apart from ledger and lock."""
    return sorted(path.name for path in registry.folder.iterdir() if path.name.endswith((".h5", "v0001.json")))


def test_a_model_that_passed_becomes_a_version(registry: Registry) -> None:
    """Its file is a copy, it is proven, and its manifest says where it is from and what was found."""
    assert "v0001" == adopt(registry, passes, SHIPPED)
    version = registry.version("v0001")
    assert registry.is_proven(version)
    assert ("adopted from v0001.h5", 7, 0.9) == (
        version.manifest.training.origin,
        version.manifest.parameters,
        version.manifest.holdout.accuracy,
    )
    assert SHIPPED.read_bytes() == version.path.read_bytes()


def test_a_model_that_did_not_pass_leaves_nothing(registry: Registry) -> None:
    """The reason is the limited process's own."""
    with pytest.raises(RegistryError, match="it is bad"):
        adopt(registry, fails, SHIPPED)
    assert [] == files(registry)


def test_an_interrupted_vetting_leaves_nothing(registry: Registry) -> None:
    """And refuses nothing: the same file can be taken in afterwards."""
    with pytest.raises(VettingStopped):
        adopt(registry, stopped, SHIPPED)
    assert [] == files(registry)
    adopt(registry, passes, SHIPPED)


def test_a_persons_own_file_in_models_is_not_removed(registry: Registry) -> None:
    """A v0002.h5 that nobody here has begun is adopted under another name, and stays."""
    own = registry.folder / "v0002.h5"
    shutil.copy(SHIPPED, own)
    assert "v0003" == adopt(registry, passes, own)
    assert SHIPPED.read_bytes() == own.read_bytes()


def test_the_file_of_a_version_is_that_version(registry: Registry) -> None:
    """As of `digitd promote models/v0001.h5`: a stranger's has no calibration, and the next training began from scratch."""
    for name in ("v0001.h5", "v0001.json"):
        shutil.copy(REPOSITORY / "models" / name, registry.folder)
    shutil.copy(SHIPPED, registry.folder / "current.h5")  # as what follows links, such as `cp -rL`, brings a root back
    for file in ("v0001.h5", "current.h5"):
        assert "v0001" == adopt(registry, fails, registry.folder / file)
    assert (["v0001"], []) == (registry.names(), list(registry.ledger.lines()))
    assert registry.manifest("v0001").calibration is not None


def test_a_version_that_lost_its_manifest_can_be_taken_in_again(registry: Registry) -> None:
    """It was whole once, and is nothing that a training left unfinished."""
    name = adopt(registry, passes, SHIPPED)
    registry.make_current(name, "by hand")
    own = registry.folder / f"{name}.h5"
    (registry.folder / f"{name}.json").unlink()
    assert name != adopt(registry, passes, own)
    assert SHIPPED.read_bytes() == own.read_bytes()


def test_what_was_taken_in_is_not_removed_as_old(registry: Registry) -> None:
    """Moved to the place of current.h5, it is a person's only copy."""
    names = []
    for number in range(4):
        own = registry.folder / "own.h5"
        own.write_bytes(SHIPPED.read_bytes() + bytes([number]))
        names.append(adopt(registry, passes, own))
    assert [] == remove_old(registry, 2)
    assert set(names) <= set(registry.names())


def test_what_is_too_large_is_not_copied(registry: Registry, tmp_path: Path) -> None:
    """A file of a terabyte of holes costs nothing."""
    path = tmp_path / "own.h5"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RegistryError, match=f"expected at most {MAX_BYTES} bytes. Received: {1 << 40}"):
        adopt(registry, passes, path)
    assert [] == files(registry)


def test_a_pipe_is_no_model(registry: Registry, tmp_path: Path) -> None:
    """It is refused, and nobody waits for its other end."""
    os.mkfifo(tmp_path / "own.h5")
    with pytest.raises(RegistryError, match="no regular file"):
        adopt(registry, passes, tmp_path / "own.h5")
