"""What the fault tests share: a nursery for the session, and a root for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Nursery, lay_out


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One process that forks all daemons of the session."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the shipped configuration and model."""
    return lay_out(tmp_path / "root")
