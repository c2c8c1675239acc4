"""Who imports whom: the contracts in pyproject.toml, and what CONTRIBUTING says of them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_arrows_run_one_way_and_libraries_have_one_home() -> None:
    """import-linter finds every contract kept."""
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_contributing_names_every_dependency_and_no_other() -> None:
    """Each with its home, which is there, and a reason."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    table = re.findall(r"^\| ([a-z0-9, -]+) \| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert {re.split("[<>=]", name)[0] for name in PROJECT["project"]["dependencies"]} == {
        name for names, _ in table for name in names.split(", ") if name != "package"
    }
    for _, homes in table:
        for home in re.findall(r"`([a-z_/.]+)`", homes):
            assert (REPOSITORY / "daemon" / home).exists(), home


def test_architecture_names_every_room() -> None:
    """Each package and module at the top is in the tree of docs/architecture.md, and on one floor of its table."""
    text = (REPOSITORY / "docs/architecture.md").read_text()
    names = {
        path.name for path in (REPOSITORY / "daemon").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    rooms = names - {"__init__.py", "__pycache__"}
    tree = text[text.index("daemon/\n") : text.index("    tests/")]
    assert rooms == set(re.findall(r"\b([a-z_]+(?:\.py)|[a-z]+(?=/ ))", tree))
    floors = re.findall(r"^\| \d+ \| (.+?) \|", text, re.MULTILINE)
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [set(re.split(r" [|] ", layer)) for layer in contract] == [
        set(re.findall("`([a-z_]+)`", floor)) for floor in floors
    ]
