"""Several hosts that share results/ and the rest: what each of them writes is whole, and replaces nobody else's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.answering.publish import prepare
from tests.conftest import REPOSITORY, files_below

COUNT = 200
# A host of its own, as far as a process can tell: its name, and its process numbers, so that all of them are number 1.
HOST = [
    "unshare",
    "--map-root-user",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
    'hostname "$1"; shift; exec "$@"',
    "sh",
]
PUBLISH = f"""
import hashlib, os, sys
from pathlib import Path
import numpy as np
from daemon.answering.publish import publish_predictions
from daemon.drops import Drop, ImageFacts, Predictions
assert os.getpid() == 1
results, host = sys.argv[1:]
facts = ImageFacts(hashlib.sha256(host.encode()).hexdigest(), "PNG", 28, 28)
rows = np.eye(10, dtype=np.float32)[:1]
for number in range({COUNT}):
    for name in (f"{{host}}-{{number}}.png", f"new/{{number}}/same.png"):
        batch = Predictions([Drop(name, 0.0)], [facts], rows, [None], "v0001", "m" * 64, 0.0, 0.0)
        publish_predictions(Path(results), batch)
"""


def why_no_host() -> str:
    """Why there can be no second host here; empty where there can."""
    if not shutil.which("unshare") or subprocess.run([*HOST, "a", "true"], capture_output=True, check=False).returncode:
        return "may not make namespaces here, which stand for other hosts"
    return ""


@pytest.mark.skipif(bool(why_no_host()), reason=why_no_host() or "-")
def test_two_writers_with_one_process_number_do_not_meet(tmp_path: Path) -> None:
    """Process 1 of two hosts that even have one name: every result is there, whole, and nothing else."""
    results = tmp_path / "results"
    prepare(results)
    hosts = [subprocess.Popen([*HOST, "same", sys.executable, "-c", PUBLISH, results, who], cwd=REPOSITORY) for who in "ab"]
    assert [0, 0] == [host.wait() for host in hosts]
    answers = [json.loads((results / name).read_bytes()) for name in files_below(results)]
    dropped = [f"{host}-{number}.png" for host in "ab" for number in range(COUNT)]
    dropped += [f"new/{number}/same.png" for number in range(COUNT)] * 2
    assert sorted(dropped) == sorted(answer["file"] for answer in answers)
    assert [] == os.listdir(results / ".tmp")
