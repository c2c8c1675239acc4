"""Commands on a root with some answers and an index of them."""

import sys
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.config import Settings
from daemon.index.filling import fill
from tests.conftest import Run
from tests.index.answers import DAY, NOON, answer, reject
from tests.index.conftest import bare_settings


@pytest.fixture
def answered(tmp_path: Path) -> Settings:
    """Three answers and a rejection of two days."""
    settings = bare_settings(tmp_path / "root")
    answer(settings.root, "a.png", b"a", NOON)
    answer(settings.root, "batch7/b.png", b"b", NOON + 1, outcome="review", reason="low_confidence", digit=3, confidence=0.4)
    reject(settings.root, "größe.txt", b"text", NOON + 2)
    answer(settings.root, "=c.png", b"c", NOON + DAY, version="v0002")
    fill(settings.index, settings)
    return settings


@pytest.fixture
def ask(capfdbinary: pytest.CaptureFixture[bytes], answered: Settings) -> Run:
    """Runs a command in this process, on that root: exit code, output, errors."""

    def run_here(command: str, *rest: object) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        try:
            code = main([command, "-c", str(answered.file), *map(str, rest)])
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run_here
