"""`make bench`: the real daemon, driven from outside, against its limits and the tutorial script.

Everything is measured in turn within one run, because machines are noisy: trust the ratios, and CPU more than wall time.
Prints a table, writes it as JSON, and draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PAUSE = 0.05  # seconds between two single drops


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000], help="burst sizes (default: 1000 10000)")
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000], help="burst sizes of 600x800 JPEGs (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turn (default: 3)")
    parser.add_argument("--drops", type=int, default=300, help="single drops for the latency (default: 300)")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where to write the figures")
    parser.add_argument("--picture", type=Path, default=Path("build/bench.png"), help="where to draw them")
    parser.add_argument("--swaps", type=int, default=20, help="model swaps among single drops (default: 20)")
    parser.add_argument("--limits", type=Path, help=argparse.SUPPRESS)  # a child that measures what one process could do
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)  # a child that is the tutorial script
    parser.add_argument("--bare-start", action="store_true", help=argparse.SUPPRESS)  # a child that only loads the model
    options = parser.parse_args()
    if options.limits:
        print(json.dumps(measure_limits(options.limits)))
        return 0
    if options.peer:
        inbox, results, call = options.peer
        tutorial_script(Path(inbox), Path(results), call)
        return 0
    if options.bare_start:
        warm_model()
        os._exit(0)  # without tidying up
    with fresh_file_system() as folder:
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"load before: {os.getloadavg()[0]:.1f}; files on {'a fresh ext4' if folder.is_mount() else folder}\n")
        figures = measure(folder, options)
    print_table(figures)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    from benchmarks.picture import draw  # here, for the children whose start is measured need no matplotlib

    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(figures, options.picture)
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """All figures: by name, one dictionary a round."""
    figures: dict[str, list[dict[str, float]]] = {}
    images = Images()
    (folder / "files").mkdir()
    for number in range(1_000):
        (folder / "files" / f"{number}.png").write_bytes(images.png(number))
    for round_ in range(options.rounds):
        with Daemon(folder / f"root{round_}", RETRAIN__AFTER_CORRECTIONS=20, RETRAIN__QUIET_SECONDS=0.1) as daemon:
            note(figures, "start", measure_start(daemon))
            before = note_limits(figures, folder / "files")
            for count in options.files:
                burst = daemon.burst(images.png, count)
                after = note_limits(figures, folder / "files")
                note(figures, f"burst of {count:,} PNGs", burst | compare(burst, before, after))
                before = after
            for count in options.scans:
                note(figures, f"burst of {count:,} scans", daemon.burst(images.scan, count))
            bare, drops = measure_singles(daemon, images, options.drops)
            note(figures, "one bare predict_on_batch", bare)
            note(figures, "single drops", drops)
            note(figures, "single drops across swaps", daemon.latencies(images, options.drops, options.swaps))
            daemon.train(images)
            note(figures, "single drops while training", daemon.latencies(images, options.drops))
        shutil.rmtree(daemon.root)
        note(figures, "tutorial script", measure_peer(folder / f"peer{round_}", images, 100, "predict"))
        peer = measure_peer(folder / f"quick{round_}", images, 1_000, "predict_on_batch")
        note(figures, "tutorial script, predict_on_batch", peer)
    return figures


def note_limits(figures: dict[str, list[dict[str, float]]], files: Path) -> dict[str, float]:
    """Measure what one process could do now, and note it."""
    limits = in_child("--limits", files)
    for name, values in limits.items():
        note(figures, name, values)
    return limits["limit, one core"]


def in_child(*arguments: object) -> Any:
    """What a process of its own measures, as it prints it."""
    command = [sys.executable, "-m", "benchmarks.speed", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=REPOSITORY).stdout)


def compare(burst: dict[str, float], before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """A burst against the mean of one core's limits just before and just after it: a host's speed drifts within minutes."""
    limit = {key: (before[key] + after[key]) / 2 for key in before}
    larger = max(limit["us decoding"] + limit["us predicting"], limit["us of files"])
    return {
        "CPU / limit's sum": burst["us of CPU a file"] / limit["us in all"],
        "time / limit's sum": burst["us a file"] / limit["us in all"],
        "time / limit's larger part": burst["us a file"] / larger,
    }


def measure_start(daemon: Daemon) -> dict[str, float]:
    """Seconds from a process' start to its being ready, against Keras loading and warming the same model alone."""

    def run(*arguments: object) -> float:
        began = time.monotonic()
        command = [sys.executable, "-m", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
        return time.monotonic() - began

    bare = run("benchmarks.speed", "--bare-start")
    return {
        "seconds": daemon.started,
        "seconds of Keras alone": bare,
        "ratio": daemon.started / bare,
        "digitd --help s": run("daemon", "--help"),
        "digitd status s": run("daemon", "status", "-c", daemon.root / "config.toml"),
        "MB at idle": daemon.memory() / 2**20,
    }


@cache
def warm_model() -> Callable[[np.ndarray], np.ndarray]:
    """What must be done before a Keras model can answer, and nothing else; gives what asks it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import keras  # not the daemon's: with TensorFlow as it is by itself

    model = keras.models.load_model(REPOSITORY / "models" / "v0001.h5", compile=False)
    for size in (1, 8, 32, 128, 256):
        model.predict_on_batch(np.zeros((size, 28, 28, 1), np.float32))
    predict: Callable[[np.ndarray], np.ndarray] = model.predict_on_batch
    return predict


def measure_singles(daemon: Daemon, images: Images, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """A single drop and a bare prediction in turn, each after PAUSE, so that what else the machine does meets both."""
    drops, bare = [], []
    with ProcessPoolExecutor(1, get_context("spawn")) as child:
        child.submit(predict_alone, images.pixels(0)).result()  # by which it has loaded and warmed the model
        for number in range(count):
            drops.append(daemon.latency(images, number))
            time.sleep(PAUSE)
            bare.append(child.submit(predict_alone, images.pixels(number)).result())
    return describe_waits(bare), describe_waits(drops)


def predict_alone(pixels: np.ndarray) -> float:
    """The ms that Keras takes for a lone image, without a file or anything else."""
    predict = warm_model()
    batch = pixels[None, ..., None].astype(np.float32) / 255
    began = time.perf_counter()
    predict(batch)
    return 1e3 * (time.perf_counter() - began)


def note(figures: dict[str, list[dict[str, float]]], name: str, values: dict[str, float]) -> None:
    """Keep a measurement, and say that it was made."""
    figures.setdefault(name, []).append(values)
    print(f"  {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True)


def describe_waits(waits: list[float]) -> dict[str, float]:
    """What single drops waited, in ms."""
    return {f"p{share} ms": float(np.percentile(waits, share)) for share in (50, 95, 99)} | {"slowest ms": max(waits)}


def print_table(figures: dict[str, list[dict[str, float]]]) -> None:
    """Medians, with the least and the most."""
    print(f"\n{'':<54} {'median':>12} {'least':>10} {'most':>10}")
    for name, rounds in figures.items():
        for key in rounds[0]:
            values = [values[key] for values in rounds]
            print(f"{f'{name}: {key}':<56} {statistics.median(values):>10.4g} {min(values):>10.4g} {max(values):>10.4g}")


class Images:
    """MNIST's images as files: as they are, or as dark ink on a scanned page."""

    def __init__(self, part: str = "x_test") -> None:
        with np.load(REPOSITORY / "datasets" / "mnist.npz") as arrays:
            self._pixels, self._digits = arrays[part], arrays[part.replace("x", "y")]
        self._scans: list[bytes] = []

    def png(self, number: int) -> bytes:
        """A 28 x 28 PNG."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels(number)).save(buffer, "PNG")
        return buffer.getvalue()

    def pixels(self, number: int) -> np.ndarray:
        """What such a PNG shows: (28, 28) uint8."""
        pixels: np.ndarray = self._pixels[number % len(self._pixels)]
        return pixels

    def label(self, number: int) -> int:
        """The digit that it shows."""
        return int(self._digits[number])

    def scan(self, number: int) -> bytes:
        """A 600 x 800 JPEG; 200 different ones."""
        while len(self._scans) <= number % 200:
            random = np.random.default_rng(len(self._scans))
            digit = Image.fromarray(255 - self._pixels[len(self._scans)]).resize((360, 360), Image.Resampling.BICUBIC)
            page = Image.new("L", (600, 800), 255)
            page.paste(digit, (int(random.integers(0, 240)), int(random.integers(0, 440))))
            buffer = io.BytesIO()
            page.save(buffer, "JPEG", quality=85)
            self._scans.append(buffer.getvalue())
        return self._scans[number % 200]


class Daemon:
    """`digitd run` on a fresh root."""

    def __init__(self, root: Path, **overrides: object) -> None:
        self.root = root
        self.command: tuple[str, ...] = ("run",)
        self.environment = os.environ | {"DIGITD_HTTP__PORT": "0"}
        self.environment |= {f"DIGITD_{key}": str(value) for key, value in overrides.items()}
        subprocess.run([sys.executable, "-m", "daemon", "init", root], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
        self._count = 0

    def __enter__(self) -> Daemon:
        began = time.monotonic()
        command = [sys.executable, "-m", "daemon", *self.command, "-c", self.root / "config.toml"]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, env=self.environment, cwd=REPOSITORY)
        while not self._is_ready():
            if self._process.poll() is not None:
                raise SystemExit((self.root / "log").read_text())
            time.sleep(0.01)
        self.started = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send the daemon itself a signal."""
        self._process.send_signal(number)

    def metrics(self) -> str:
        """What /metrics says."""
        address = json.loads((self.root / "work" / ".daemon.json").read_text())["address"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
            text: str = response.read().decode()
        return text

    def burst(self, make: Callable[[int], bytes], count: int) -> dict[str, float]:
        """Rename `count` files into the inbox at once; until the last result exists."""
        self._count += 1
        prefix = f"b{self._count}-"
        staged = self.root / "staged"
        staged.mkdir()
        for number in range(count):
            (staged / f"{prefix}{number}.img").write_bytes(make(number))
        os.sync()
        before = self._results()
        peak = Peak(self)
        cpu, began = self.cpu_seconds(), time.monotonic()
        names = os.listdir(staged)
        for name in names:
            os.rename(f"{staged}/{name}", f"{self.root}/inbox/{name}")
        late = [f"{self.root}/results/{name}.json" for name in (names[-1], max(names))]
        # All are counted only once the likely last ones are there: who lists a folder keeps others from writing to it.
        while not all(map(os.path.exists, late)) or self._results() < before + count:
            time.sleep(0.01)
        seconds = time.monotonic() - began
        cpu = self.cpu_seconds() - cpu
        shutil.rmtree(staged)
        return {
            "files/s": count / seconds,
            "us a file": 1e6 * seconds / count,
            "us of CPU a file": 1e6 * cpu / count,
            "peak MB": peak.stop() / 2**20,
        }

    def latencies(self, images: Images, count: int, swaps: int = 0) -> dict[str, float]:
        """Single drops at idle, one each PAUSE: from the rename to the visible result; so many swaps among them."""
        waits = []
        due = [round((at + 0.5) * count / swaps) for at in range(swaps)]
        for number in range(count):
            if number in due:
                self.swap()
            waits.append(self.latency(images, number))
        return describe_waits(waits)

    def latency(self, images: Images, number: int) -> float:
        """A single drop after PAUSE: ms from the rename to the visible result."""
        self._count += 1
        name = f"single{self._process.pid}-{self._count}.png"
        (self.root / "one").write_bytes(images.png(number))
        result = f"{self.root}/results/{name}.json"
        time.sleep(PAUSE)
        began = time.perf_counter()
        os.rename(self.root / "one", f"{self.root}/inbox/{name}")
        while not os.path.exists(result):
            time.sleep(0.0001)
        return 1e3 * (time.perf_counter() - began)

    def swap(self) -> None:
        """Make the daemon go to the other of two versions that differ in their last digits."""
        models = self.root / "models"
        if not (models / "v0002.h5").exists():
            make_other_version(models)
        other = "v0001" if os.readlink(models / "current.h5") == "v0002.h5" else "v0002"
        (models / "next").symlink_to(f"{other}.h5")
        (models / "next").rename(models / "current.h5")

    def train(self, images: Images) -> None:
        """Give corrections that make the daemon retrain; come back when it has begun to fit."""
        folder = self.root / "corrections" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        ones = [number for number in range(1_000) if images.label(number) == 1]
        for number in ones[:40]:
            (folder / f"{number}.png").write_bytes(images.png(number))
        while not any((self.root / "logs").glob("tensorboard/*/train")):
            time.sleep(0.2)

    def pids(self) -> list[int]:
        """The daemon and all that it started."""
        return self.family(self._process.pid)

    @staticmethod
    def family(first: int) -> list[int]:
        """A process and all that it started."""
        found = [first]
        for pid in found:
            with contextlib.suppress(OSError):  # it has just ended
                for task in list(Path(f"/proc/{pid}/task").glob("*/children")):
                    found += [int(child) for child in task.read_text().split()]
        return found

    @property
    def has_ended(self) -> bool:
        """Whether the daemon itself has, by whatever."""
        return self._process.poll() is not None

    def cpu_seconds(self) -> float:
        """User and system time of all processes; of ended children too."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += sum(int(field) for field in fields[11:15])
        return total / TICK

    def memory(self) -> float:
        """Bytes of all processes together; what they share is counted once."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        return total

    def resident(self) -> int:
        """Bytes of the main process alone that are in memory."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _results(self) -> int:
        return sum(1 for _ in os.scandir(self.root / "results"))

    def _is_ready(self) -> bool:
        try:
            address = json.loads((self.root / "work" / ".daemon.json").read_text())["address"]
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, ValueError, KeyError):
            return False


class Peak(threading.Thread):
    """The most memory that the daemon's processes had at once."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._of, self._most, self._ended = daemon, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        """Look twice a second."""
        while not self._ended.wait(0.5):
            self._most = max(self._most, self._of.memory())

    def stop(self) -> float:
        """Bytes."""
        self._ended.set()
        self.join()
        return max(self._most, self._of.memory())


def measure_limits(files: Path) -> dict[str, dict[str, float]]:
    """In one process on one core: the same decoding and model without files, and the same renames without a model."""
    from daemon.models.live import limit_threads, load
    from daemon.models.registry import Registry
    from daemon.reading.content import InvalidImage
    from daemon.reading.decode import decode, images_of

    limit_threads(1)
    began = time.process_time()
    model = load(Registry(REPOSITORY / "models").version("v0001"))
    loaded = time.process_time() - began
    contents = [path.read_bytes() for path in files.iterdir()][:768]
    decoded, predicted = [], []
    for _ in range(5):
        began = time.process_time()
        pictures = images_of([decode(content, 10**8) for content in contents])
        pixels = np.stack([picture.pixels for picture in pictures if not isinstance(picture, InvalidImage)])
        decoded.append(time.process_time() - began)
        began = time.process_time()
        model.predict(pixels)
        predicted.append(time.process_time() - began)
    with tempfile.TemporaryDirectory(dir=files.parent) as folder:
        for name in ("inbox", "work", "results", "processed"):
            (Path(folder) / name).mkdir()
        for number in range(1_000):
            (Path(folder) / "inbox" / str(number)).touch()
        began = time.process_time()
        for number in range(1_000):
            os.rename(f"{folder}/inbox/{number}", f"{folder}/work/{number}")
            descriptor = os.open(f"{folder}/results/.tmp", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, bytes(600))
            os.close(descriptor)
            os.rename(f"{folder}/results/.tmp", f"{folder}/results/{number}")
            os.rename(f"{folder}/work/{number}", f"{folder}/processed/{number}")
        moved = time.process_time() - began
    count = len(contents)
    decode_seconds, predict_seconds = statistics.median(decoded), statistics.median(predicted)
    return {
        "limit, one core": {
            "us decoding": 1e6 * decode_seconds / count,
            "us predicting": 1e6 * predict_seconds / count,
            "us of files": 1e6 * moved / 1_000,
            "us in all": 1e6 * ((decode_seconds + predict_seconds) / count + moved / 1_000),
        },
        "load_model and warm-up": {"CPU seconds": loaded},
    }


def make_other_version(models: Path) -> None:
    """A v0002 that is v0001 but for one weight, a little."""
    import h5py

    from daemon.files import file_sha256

    path = models / "v0002.h5"
    shutil.copy(models / "v0001.h5", path)
    with h5py.File(path, "r+") as file:
        weights: list[h5py.Dataset] = []
        file["model_weights"].visititems(lambda _, item: weights.append(item) if isinstance(item, h5py.Dataset) else None)
        weights[-1][...] = weights[-1][...] * 1.0001
    manifest = json.loads((models / "v0001.json").read_bytes())
    manifest |= {"version": "v0002", "sha256": file_sha256(path)}
    (models / "v0002.json").write_text(json.dumps(manifest))


def measure_peer(root: Path, images: Images, count: int, call: str) -> dict[str, float]:
    """The tutorial script on `count` files."""
    (root / "inbox").mkdir(parents=True)
    (root / "staged").mkdir()
    (root / "results").mkdir()
    for number in range(count):
        (root / "staged" / f"{number}.png").write_bytes(images.png(number))
    command = [sys.executable, "-m", "benchmarks.speed", "--peer", root / "inbox", root / "results", call]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    try:
        while not (root / "results" / "ready").exists():
            time.sleep(0.05)
        before, began = _cpu(process.pid), time.monotonic()
        for path in list((root / "staged").iterdir()):
            path.rename(root / "inbox" / path.name)
        while len(os.listdir(root / "results")) < count + 1:
            time.sleep(0.02)
        seconds = time.monotonic() - began
        return {"files/s": count / seconds, "us of CPU a file": 1e6 * (_cpu(process.pid) - before) / count}
    finally:
        process.kill()
        process.wait()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def tutorial_script(inbox: Path, results: Path, call: str) -> None:
    """What a tutorial would write: a watchdog handler that predicts each new file and dumps a JSON.

    With `predict` as most do it, or with `predict_on_batch`, as those do it who looked for what took so long.
    """
    import keras
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    model = keras.models.load_model(REPOSITORY / "models" / "v0001.h5", compile=False)

    class Handler(FileSystemEventHandler):
        def on_created(self, event: FileSystemEvent) -> None:
            path = Path(os.fsdecode(event.src_path))
            image = np.asarray(Image.open(path).convert("L").resize((28, 28)), np.float32)[None, ..., None] / 255
            probabilities = (model.predict(image, verbose=0) if call == "predict" else model.predict_on_batch(image))[0]
            with (results / f"{path.name}.json").open("w") as file:
                json.dump({"digit": int(probabilities.argmax()), "confidence": float(probabilities.max())}, file)

    observer = Observer()
    observer.schedule(Handler(), str(inbox))
    observer.start()
    (results / "ready").touch()
    observer.join()


@contextlib.contextmanager
def fresh_file_system(gib: int = 4, inodes: int = 1_000_000) -> Iterator[Path]:
    """A folder to measure in: on an ext4 of its own where that can be mounted, for an old one is up to 10 times slower."""
    with tempfile.TemporaryDirectory(prefix="digitd-bench-") as folder:
        image, mount = Path(folder) / "image", Path(folder) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(gib * 2**30)
        mounted = (
            os.geteuid() == 0
            and subprocess.run(["mkfs.ext4", "-q", "-N", str(inodes), image], check=False).returncode == 0
            and subprocess.run(["mount", "-o", "loop", image, mount], check=False).returncode == 0
        )
        try:
            yield mount
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", mount], check=False)  # the decoders may outlive the daemon for a moment


if __name__ == "__main__":
    sys.exit(main())
