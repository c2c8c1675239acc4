"""processes.py: a child ends with its parent, even where that has ended before the child could ask for it."""

from __future__ import annotations

import os
import subprocess
import sys

from daemon.processes import python

CHILD = """
import signal, sys
from daemon.processes import die_with_parent
sys.stdin.read()
die_with_parent(signal.SIGKILL)
print("lives on")
"""
PARENT = """
import subprocess, sys
from daemon.processes import python
subprocess.Popen(python("-c", sys.argv[1]))
"""


def test_a_child_whose_parent_is_gone_already_ends() -> None:
    """It asks to be ended with it only then; somebody else is its parent by now."""
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdin=reading, stdout=subprocess.PIPE) as parent:
        os.close(reading)
        parent.wait()
        os.close(writing)  # the child goes on
        assert parent.stdout is not None
        assert b"" == parent.stdout.read()  # to its end: the child has it open, too


def test_a_child_whose_parent_lives_goes_on() -> None:
    """What it asks for changes nothing then."""
    done = subprocess.run(python("-c", CHILD), stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert b"lives on\n" == done.stdout
