"""A small Debian that systemd boots, in a container of its own, without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

RELEASE = "bookworm"
PYTHON = "3.11"  # of that release
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,acl"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "/wheels",
    "PIP_NO_CACHE_DIR": "1",
}


class Machine:
    """A booted container.

    Args:
        base: a debootstrapped system, which is copied.
        folder: where the copy goes; removed at the end.
        shown: what the container sees of the host, read-only: path inside -> folder outside.

    """

    def __init__(self, base: Path, folder: Path, shown: dict[str, Path]) -> None:
        self.folder = folder
        subprocess.run(["cp", "--archive", "--reflink=auto", str(base), str(folder)], check=True)
        (folder / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        self._shown = shown
        self._boot()

    def _boot(self) -> None:
        with (self.folder.parent / "boot.log").open("ab") as log:
            self.nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--directory", str(self.folder), "--register=no", "--keep-unit"),
                    *("--console=pipe", "--private-network", "--boot"),
                    *(f"--bind-ro={outside}:{inside}" for inside, outside in self._shown.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children")
        try:
            self.wait_until(children.read_text, "the container to start")
            self.init = children.read_text().split()[0]
            self.wait_until(self._booted, "the container to boot")
        except BaseException:
            self.nspawn.terminate()
            raise

    def _booted(self) -> bool:
        return self.run("systemctl", "is-system-running", "--wait", check=False).strip() in ("running", "degraded")

    def reboot(self) -> None:
        """Shut it down and boot it again."""
        self._power_off()
        self._boot()

    def close(self) -> None:
        """Power it off and remove it."""
        self._power_off()
        shutil.rmtree(self.folder)

    def _power_off(self) -> None:
        self.run("systemctl", "poweroff", check=False)
        try:
            self.nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()

    def run(self, *command: str, user: str = "root", check: bool = True, **environment: str) -> str:
        """Run a command inside; what it prints, both streams together.

        Raises:
            AssertionError: it failed, and `check` was asked for.

        """
        done = self.start(*command, user=user, **environment)
        output = done.communicate()[0]
        assert done.returncode == 0 or not check, f"{command} ended with {done.returncode}:\n{output}"
        return output

    def start(self, *command: str, user: str = "root", **environment: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        become = [] if user == "root" else ["runuser", "--user", user, "--"]
        return subprocess.Popen(
            ["nsenter", "--target", self.init, *("--mount", "--uts", "--ipc", "--pid", "--net"), "--", *become, *command],
            env=ENVIRONMENT | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def succeeds(self, *command: str, user: str = "root") -> bool:
        """Whether a command inside ends with 0."""
        done = self.start(*command, user=user)
        done.communicate()
        return done.returncode == 0

    def property(self, name: str, unit: str = "digitd.service") -> str:
        """A property of a unit, as systemd shows it."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def journal(self, unit: str = "digitd.service") -> str:
        """Everything that a service and systemd said of it."""
        return self.run("journalctl", "--unit", unit, "--no-pager", "--output", "cat")

    def trainers(self) -> list[str]:
        """The process numbers of trainings that run."""
        found = self.run("sh", "-c", "grep -l daemon.training.trainer /proc/[0-9]*/cmdline 2>/dev/null; true").split()
        numbers = [path.split("/")[2] for path in found]
        return [number for number in numbers if self.succeeds("grep", "-q", "python", f"/proc/{number}/comm")]

    def get(self, path: str) -> str:
        """The body that the service answers with; empty where it does not answer with 200."""
        code = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:9787{path}', timeout=5).read().decode())"
        done = self.start("python3", "-c", code)
        body = done.communicate()[0]
        return body if done.returncode == 0 else ""

    def ready(self) -> bool:
        """Whether /readyz says so."""
        return self.get("/readyz").strip() == "ok"

    @staticmethod
    def wait_until(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
        """Look at `condition` until it holds; generous, because machines that run tests are busy.

        Raises:
            AssertionError: it did not within `seconds`.

        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"expected within {seconds:.0f} s: {what}"
            time.sleep(0.2)


def why_not() -> str | None:
    """What keeps a machine from being made here; None where nothing does."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (Debian packages debootstrap, systemd-container, util-linux)" if missing else None


def debootstrap(folder: Path) -> Path:
    """The base system, made once."""
    base = folder / RELEASE
    if not base.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{RELEASE}.new"
        shutil.rmtree(temporary, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(temporary)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        policy = temporary / "usr/sbin/policy-rc.d"  # nothing is to start while packages are installed
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        temporary.rename(base)
    return base
