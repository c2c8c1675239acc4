"""What the fault tests share: a root for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Nursery, lay_out


@pytest.fixture
def root(nursery: Nursery, tmp_path: Path) -> Path:
    """A root with the shipped configuration and a model."""
    return lay_out(tmp_path / "root", nursery.model)
