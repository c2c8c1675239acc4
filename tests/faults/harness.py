"""The driver of the fault suite: drops files, runs and hurts the daemon, checks from outside what became of every file."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import fcntl
import hashlib
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.folders import Folder, rename_to_free_name
from daemon.models.registry import Registry

REPOSITORY = Path(__file__).parent.parent.parent
FULL = os.environ.get("FAULTS") == "full"  # `make faults`; the short form is part of `make test`
DEADLINE = 60.0  # seconds to wait for what takes one: machines that run tests are busy
FOLDERS = ("inbox", "work", "results", "processed", "rejected")
OURS = {".lock", ".daemon.json"}  # in work/
EXT4_IOC_SHUTDOWN = 0x8004587D  # linux/ext4.h
LOG_FLUSH, NO_LOG_FLUSH = 1, 2  # its arguments: the journal is written before the lights go out, or is not
FILE_CHANGING = (  # every system call by which a file system can change
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,mknod,mknodat,creat,open,openat,"
    "write,pwrite64,writev,pwritev,sendfile,copy_file_range,truncate,ftruncate,fallocate,"
    "fsync,fdatasync,syncfs,sync_file_range,chmod,fchmod,fchmodat,chown,fchown,utimensat"
)


class Violation(AssertionError):
    """The daemon broke its promise."""


def chances(seed: int) -> random.Random:
    """Random moments and choices that a seed repeats."""
    return random.Random(seed)  # noqa: S311 -- nothing secret depends on it


def until(condition: Callable[[], Any], seconds: float = DEADLINE, what: str = "") -> Any:
    """Look until the condition holds, and return what it gave."""
    began = time.monotonic()
    while not (value := condition()):
        if time.monotonic() > began + seconds:
            raise Violation(f"not within {seconds:.0f} s: {what or condition}")
        pause(began)
    return value


def pause(began: float) -> None:
    """Between two looks; the longer it took, the longer, for whoever asks for metrics all the time keeps a core busy."""
    time.sleep(min(max(0.01, (time.monotonic() - began) / 50), 0.2))


# What is dropped


def png(number: int, side: int = 28) -> bytes:
    """A small digit (a one) as PNG, of different bytes for each number."""
    row = bytearray(side)
    row[side // 2 - 1 : side // 2 + 1] = b"\xff\xff"
    blank = b"\0" + bytes(side)
    quarter = side // 5
    lines = blank * quarter + (b"\0" + bytes(row)) * (side - 2 * quarter) + blank * quarter
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        + chunk(b"tEXt", b"Comment\0%d" % number)
        + chunk(b"IDAT", zlib.compress(lines, 1))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


NOT_AN_IMAGE = b"this is no image, number %d\n"


@dataclass
class Drops:
    """Every file that was dropped: the (name, content) pairs that must each come to exactly one end."""

    inbox: Path
    dropped: dict[str, list[str]] = field(default_factory=dict)  # sha256 -> names
    count: int = 0

    def drop(self, name: str, content: bytes) -> str:
        """Put one file into the inbox, as whole as a careful program does: written beside it, then renamed in."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.dropping"
        temporary.write_bytes(content)
        with Folder(path.parent) as folder:  # a name that was free is taken again where the daemon puts a young file back
            if not rename_to_free_name(folder, temporary.name, folder, path.name):
                path = path.with_name(f"{self.count}-{path.name}")
                temporary.rename(path)
        self.note(str(path.relative_to(self.inbox)), content)
        return name

    def note(self, name: str, content: bytes) -> None:
        """Remember a file that was dropped in another way."""
        self.dropped.setdefault(hashlib.sha256(content).hexdigest(), []).append(name)
        self.count += 1

    def drop_digits(self, count: int, folder: str = "") -> list[str]:
        """Put so many images, of different bytes, into the inbox."""
        return [self.drop(f"{folder}d{self.count:06d}.png", png(self.count)) for _ in range(count)]

    def drop_mixture(self) -> list[str]:
        """A few of everything that walks differently: inline, sub-folder, taken name, refused, more than a handful."""
        number = self.count
        names = [
            self.drop(f"m{number}.png", png(number)),
            self.drop(f"sub{number}/deep/m.png", png(number + 1)),
            self.drop("same.png", png(number + 2)),
            self.drop(f"m{number}.txt", NOT_AN_IMAGE % number),
            self.drop("same.txt", NOT_AN_IMAGE % (number + 1)),
        ]
        return names + self.drop_digits(12)

    def persist(self) -> None:
        """Make what was dropped survive a power cut: what a dropper that is told "done" has done."""
        descriptor = os.open(self.inbox, os.O_RDONLY)
        try:
            if ctypes.CDLL(None).syncfs(descriptor) != 0:
                raise OSError("syncfs")
        finally:
            os.close(descriptor)


