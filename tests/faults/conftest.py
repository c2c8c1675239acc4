"""What the fault tests share: a root for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Nursery, lay_out, mounted


@pytest.fixture
def root(nursery: Nursery, tmp_path: Path) -> Path:
    """A root with the shipped configuration and a model."""
    return lay_out(tmp_path / "root", nursery.model)


@pytest.fixture
def place() -> Iterator[Path]:
    """A fresh file system."""
    with mounted("ext4", megabytes=256) as point:
        yield point
