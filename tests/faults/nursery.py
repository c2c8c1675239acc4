"""A process that has imported the daemon's modules and forks one daemon after another, so that a start costs no import.

Importing TensorFlow takes seconds; a suite that kills the daemon hundreds of times would spend nearly all of its time there.
What is forked has imported modules and nothing else: it runs `python -m daemon run` from its first line. Requests and
answers are JSON, one a line: {"run": {...}} gives {"pid": ...}; {"wait": pid} gives {"status": ...}.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any


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
        else:
            print(json.dumps({"status": os.waitpid(request["wait"], 0)[1]}), flush=True)


def run(config: str, environment: dict[str, str], log: str, user: int | None, **limits: Any) -> None:
    """Become `python -m daemon run -c CONFIG`."""
    code = 70  # whatever goes wrong before the daemon has its say
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if limits.get("deny_inotify"):
            deny_inotify(limits["deny_inotify"])
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        os.environ.update(environment)
        sys.argv = ["daemon", "run", "-c", config]
        try:
            runpy.run_module("daemon", run_name="__main__", alter_sys=True)
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def deny_inotify(limit: str) -> None:
    """In a user namespace of its own, allow no more inotify `limit`: "max_inotify_watches" or "max_inotify_instances"."""
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else _unshare_user()
    for file, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as map_file:  # noqa: PTH123 -- Path adds nothing here
            map_file.write(line)
    with open(f"/proc/sys/user/{limit}", "w", encoding="ascii") as limit_file:  # noqa: PTH123
        limit_file.write("0")


def _unshare_user() -> None:
    import ctypes

    clone_newuser = 0x10000000  # linux/sched.h; os.unshare came with Python 3.12
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newuser) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


if __name__ == "__main__":
    serve()