# What became of it


def lay_out(root: Path, model: Path | None = None) -> Path:
    """Make a root with the shipped configuration, no data set, and the shipped model or the one in a folder."""
    for name in (*FOLDERS, "models"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "config.toml", root)
    for name in ("v0001.h5", "v0001.json"):
        shutil.copy((model or REPOSITORY / "models") / name, root / "models")
    if model:  # so that it need not be vetted
        registry = Registry(root / "models")
        registry.ledger.record("made", "v0001", "for a test", sha256=registry.manifest("v0001").sha256)
    return root


def files_below(folder: Path, hidden: bool = False) -> list[Path]:
    """All files of a folder and its sub-folders; hidden ones only where asked for."""
    found = []
    for parent, folders, names in os.walk(folder):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if hidden or not name.startswith(".")]
    return found


def where_everything_is(root: Path) -> dict[str, list[Path]]:
    """The digest of every original, and where it lies."""
    places: dict[str, list[Path]] = {}
    for folder in ("inbox", "work", "processed", "rejected"):
        for path in files_below(root / folder):
            if folder == "rejected" and is_rejection(path):
                continue
            with contextlib.suppress(FileNotFoundError):
                places.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path)
    return places


def is_rejection(path: Path) -> bool:
    """Whether a file in rejected/ is a JSON beside an original."""
    return path.suffix == ".json"


