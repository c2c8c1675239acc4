"""What the tests share: a root, digits to drop, and the daemon itself as a real process."""

from __future__ import annotations

import fcntl
import functools
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from daemon.cli import main
from daemon.commands.init import lay_out
from daemon.config import Settings, load_settings
from tests.faults.harness import Nursery, pause

REPOSITORY = Path(__file__).parent.parent
DEADLINE = 60.0  # seconds; generous, because the machine may be busy
NOBODY = 65534
Value = TypeVar("Value")
Run = Callable[..., tuple[int, str, str]]
LONG_AGO = 1_500_000_000  # a time of last change that no grace period covers

for variable in [name for name in os.environ if name.startswith("DIGITD_")]:
    del os.environ[variable]  # the tests' configuration is the shipped one, whatever the caller's shell says


LONG = ("cluster", "browser", "faults", "hostile", "training", "index", "tests")  # folders with files that take long


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that two workers that take file after file end together."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.parent.name) in LONG else len(LONG))


def wait_until(condition: Callable[[], Value], what: str, seconds: float = DEADLINE) -> Value:
    """Ask until the answer is true; what it is, or a failure that says what was waited for."""
    began = time.monotonic()
    while not (value := condition()):
        if time.monotonic() > began + seconds:
            pytest.fail(f"waited {seconds:.0f} s in vain for: {what}")
        pause(began)
    return value


def files_below(folder: Path) -> set[str]:
    """The names of all files below a folder, hidden ones and what is in hidden folders excepted; folders may vanish."""
    found = set()
    for inside, folders, names in os.walk(folder):  # Path.rglob fails over a folder that another removes meanwhile
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(inside).relative_to(folder)
        found |= {str(below / name) for name in names if not name.startswith(".")}
    return found


@contextmanager
def leased(path: Path) -> Iterator[int]:
    """Hold a lease on a file, as its owner may at any moment: whoever opens it without waiting is told EWOULDBLOCK."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # which tells the holder, and would end it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield descriptor
    finally:
        os.close(descriptor)


DENSE_LAYERS = """
[[training.layers]]
layer = "Flatten"

[[training.layers]]
layer = "Dense"
units = 32
kernel_initializer = "uniform"
activation = "relu"

