"""A stream on Spark as a process, and a standalone cluster of processes of our own; each is ended by its id."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import LONG_AGO, Daemon, Digits, files_below, make_root, wait_until
from tests.hostile.conftest import LIMIT_SECONDS

FULL = bool(os.environ.get("TEST_CLUSTER"))
PATIENT = 600.0 if FULL else 120.0  # seconds
STARTING = max(300.0, PATIENT)  # Spark starts slowly on a busy machine; once for all tests of a module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Java or PySpark, what needs them is skipped."""
    missing = [name for name in ("pyspark", "pyarrow") if importlib.util.find_spec(name) is None]
    missing += [] if shutil.which("java") else ["java"]
    skip = pytest.mark.skip(reason=f"needs {', '.join(missing)}")
    for item in items:
        if missing and {"stream", "cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(skip)


class Stream(Daemon):
    """`python -m daemon stream` on a root, as a process of its own."""

    def __init__(self, root: Path, master: str, **overrides: object) -> None:
        self.master = master
        super().__init__(root, **overrides)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "daemon", "stream", "-c", str(self.root / "config.toml"), "--master", self.master],
                env=self.environment,
                cwd=self.root,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> Stream:
        """Wait until the workers have their model."""

        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the stream ended with {self.process.returncode}:\n{self.log}")
            return self.address is not None and self.get("/readyz")[0] == 200

        wait_until(ready, "/readyz to be 200", STARTING)
        return self

    def drop_digits(self, digits: Digits, first: int, count: int) -> dict[str, int]:
        """Drop images nearly at once; the names and their digits."""
        staged = self.root / f"staged{first}"
        staged.mkdir()
        numbers = [number % len(digits.labels) for number in range(first, first + count)]
        names = [f"{first + index}.png" for index in range(count)]
        for name, number in zip(names, numbers, strict=True):
            (staged / name).write_bytes(digits.png(number) + name.encode())  # each of its own bytes
            os.utime(staged / name, (LONG_AGO, LONG_AGO))
        for name in names:
            (staged / name).rename(self.root / "inbox" / name)
        return {name: digits.labels[number] for name, number in zip(names, numbers, strict=True)}

    def wait_settled(self, names: set[str]) -> None:
        """Wait until these are retired and nothing is left anywhere."""

        def settled() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the stream ended with {self.process.returncode}:\n{self.log[-3000:]}")
            return is_settled(self.root, names)

        wait_until(settled, f"{len(names)} to be retired; the log:\n{self.log[-3000:]}", PATIENT)

    def check(self, names: set[str]) -> None:
        """Nothing is lost, doubled or torn: each name has one whole JSON and one original, and there is nothing else."""
        assert names == files_below(self.root / "processed")
        assert {f"{name}.json" for name in names} == files_below(self.root / "results")
        for name in names:
            assert name == json.loads((self.root / "results" / f"{name}.json").read_bytes())["file"]
        assert set() == files_below(self.root / "rejected") | files_below(self.root / "inbox")


def is_settled(root: Path, names: set[str]) -> bool:
    """Whether all of these are retired, and nothing is claimed."""
    retired = files_below(root / "processed") | files_below(root / "rejected")
    return names <= retired and not files_below(root / "work" / ".stream")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return found


def below(pid: int) -> Iterator[tuple[int, str]]:
    """All that came from a process, and their command lines; parents first."""
    for child in children(pid):
        with suppress(OSError):
            yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        yield from below(child)


class Cluster:
    """A master and two workers of one core each, on loopback."""

    def __init__(self, folder: Path) -> None:
        import pyspark

        self._home, self._folder = Path(pyspark.__file__).parent, folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start("master")
        (self.address,) = wait_until(
            lambda: re.findall(r"Starting Spark master at (spark://\S+)", self.log("master")), "the master", PATIENT
        )
        for name in ("worker1", "worker2"):
            self.start(name)

    def start(self, name: str) -> None:
        """Start one of them, perhaps again, at the address that it had."""
        kind = name.rstrip("12").capitalize()
        arguments = ["--host", "127.0.0.1", "--webui-port", "0"]
        if name == "master":
            arguments += ["--port", self.address.rpartition(":")[2] if hasattr(self, "address") else "0"]
        else:
            arguments += ["--cores", "1", "--memory", "1g", "--work-dir", str(self._folder / name), self.address]
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self._home / "bin/spark-class", f"org.apache.spark.deploy.{name.rstrip('12')}.{kind}", *arguments],
                env=os.environ
                | {"SPARK_HOME": str(self._home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"},
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def pids(self, what: str) -> list[int]:
        """Of what workers have started: executors, "pyspark.daemon", its workers, decoders."""
        roots = [process.pid for name, process in self.processes.items() if name != "master" and process.poll() is None]
        found = [(pid, line) for root in roots for pid, line in below(root)]
        if what == "executor":
            return [pid for pid, line in found if "CoarseGrainedExecutorBackend" in line]
        if what == "decoder":
            servers = [pid for pid, line in found if "forkserver" in line and "multiprocessing" in line]
            return [child for pid in servers for child in children(pid)]
        daemons = {pid for pid, line in found if "pyspark.daemon" in line}
        tops = [pid for pid in daemons if not any(pid in children(other) for other in daemons)]
        return tops if what == "daemon" else [child for pid in tops for child in children(pid)]

    def close(self) -> None:
        """End all of them, by their ids."""
        started = [pid for process in self.processes.values() for pid, _ in below(process.pid)]
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """A stream that tests share: each drops names of its own."""
    root = make_root(tmp_path_factory.mktemp("stream"))
    slots = 2 if FULL else 1  # each loads TensorFlow
    limits = {"INBOX__DECODE_SECONDS": LIMIT_SECONDS}  # a fast machine reads within the usual 10 s what is to be too slow
    running = Stream(root, f"local[{slots},4]", INBOX__RESCAN_SECONDS=1, INBOX__GRACE_SECONDS=60, **limits)
    try:
        yield running.wait_ready()
    finally:
        running.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A standalone cluster."""
    if not FULL:
        pytest.skip("takes many minutes: make test-cluster")
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield running
    finally:
        running.close()