def answers(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every JSON in results/ or rejected/, parsed; one that is not whole is a violation."""
    found = {}
    for path in files_below(folder):
        if folder.name == "rejected" and not is_rejection(path):
            continue
        found[path] = parse(path, path.read_bytes())
    return found


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """Parse a result or rejection, which must be whole."""
    try:
        answer = json.loads(content)
        if not content.endswith(b"}\n") or answer["schema"] != 1:
            raise ValueError("incomplete")
    except (ValueError, KeyError, TypeError) as error:
        raise Violation(f"{path} is not whole: {error}: {content[:80]!r}") from error
    return answer


def check_nothing_lost(root: Path, drops: Drops, cut: bool = False) -> None:
    """At any moment, also right after a crash: every file is in exactly one place, and has its JSON where it is retired.

    Args:
        root: the folder of the daemon.
        drops: what was dropped.
        cut: a power cut came before: the JSON of an original that is still in work/ may be empty.

    """
    places = where_everything_is(root)
    told: Counter[str] = Counter()
    for folder in ("results", "rejected"):
        for path in files_below(root / folder):
            if folder == "rejected" and not is_rejection(path):
                continue
            content = path.read_bytes()
            if cut and not content.strip(b"\0"):
                continue
            told[parse(path, content)["sha256"]] += 1
    for digest, names in drops.dropped.items():
        lie = places.get(digest, [])
        if len(lie) != len(names):
            raise Violation(f"{names} should be in {len(names)} place(s) and lies in {lie}")
        for path in lie:
            if path.relative_to(root).parts[0] in ("processed", "rejected") and not told[digest]:
                raise Violation(f"{path} is retired and has no JSON")


def check_all_done(root: Path, drops: Drops, killed: bool = False) -> None:
    """At the end: every drop in exactly one of processed/ and rejected/, with exactly one JSON, and nothing left over.

    Args:
        root: the folder of the daemon.
        drops: what was dropped.
        killed: who writes results was killed before: what he had half-written is left, until it is an hour old.

    """
    check_nothing_lost(root, drops)
    for folder in ("inbox", "work"):
        left = [path for path in files_below(root / folder, hidden=True) if path.name not in OURS]
        if left:
            raise Violation(f"left over: {left[:5]}, {len(left)} in all")
    folders_left = [path for path in (root / "work").iterdir() if path.is_dir()]
    if folders_left:
        raise Violation(f"empty folders left in work/: {folders_left[:5]}")
    temporaries = [*(root / "results/.tmp").iterdir(), *(root / "rejected/.tmp").iterdir()]
    if temporaries and not killed:
        raise Violation(f"temporary files left: {temporaries[:5]}")
    places = where_everything_is(root)
    for outcome, folder in (("results", "processed"), ("rejected", "rejected")):
        told = Counter(answer["sha256"] for answer in answers(root / outcome).values())
        lie = Counter(digest for digest, paths in places.items() for path in paths if (root / folder) in path.parents)
        if told != lie:
            difference = (told - lie) + (lie - told)
            raise Violation(f"{outcome}/ and {folder}/ disagree on {len(difference)} files, such as {list(difference)[:3]}")
    if sum(map(len, places.values())) != drops.count:
        raise Violation(f"{drops.count} files were dropped and {sum(map(len, places.values()))} are there")


def is_settled(root: Path) -> bool:
    """Whether inbox/ and work/ hold nothing more to do."""
    return not files_below(root / "inbox") and not files_below(root / "work")


class Reader(threading.Thread):
    """Another program that reads every JSON as soon as it appears."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.violation, self.read = root, "", 0
        self._leave = threading.Event()
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self.join()
        if self.violation:
            raise Violation(self.violation)

    def run(self) -> None:
        while not self._leave.is_set() and not self.violation:
            self._look(self.root / "results")

    def _look(self, folder: Path) -> None:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.path in self._seen:
                    continue
                self._seen.add(entry.path)
                if entry.is_dir():
                    continue
                try:
                    parse(Path(entry.path), Path(entry.path).read_bytes())
                    self.read += 1
                except FileNotFoundError:
                    continue
                except Violation as violation:
                    self.violation = str(violation)


# The daemon


class Nursery:
    """Starts daemons without paying for their imports each time."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DIGITD_")}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""},
        )
        self._lock = threading.Lock()
        self._answer()
        self._models = tempfile.TemporaryDirectory(prefix="digitd-model-")
        self._model: Path | None = None
        self._code: Path | None = None

    def with_code(self, code: Path) -> Nursery:
        """The same nursery, for daemons of another `daemon` package: a copy with a seeded error."""
        variant = copy.copy(self)
        variant._code = code
        return variant

    @property
    def model(self) -> Path:
        """A folder with the model for tests to which any will do.

        It is of one layer: loading and tracing the shipped one, twice, is most of what a start costs.
        """
        if self._model is None:
            folder = Path(self._models.name)
            self.ask(make_model=str(folder / "v0001.h5"))
            manifest = json.loads((REPOSITORY / "models/v0001.json").read_bytes())
            manifest["sha256"] = hashlib.sha256((folder / "v0001.h5").read_bytes()).hexdigest()
            (folder / "v0001.json").write_text(json.dumps(manifest))
            self._model = folder
        return self._model

    def ask(self, **request: Any) -> Any:
        """Send a request, and return what it gave."""
        assert self._process.stdin is not None
        if "run" in request and self._code:
            request["run"]["code"] = str(self._code)
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def close(self) -> None:
        """End it; the daemons that it started are ended by those who started them."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._models.cleanup()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the nursery died; is the daemon importable?")
        return json.loads(line)


FAST = {
    "DIGITD_HTTP__PORT": "0",
    "DIGITD_INBOX__RESCAN_SECONDS": "1.0",
    "DIGITD_INBOX__GRACE_SECONDS": "0.5",
    "DIGITD_INFERENCE__SYNC_SECONDS": "0.1",
}


