"""The unit files, as systemd-analyze sees them; needs systemd's tools, but no running systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent.parent / "systemd"
EXPOSURE = {  # of 10
    "digitd.service": 0.3,
    "digitd-open.service": 0.8,  # holds two capabilities, and reads no file
    "digitd-stream.service": 1.1,  # the JVM runs what it unpacks into /tmp, and has this machine's network
    "digitd-web.service": 0.9,  # has a network: this machine's own
}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@needs_systemd
@pytest.mark.parametrize("name", EXPOSURE)
def test_the_services_are_hardly_exposed(name: str) -> None:
    """`systemd-analyze security` gives no more than what README says."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(rf"Overall exposure level for {name}: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[name]


def test_the_installer_finds_what_the_program_brings_along() -> None:
    """What it asks the program for is a folder with the files that it then takes from there."""
    script = (UNITS / "install.sh").read_text()
    asked = re.search(r"""^share=.* -P -c '(.*)'\)$""", script, re.MULTILINE)
    assert asked is not None
    share = subprocess.run([sys.executable, "-c", asked[1]], capture_output=True, text=True, check=True).stdout.strip()
    taken = {"config.toml", *re.findall(r"(?:models|datasets)/[A-Za-z0-9]+(?:\.[a-z0-9]+)?(?=[ ;])", script)}
    assert len(taken) > 4
    assert [name for name in sorted(taken) if not (Path(share) / name).is_file()] == []


@needs_systemd
def test_the_units_are_valid(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing about the units, but for the program that is only there once installed."""
    names = ("digitd.socket", "digitd-open.path", *EXPOSURE)
    for name in names:
        text = re.sub("/opt/digitd/current/bin/[a-z]+", "/bin/true", (UNITS / name).read_text())
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0
