"""What README, config.toml, the rules and docs/ say is what the code does: none of them can drift from it."""

import argparse
import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from daemon.cli import _parser
from daemon.config import Settings, Table
from daemon.models.ledger import EVENTS
from daemon.telemetry.metrics import Metrics
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
PYTHONS = ("3.11", "3.12", "3.13")

# The metrics that dashboards and alerts of others may rely on: kind, name, labels.
CONTRACT = """
counter images_total{outcome} rejections_total{reason} predictions_total{digit} reviews_total{reason}
counter model_swaps_total{result} gate_decisions_total{verdict} training_runs_total{result} corrections_total{agrees}
counter inbox_overflows_total intake_errors_total{cause}
histogram image_seconds stage_seconds{stage} batch_size_images confidence_ratio model_swap_seconds training_seconds
gauge backlog_images{folder} oldest_waiting_seconds model_info{version,sha256,keras} model_loaded_timestamp_seconds ready
gauge live_accuracy_ratio holdout_accuracy_ratio{model} drift_psi{feature} training_in_progress training_epoch
gauge training_loss{split} training_accuracy{split} training_last_success_timestamp_seconds
gauge training_next_run_timestamp_seconds
info build_info
"""


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a text."""
    table = text[text.index(heading) - 1 :]
    lines = table[table.index("\n|") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_readme_lists_the_commands() -> None:
    """Each command of the command line is in README's table, and no other."""
    action = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert list(action.choices) != []
    assert set(action.choices) == {row[0].split()[1].strip("`") for row in rows(README, "Its commands:")}


def test_readme_lists_the_alerts() -> None:
    """Each alert of the rules has its row, in their order."""
    rules = (REPOSITORY / "monitoring/digitd-alerts.yml").read_text()
    assert re.findall(r"- alert: (\w+)", rules) == [row[0].strip("`") for row in rows(README, "| alert |")]


def test_the_metrics_of_the_contract_are_there() -> None:
    """With these kinds, names and labels."""
    registry = Metrics().registry
    kinds = {metric.name: metric.type for metric in registry.collect()}
    labels = {one._name: set(one._labelnames) for one in registry._collector_to_names if isinstance(one, MetricWrapperBase)}
    for line in CONTRACT.strip().splitlines():
        kind, *names = line.split()
        for text in names:
            name, _, wanted = text.rstrip("}").partition("{")
            found = f"digitd_{name}".removesuffix("_total" if kind == "counter" else "_info" if kind == "info" else " ")
            assert kinds[found] == kind, found
            assert labels[found] == set(filter(None, wanted.split(","))), found


def test_readme_names_metrics_that_are_there() -> None:
    """Each metric in README is one of ours."""
    names = {sample for metric in Metrics().registry.collect() for sample in (metric.name, f"{metric.name}_total")}
    assert set(re.findall(r"digitd_\w+", README)) - names == set()


def test_every_event_of_the_ledger_is_known_and_explained() -> None:
    """What the code records is in EVENTS, and each of them is in the glossary."""
    recorded = {
        argument.value
        for path in (REPOSITORY / "daemon").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "").strip("_") == "record"
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant)
    }
    assert recorded != set()
    assert recorded <= set(EVENTS)
    glossary = (REPOSITORY / "docs/glossary.md").read_text()
    assert set(EVENTS) == {row[0].strip("`") for row in rows(glossary, "| event |")}


def keys(table: type[Table], prefix: str = "") -> set[str]:
    """Every key of a table and the tables in it, dotted."""
    found: set[str] = set()
    for name, field in table.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            found |= keys(kind, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def flat(tables: dict[str, Any], prefix: str = "") -> set[str]:
    """Every key of a TOML, dotted."""
    found: set[str] = set()
    for name, value in tables.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def test_config_toml_has_every_key() -> None:
    """In its own table, and no other key."""
    assert keys(Settings) == flat(tomllib.loads((REPOSITORY / "config.toml").read_text()))


def test_the_pythons_are_the_same_everywhere() -> None:
    """README, pyproject.toml, Makefile and the installer name the same versions."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert ">=3.11,<3.14" == project["requires-python"]
    assert {f"Programming Language :: Python :: {version}" for version in PYTHONS} <= set(project["classifiers"])
    for name in ("README.md", "Makefile", "systemd/install.sh"):
        assert f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}" in (REPOSITORY / name).read_text(), name


@pytest.mark.parametrize(("system", "version", "fits"), [
    ("linux", (3, 10), False), ("linux", (3, 11), True), ("linux", (3, 13), True), ("linux", (3, 14), False),
    ("darwin", (3, 12), False),
])  # fmt: skip
def test_make_says_what_it_needs(tmp_path: Path, system: str, version: tuple[int, int], fits: bool) -> None:
    """Elsewhere than on Linux, or with another Python, the first command says so in a sentence."""
    pretender = tmp_path / "python"
    pretender.write_text(
        "#!/bin/sh\n"
        f"""exec python3 -c 'import sys; sys.platform, sys.version_info = "{system}", {version}; exec(sys.argv[1])' "$2"\n"""
    )
    pretender.chmod(0o755)
    done = subprocess.run(
        ["make", "suitable", f"PYTHON={pretender}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert fits == (done.returncode == 0)
    assert fits != (f"Received: Python {version[0]}.{version[1]} on {system}." in done.stderr)


def test_make_lists_its_targets() -> None:
    """`make` alone names each target with its text."""
    command = ["make", "--no-print-directory"]  # as it would inside of `make test`
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert set(targets[1].split()) - {"suitable"} == {line.split()[1] for line in said.splitlines()}