class Daemon:
    """One run of the daemon on a root, as its own process.

    Args:
        nursery: where it is born.
        root: its folder.
        environment: overrides of the configuration, beside those that make tests quick.
        log: the file that gets what it says; one that is removed when all went well unless given.
        presence: where it says who runs.
        limits: what it may not do: `deny_inotify`, `obey_modes`; and `arguments` of the command.

    """

    def __init__(
        self,
        nursery: Nursery,
        root: Path,
        environment: dict[str, str] | None = None,
        log: Path | None = None,
        presence: str = "work/.daemon.json",
        **limits: Any,
    ) -> None:
        self.root, self._nursery = root, nursery
        self.log = log or Path(tempfile.mkstemp(prefix="digitd-", suffix=".log")[1])
        self._environment = FAST | (environment or {})
        self._presence, self._limits = presence, limits
        self.pid = 0
        self.drops = Drops(root / "inbox")
        self.idle_mb = 0.0  # resident memory when it had nothing to do; noted by tests
        self._pidfd = -1
        self._address = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.alive:
            self.stop() if kind is None else self.kill()
        if kind is None:
            self.log.unlink(missing_ok=True)
        else:
            print(f"--- {self.log}\n{self.log.read_text(errors='replace')[-4000:]}", file=sys.stderr)

    def start(self, ready: bool = True) -> Self:
        """Start it, and wait until it is ready."""
        run = {"config": str(self.root / "config.toml"), "environment": self._environment, "log": str(self.log)}
        self.pid = self._nursery.ask(run=run | self._limits)["pid"]
        self._pidfd = os.pidfd_open(self.pid)
        if ready:
            until(lambda: not self.alive or self.ready, what="/readyz says yes")
            if not self.alive:
                raise Violation(f"the daemon ended while it started:\n{self.log.read_text(errors='replace')[-2000:]}")
        return self

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]

    @property
    def address(self) -> str:
        """Host and port that it serves on; empty while it says none."""
        if not self._address:
            with contextlib.suppress(OSError, ValueError, KeyError):
                holder = json.loads((self.root / self._presence).read_text())
                if holder["pid"] == self.pid:
                    self._address = holder["address"]
        return self._address

    def get(self, path: str, seconds: float = 5.0) -> tuple[int, str]:
        """The status and body of a GET; (0, error) where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=seconds) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, ValueError) as error:
            return 0, str(error)

    @property
    def ready(self) -> bool:
        """Whether /readyz says yes."""
        return bool(self.address) and self.get("/readyz")[0] == 200

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        status, text = self.get("/metrics", 10.0)
        if status != 200:
            raise Violation(f"/metrics: {status}: {text}")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def family(self) -> list[int]:
        """The processes of this daemon: itself, then all that descend from it."""
        parents = {}
        for entry in names_in("/proc"):
            if entry.isdigit():
                parents[int(entry)] = parent_of(int(entry))
        found = [self.pid]
        for pid in found:
            found += sorted(child for child, parent in parents.items() if parent == pid)
        return found

    @property
    def workers(self) -> list[int]:
        """The decoder processes: children of the child that forks them."""
        return [pid for pid in self.family[1:] if parent_of(pid) != self.pid]

    @property
    def memory_mb(self) -> float:
        """Resident memory of the main process, in MiB."""
        return resident_mb(self.pid)

    @property
    def threads(self) -> int:
        """How many threads the main process has."""
        return len(threads_of(self.pid))

    def settle(self, seconds: float = DEADLINE) -> None:
        """Wait until everything that was dropped has come to its end, and work/ is swept."""
        work = self.root / "work"
        until(
            lambda: not self.alive or (is_settled(self.root) and {path.name for path in work.iterdir()} <= OURS),
            seconds,
            f"inbox/ and work/ of {self.root} are empty",
        )
        if not self.alive:
            raise Violation(f"the daemon died:\n{self.log.read_text(errors='replace')[-2000:]}")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let its main process do nothing while the block runs."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: not self.alive, what="the daemon ends on SIGTERM")
        return self._reap()

    def stop_code(self) -> int:
        """The exit code of one that has ended by itself."""
        return self._reap()

    def kill(self) -> None:
        """Kill -9 the main process, and see its decoders end by themselves."""
        family = self.family
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait_dead(family)

    def wait_dead(self, family: Sequence[int] = ()) -> None:
        """Wait until it has ended, and those of its family too."""
        until(lambda: not self.alive, what="the daemon ends")
        self._reap()
        self.wait_gone(family)

    @staticmethod
    def wait_gone(family: Sequence[int]) -> None:
        """Wait until none of these processes is there any more."""
        left: dict[int, str] = {}

        def gone() -> bool:
            left.clear()
            left.update((pid, describe(pid)) for pid in family if is_running(pid))
            return not left

        try:
            until(gone)
        except Violation as late:
            raise Violation(f"stayed behind for {DEADLINE:.0f} s: {left}") from late

    def _reap(self) -> int:
        os.close(self._pidfd)
        self._pidfd, self._address = -1, ""
        return os.waitstatus_to_exitcode(self._nursery.ask(wait=self.pid)["status"])


def threads_of(pid: int) -> list[int]:
    """The thread ids of a process, in the order in which they were made."""
    return sorted(map(int, names_in(f"/proc/{pid}/task")))


def names_in(folder: Path | str) -> list[str]:
    """What a folder holds, as names."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def parent_of(pid: int) -> int:
    """The process that started it; 0 where it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def describe(pid: int) -> str:
    """What a process is, and what it waits for."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{command[:200]!r}, state {state[0]}, nice {state[16]}"
    return "gone"


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


