"""The unit files, as systemd-analyze sees them; needs systemd's tools, but no running systemd."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent.parent / "systemd"
HIGHEST_EXPOSURE = 0.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@needs_systemd
def test_the_service_is_hardly_exposed() -> None:
    """`systemd-analyze security` gives at most 0.5 of 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / "digitd.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for digitd.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= HIGHEST_EXPOSURE


@needs_systemd
def test_the_units_are_valid(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing about the units, but for the program that is only there once installed."""
    for name in ("digitd.service", "digitd.socket"):
        text = (UNITS / name).read_text().replace("/opt/digitd/current/bin/digitd", "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "digitd.service"), str(tmp_path / "digitd.socket")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0
