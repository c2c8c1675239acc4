"""A process that has imported the daemon's modules and forks one daemon after another, so that a start costs no import.

Importing TensorFlow takes seconds; a suite that kills the daemon hundreds of times would spend nearly all of its time there.
What is forked has imported modules and nothing else: it runs `python -m daemon run` from its first line. Requests and
answers are JSON, one a line: {"run": {...}} gives {"pid": ...}; {"wait": pid} gives {"status": ...}; {"make_model": path,
"mark": path or nothing} puts a model there.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import runpy
import signal
import struct
import sys
from collections.abc import Sequence
from typing import Any

CLONE_NEWUSER = 0x10000000  # linux/sched.h
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24  # linux/prctl.h
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # linux/capability.h
CAPABILITY_VERSION_3 = 0x20080522


def serve() -> None:
    """Fork and wait for daemons until stdin ends."""
    import daemon.service  # noqa: F401 -- this is the import that costs seconds

    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            pid = os.fork()
            if pid == 0:
                run(**request["run"])
            print(json.dumps({"pid": pid}), flush=True)
        elif "make_model" in request:
            pid = os.fork()  # TensorFlow starts threads when it is first used, and what has threads is not to be forked
            if pid == 0:
                make_model(request["make_model"], request.get("mark"))
            print(json.dumps({"status": os.waitpid(pid, 0)[1]}), flush=True)
        else:
            print(json.dumps({"status": os.waitpid(request["wait"], 0)[1]}), flush=True)


def make_model(path: str, mark: str | None) -> None:
    """Save a model of one layer, and of one more that makes the file `mark` wherever it runs; and end."""
    code = 1
    try:
        from daemon.models.backend import keras

        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
        if mark:
            model.add(keras.layers.Lambda(lambda x, mark=mark: (open(mark, "w").close(), x)[1]))  # noqa: PTH123
        logging.getLogger("absl").setLevel(logging.ERROR)  # .h5 is a legacy format, it says
        model.save(path)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(
    config: str, environment: dict[str, str], log: str, code: str | None = None, arguments: Sequence[str] = (), **limits: Any
) -> None:
    """Become `python -m daemon run -c CONFIG ARGUMENTS`, of the `daemon` package in the folder `code` where one is given.

    Or, where a `script` is given, `python SCRIPT ARGUMENTS`.
    """
    status = 70  # whatever goes wrong before the daemon has its say
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no daemon outlives the tests
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if limits.get("deny_inotify"):
            deny_inotify(limits["deny_inotify"])
        if limits.get("obey_modes"):
            obey_modes()
        os.environ.update(environment)
        os.chdir(limits.get("folder", "."))
        if code:
            use_code(code)
        script = limits.get("script")
        sys.argv = [script, *arguments] if script else ["daemon", "run", "-c", config, *arguments]
        try:
            if script:
                runpy.run_path(script, run_name="__main__")
            else:
                runpy.run_module("daemon", run_name="__main__", alter_sys=True)
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def use_code(folder: str) -> None:
    """Take the `daemon` package from another folder, here and in the processes that this one starts."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "daemon"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder
    os.chdir(folder)


def obey_modes() -> None:
    """Give up root's privilege of reading and writing whatever the mode of a file says, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    everything = 0
    for line in open("/proc/self/status", encoding="ascii"):  # noqa: PTH123, SIM115
        if line.startswith("CapPrm:"):
            everything = int(line.split()[1], 16)
    left = everything & ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    low, high = left & 0xFFFFFFFF, left >> 32
    if libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def deny_inotify(limit: str) -> None:
    """In a user namespace of its own, allow no more inotify `limit`: "max_inotify_watches" or "max_inotify_instances"."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:  # os.unshare came with Python 3.12
        raise OSError(ctypes.get_errno(), "unshare")
    for file, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as map_file:  # noqa: PTH123 -- Path adds nothing here
            map_file.write(line)
    with open(f"/proc/sys/user/{limit}", "w", encoding="ascii") as limit_file:  # noqa: PTH123
        limit_file.write("0")


if __name__ == "__main__":
    serve()