[[training.layers]]
layer = "Dense"
units = 10
activation = "softmax"
"""


@dataclass(frozen=True)
class Digits:
    """The MNIST test set: images (n, 28, 28) uint8 and the digits that they show."""

    images: np.ndarray
    labels: list[int]

    def png(self, number: int) -> bytes:
        """One image as the bytes of a PNG."""
        return encode(self.images[number])


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Pixels as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@functools.cache
def shared_nursery() -> Nursery:
    """The process that forks the daemons of all tests, for one import of TensorFlow: it costs more CPU than most tests."""
    return Nursery()


def pytest_unconfigure() -> None:
    """End it, where there is one, after everything that it has forked."""
    if shared_nursery.cache_info().currsize:
        shared_nursery().close()


class Forked:
    """A daemon from the nursery, with that of `subprocess.Popen` which tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._reap(0)

    def wait(self, seconds: float | None = None) -> int:
        if self._reap(seconds) is None:
            raise subprocess.TimeoutExpired("daemon run", seconds or 0)
        assert self.returncode is not None
        return self.returncode

    def _reap(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], seconds)[0]:
            self.returncode = os.waitstatus_to_exitcode(shared_nursery().ask(wait=self.pid)["status"])
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Daemon:
    """`python -m daemon run` on a root, as a process of its own, which has the imports of the nursery that forked it.

    Args:
        root: laid out by `digitd init`.
        overrides: configuration keys as the environment names them, without DIGITD_.

    """

    def __init__(self, root: Path, **overrides: object) -> None:
        self.root = root
        self.environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DIGITD_HTTP__PORT": "0"}
        self.environment |= {f"DIGITD_{key}": str(value) for key, value in overrides.items()}
        self._log = root / "daemon.log"
        self.process = self._spawn()

    def _spawn(self) -> Forked | subprocess.Popen[bytes]:
        run = {"config": str(self.root / "config.toml"), "environment": self.environment, "log": str(self._log)}
        return Forked(shared_nursery().ask(run=run | {"folder": str(self.root)})["pid"])

    def wait_ready(self) -> Daemon:
        """Wait until /readyz says 200."""

        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            return self.address is not None and self.get("/readyz")[0] == 200

        wait_until(ready, "/readyz to be 200")
        return self

    def restart(self) -> Daemon:
        """Start anew on the same root, after an end; the log goes on."""
        self.process = self._spawn()
        return self.wait_ready()

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def address(self) -> str | None:
        """Where this very process serves HTTP; None until it does."""
        try:
            holder = json.loads((self.root / "work" / ".daemon.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return holder["address"] if holder["pid"] == self.process.pid else None

    def get(self, path: str) -> tuple[int, str]:
        """The status and the text of an HTTP answer; status 0 where there is none."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=DEADLINE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics by name and labels."""
        return samples(self.get("/metrics")[1])

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0.0 where there is none yet."""
        return self.metrics().get((name, frozenset(labels.items())), 0.0)

    def drop(self, name: str, content: bytes) -> None:
        """Drop a whole file, by rename; its time of last change is long ago, so that no grace period holds it."""
        staged = self.root / "staged"
        staged.write_bytes(content)
        os.utime(staged, (LONG_AGO, LONG_AGO))
        target = self.root / "inbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)

    def result(self, name: str) -> dict[str, Any]:
        """Wait for results/<name>.json."""
        return self._wait_json("results", name)

    def rejection(self, name: str) -> dict[str, Any]:
        """Wait for rejected/<name>.json."""
        return self._wait_json("rejected", name)

    def _wait_json(self, folder: str, name: str) -> dict[str, Any]:
        path = self.root / folder / f"{name}.json"
        wait_until(path.exists, f"{folder}/{name}.json; the log:\n{self.log}")
        content: dict[str, Any] = json.loads(path.read_bytes())
        return content

    def terminate(self, seconds: float = DEADLINE) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def kill9(self) -> None:
        """SIGKILL, as the out-of-memory killer sends it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.kill9()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a /metrics page by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def digitd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m daemon` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def make_root(folder: Path) -> Path:
    """A root as `digitd init` lays it out; the data set is a link, for it is 11 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "datasets").symlink_to(REPOSITORY / "datasets")
    assert lay_out(folder) == 0
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fresh root."""
    return make_root(tmp_path / "root")


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], root: Path) -> Run:
    """Runs a command in this process, on a fresh root: exit code, output, errors."""

    def run_here(*arguments: object) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return lambda command, *rest: run_here(command, "-c", root / "config.toml", *rest)


@pytest.fixture
def settings(root: Path) -> Settings:
    """The shipped configuration, on a fresh root."""
    return load_settings(root / "config.toml")


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """What is done here is done without root's rights, to which no permission is denied."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder like tmp_path, which others may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def digits() -> Digits:
    """The MNIST test set."""
    with np.load(REPOSITORY / "datasets" / "mnist.npz") as arrays:
        return Digits(arrays["x_test"], arrays["y_test"].tolist())


@pytest.fixture
def start_daemon(root: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon on this test's root, and ends it when the test does."""
    started: list[Daemon] = []

    def start(**overrides: object) -> Daemon:
        started.append(Daemon(root, **overrides))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that tests share: each drops names of its own. A file that was changed lately is given a minute."""
    running = Daemon(make_root(tmp_path_factory.mktemp("shared")), INBOX__GRACE_SECONDS=60, INBOX__RESCAN_SECONDS=1)
    try:
        yield running.wait_ready()
    finally:
        running.close()


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """The process that forks all daemons."""
    return shared_nursery()


def peak_of(work: Callable[[], object]) -> int:
    """How many bytes Python takes at most for this, beyond what it had."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
