"""`make growth`: a root with years behind it against an empty one: start, drops in turn, memory, a training's start.

A million answers, 100,000 corrections, a ledger of 3,000 versions, all real files; the model is the shipped one in both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.past import write_answers, write_corrections, write_index, write_versions
from benchmarks.speed import REPOSITORY, Daemon, Images, describe_waits, fresh_file_system, note, print_table

Asked = TypeVar("Asked")
DAY = 86400.0
SETTINGS = {"RETRAIN__CRON": "", "RETRAIN__AFTER_CORRECTIONS": 0}
MOST = {"seconds": 1.2, "p50 ms": 1.2, "p99 ms": 1.2}  # times that of the empty root
MOST_MB = 50.0  # more than the empty root
SETTLES = 20  # seconds
MOST_WAIT = 600  # seconds
MOST_START = 10.0  # seconds that a training's first batch comes later
DRAWN = ("SYNTHETIC_DIGITS", "SYNTHETIC_NO_DIGITS", "SCAN_VARIANTS")  # anew by each training, whatever the root


def main() -> int:
    """Measure, and say what is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=1_000_000, help="(default: 1000000)")
    parser.add_argument("--corrections", type=int, default=100_000, help="(default: 100000)")
    parser.add_argument("--versions", type=int, default=3_000, help="in the ledger (default: 3000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--drops", type=int, default=300, help="single drops a round (default: 300)")
    parser.add_argument("--grown", type=Path, help="a root that was grown before; it is used as it is, and kept")
    options = parser.parse_args()
    figures: dict[str, list[dict[str, float]]] = {}
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    with fresh_file_system(gib=4 + options.answers * 14 // 2**20, inodes=100_000 + options.answers * 5 // 2) as folder:
        roots = {"empty": folder / "empty", "grown": options.grown or folder / "grown"}
        if not options.grown:
            grow(roots["grown"], options.answers, options.corrections, options.versions)
        for round_ in range(options.rounds):
            measure(figures, dict(sorted(roots.items(), reverse=bool(round_ % 2))), options.drops)
        for round_ in range(options.rounds):
            for name, root in roots.items():
                note(figures, f"{name}: training by hand", measure_training_by_hand(root))
                note(figures, f"{name}: training by the daemon", measure_training_by_daemon(root, round_))
    print_table(figures)
    return judge(figures)


def grow(root: Path, answers: int, corrections: int, versions: int) -> None:
    """Give a root its past."""
    subprocess.run([sys.executable, "-m", "daemon", "init", root], check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    began = time.time()
    write_index(root / "index.sqlite", write_answers(root, answers, began - 1000 * DAY, began - DAY))
    write_corrections(root, corrections)
    write_versions(root / "models", versions)
    print(f"grown in {time.time() - began:.0f} s", flush=True)


def measure(figures: dict[str, list[dict[str, float]]], roots: dict[str, Path], drops: int) -> None:
    """One start of each, one after the other, and what follows; drops come in turn, so that noise is the same for both."""
    with contextlib.ExitStack() as stack:
        daemons = {}
        for name, root in roots.items():
            daemons[name] = daemon = stack.enter_context(Daemon(root, **SETTINGS))
            note(figures, f"{name}: start", {"seconds": daemon.started, "CPU seconds": daemon.cpu_seconds()})
            before = daemon.cpu_seconds()
            time.sleep(SETTLES)  # for what follows a start in the background
            note(figures, f"{name}: {SETTLES} s after it", {"CPU seconds": daemon.cpu_seconds() - before})
        images, waits = Images(), {name: list[float]() for name in daemons}
        for number in range(drops):
            for name, daemon in daemons.items():
                waits[name].append(daemon.latency(images, number))
        for name in daemons:
            note(figures, f"{name}: single drops", describe_waits(waits[name]))
        idle_since = {name: daemon.cpu_seconds() for name, daemon in daemons.items()}
        time.sleep(SETTLES)
        for name, daemon in daemons.items():
            idle = (daemon.cpu_seconds() - idle_since[name]) / SETTLES
            note(figures, f"{name}: memory", {"MB": daemon.memory() / 2**20, "idle CPU share": idle})


def measure_training_by_hand(root: Path) -> dict[str, float]:
    """Seconds from `digitd retrain` to its process' start and to its first batch, without what is drawn."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command: list[str | Path] = [sys.executable, "-m", "daemon", "retrain", "-c", root / "config.toml"]
    environment = os.environ | {f"DIGITD_TRAINING__{key}": "0" for key in DRAWN}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY, env=environment
        )

    process, waits = wait_for_training(root, start)
    process.terminate()
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return waits | {"CPU seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure_training_by_daemon(root: Path, number: int) -> dict[str, float]:
    """Seconds from a correction, that test image, to the start of the training for it, and to its first batch, likewise."""
    wanted = {"RETRAIN__AFTER_CORRECTIONS": 1, "RETRAIN__QUIET_SECONDS": 0.1} | {f"TRAINING__{key}": 0 for key in DRAWN}
    with Daemon(root, **SETTINGS | wanted) as daemon:
        time.sleep(SETTLES)
        before = daemon.cpu_seconds()
        (root / "one").write_bytes(Images().png(number))
        (root / "corrections" / "7").mkdir(exist_ok=True)
        asks = root / "corrections" / "7" / f"asks{number}.png"
        _, waits = wait_for_training(root, lambda: (root / "one").rename(asks))
        asks.unlink()  # its training is stopped now, and would be asked for again when the next round starts
        return waits | {"CPU seconds": daemon.cpu_seconds() - before}


def wait_for_training(root: Path, ask: Callable[[], Asked]) -> tuple[Asked, dict[str, float]]:
    """Ask for a training, and wait for its start and for its first batch."""
    shutil.rmtree(root / "logs" / "tensorboard", ignore_errors=True)
    there = set((root / "logs" / "training").glob("v*"))
    began = time.monotonic()
    asked = ask()

    def wait(happened: Callable[[], object]) -> float:
        while not happened():
            if time.monotonic() > began + MOST_WAIT:
                raise SystemExit(f"{root}: expected a training to begin. Received: none in {MOST_WAIT} s")
            time.sleep(0.05)
        return time.monotonic() - began

    start = wait(lambda: set((root / "logs" / "training").glob("v*")) - there)
    return asked, {"start s": start, "first batch s": wait(lambda: any((root / "logs").glob("tensorboard/*/train")))}


def judge(figures: dict[str, list[dict[str, float]]]) -> int:
    """Print each bound beside its figure; 1 where one is not kept."""

    def median(name: str, key: str) -> float:
        return statistics.median(values[key] for values in figures[name])

    failed = 0
    for name, key in (("start", "seconds"), ("single drops", "p50 ms"), ("single drops", "p99 ms")):
        ratio = median(f"grown: {name}", key) / median(f"empty: {name}", key)
        failed |= _say(f"{name}, {key}: grown / empty", ratio, MOST[key])
    more = median("grown: memory", "MB") - median("empty: memory", "MB")
    failed |= _say("memory: grown - empty, MB", more, MOST_MB)
    for who in ("by hand", "by the daemon"):
        later, soon = (median(f"{name}: training {who}", "first batch s") for name in ("grown", "empty"))
        failed |= _say(f"first batch {who}: grown - empty, s", later - soon, MOST_START)
    return failed


def _say(what: str, value: float, most: float) -> int:
    print(f"{what:<40} {value:8.2f}  at most {most:g}  {'' if value <= most else 'NOT KEPT'}")
    return int(value > most)


if __name__ == "__main__":
    sys.exit(main())