# What hurts it


@contextlib.contextmanager
def traced(
    threads: Sequence[int], *injections: str, trace: str = FILE_CHANGING, log: Path | None = None, paths: Sequence[str] = ()
) -> Iterator[Path]:
    """Attach strace to threads or processes while the block runs, with faults injected into their system calls.

    Args:
        threads: by id; of one alone only that thread is traced, of several their new threads and children too.
        injections: what strace's `inject=` takes.
        trace: kinds of calls to look at.
        log: where to write the calls.
        paths: look only at calls that name one of these, or a file opened by that name.

    """
    own_log = log or Path(tempfile.mkstemp(prefix="strace-")[1])
    command = ["strace", "-y", "-s", "200", "-o", str(own_log), "-e", f"trace={trace}", "-e", "signal=none"]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    for thread in threads:
        command += ["-p", str(thread)]
    for path in paths:
        command += ["-P", path]
    if len(threads) != 1:
        command.insert(1, "-f")
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said)
        try:
            until(
                lambda: process.poll() is not None or all(is_traced(t, process.pid) for t in threads),
                20.0,
                "strace attaches",
            )
            yield own_log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if log is None:
                own_log.unlink(missing_ok=True)


def is_traced(thread: int, tracer: int) -> bool:
    """Whether `tracer` is attached to a thread."""
    try:
        return f"TracerPid:\t{tracer}\n" in Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return True  # it has ended: there is nothing to wait for


@contextlib.contextmanager
def mounted(kind: str, options: str = "", megabytes: int = 64) -> Iterator[Path]:
    """A file system of its own while the block runs: "tmpfs", or "ext4" on a loop device."""
    folder = Path(tempfile.mkdtemp(prefix=f"digitd-{kind}-"))
    point = folder / "mount"
    point.mkdir()
    try:
        if kind == "tmpfs":
            shell("mount", "-t", "tmpfs", *(["-o", options] if options else []), "tmpfs", str(point))
        else:
            image = make_ext4(folder, megabytes)
            shell("mount", "-o", "loop", str(image), str(point))
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=False) or None
        if os.path.ismount(point):
            shell("umount", "-l", str(point))
        shutil.rmtree(folder, ignore_errors=True)


def make_ext4(folder: Path, megabytes: int) -> Path:
    """An image of an empty ext4; in memory where that can be."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    shell("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-N", "100000", str(image))
    return image


def cut_power(point: Path, flags: int) -> None:
    """Make a mounted ext4 lose everything that is not on its disk."""
    descriptor = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", flags))
    finally:
        os.close(descriptor)


def fill(path: Path) -> None:
    """Take all the room that a disk has."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def shell(*command: str) -> str:
    """Run a command that must succeed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout


def why_no_root() -> str:
    """Why tests that mount or trace cannot run here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    for program in ("strace", "mkfs.ext4", "mount", "unshare"):
        if not shutil.which(program):
            return f"needs {program}"
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False, capture_output=True)
    return "" if probe.returncode == 0 else "may not mount file systems here"


needs_root = pytest.mark.skipif(bool(why_no_root()), reason=why_no_root() or "-")
