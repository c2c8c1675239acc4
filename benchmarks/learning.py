"""What the retraining loop is worth, and what it costs, seen from outside on a real daemon.

`python -m benchmarks.learning stream` how many corrections of a shifted stream teach how much
`python -m benchmarks.learning swaps`  100 swaps under a steady load of files
`python -m benchmarks.learning worse`  a candidate that was taught wrongly
`python -m benchmarks.learning kills`  kill -9 of trainer and daemon at 50 random moments
`python -m benchmarks.learning latency` single drops while a training runs, against without
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.speed import REPOSITORY, Daemon, Images, make_other_version
from daemon.config import load_settings

PAPER = 400  # pixels


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stream", "swaps", "worse", "kills", "latency"])
    parser.add_argument("--corrections", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--times", type=int, help="swaps or kills (default: 100 or 50)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="digitd-learning-") as folder:
        if options.what == "stream":
            for count in options.corrections:
                learn_stream(Path(folder) / str(count), count)
        elif options.what == "swaps":
            swap_under_load(Path(folder) / "root", options.times or 100)
        elif options.what == "worse":
            learn_nonsense(Path(folder) / "root")
        elif options.what == "kills":
            kill_at_random(Path(folder) / "root", options.times or 50)
        else:
            compare_latency(Path(folder) / "root")
    return 0


def continental(seed: int) -> tuple[bytes, int]:
    """A continental 1 (long, flat up-stroke) or a crossed 7 on paper, as a JPEG, and its digit. Same seed, same picture."""
    rng = np.random.default_rng([seed, 17])
    digit = int(rng.choice([1, 7]))
    paper, ink, width = int(rng.integers(225, 256)), int(rng.integers(0, 80)), int(rng.integers(10, 36))
    page = Image.new("L", (PAPER, PAPER), paper)
    draw = ImageDraw.Draw(page)

    def near(x: float, y: float, spread: float = 10) -> tuple[float, float]:
        return x + float(rng.normal(0, spread)), y + float(rng.normal(0, spread))

    def stroke(*points: tuple[float, float]) -> None:
        draw.line(points, fill=ink, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)

    if digit == 1:
        reach, top = rng.uniform(0.85, 1.1), near(245, 70)
        stroke(near(245 - 185 * reach, 70 + 178 * reach), top, near(235, 330, 12))
    else:
        right = near(262, 75)
        stroke(near(150, 155), right, near(215, 330, 14))
        stroke(near(120, 205), near(320, 185))
    page = page.rotate(float(rng.normal(0, 6)), Image.Resampling.BILINEAR, fillcolor=paper)
    page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2))))
    noisy = np.clip(np.asarray(page, np.float32) + rng.normal(0, 4, (PAPER, PAPER)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), digit


def learn_stream(root: Path, count: int) -> None:
    """Read 600 images of the stream, correct `count` others, wait for the daemon to retrain, read the 600 again."""
    with Daemon(root, RETRAIN__AFTER_CORRECTIONS=count, RETRAIN__QUIET_SECONDS=2, INBOX__RESCAN_SECONDS=1) as daemon:
        before = read_stream(daemon, "before", range(100_000, 100_600))
        taught = [continental(seed) for seed in range(count)]
        for number, (content, _) in enumerate(taught):
            drop(daemon, f"taught{number}.jpg", content)
        wait_for(lambda: len(answers(daemon, "taught")) == count)
        for number, (content, digit) in enumerate(taught):
            put_correction(root, digit, f"taught{number}.jpg", content)
        began = time.monotonic()
        wait_for(lambda: verdict(root) is not None, 7200)
        line = verdict(root) or {}
        time.sleep(5)  # for the swap
        after = read_stream(daemon, "after", range(100_000, 100_600))
    print(
        f"{count:4} corrections: stream {before:.2%} -> {after:.2%} (600 others); {line['event']} after "
        f"{time.monotonic() - began:.0f} s\n     {line['reason']}",
        flush=True,
    )


def learn_nonsense(root: Path) -> None:
    """200 plain MNIST images as corrections, half of them under another digit: what the gate says."""
    images = Images("x_train")
    with Daemon(root, RETRAIN__AFTER_CORRECTIONS=200, RETRAIN__QUIET_SECONDS=2, INBOX__RESCAN_SECONDS=1):
        for number in range(200):
            digit = images.label(number) if number % 2 else (images.label(number) + 1 + number % 9) % 10
            put_correction(root, digit, f"{number}.png", images.png(number))
        wait_for(lambda: verdict(root) is not None, 7200)
    print(f"half of the labels wrong: {(verdict(root) or {})['event']}: {(verdict(root) or {})['reason']}")


def swap_under_load(root: Path, times: int) -> None:
    """Go to and fro between two versions while files keep coming, one each 20 ms."""
    images = Images()
    with Daemon(root, INFERENCE__SYNC_SECONDS=0.5) as daemon:
        make_other_version(root / "models")
        quiet = steady(daemon, images, "quiet", 20.0, lambda: None)
        memory = daemon.resident()
        swapping = steady(daemon, images, "swapping", 1.5 * times, daemon.swap, every=1.5)
        grown = daemon.resident() - memory
        swaps = [line for line in ledger(root) if line["event"] == "live"][1:]
        spans = [(line["time"], line["version"]) for line in ledger(root) if line["event"] == "live"]
        wrong = sum(not was_live(content, spans) for content in answers(daemon, "swapping"))
    print(f"{len(swaps)} swaps; {len(swapping)} dropped, {len(answers(daemon, 'swapping'))} answered, {wrong} wrongly named")
    for name, waits in (("without swaps", quiet), ("with swaps", swapping)):
        p50, p99 = np.percentile(waits, [50, 99])
        print(f"{name:14} p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {max(waits):.1f} ms ({len(waits)} files)")
    print(f"resident memory grew by {grown / 1024:.0f} KiB, {grown / 1024 / max(1, len(swaps)):.1f} KiB a swap")


def kill_at_random(root: Path, times: int) -> None:
    """Kill trainer or daemon while it trains, saves and promotes; it must always come up with a model that loads."""
    rng = np.random.default_rng(1)
    came_up = 0
    settings = {"RETRAIN__STEPS": 12, "RETRAIN__AFTER_CORRECTIONS": 20, "RETRAIN__QUIET_SECONDS": 0.5}
    settings |= {"TRAINING__SYNTHETIC_DIGITS": 100, "TRAINING__SYNTHETIC_NO_DIGITS": 100, "INBOX__RESCAN_SECONDS": 1}
    daemon = Daemon(root, **settings)
    for number in range(times):
        with daemon:
            came_up += 1
            for seed in range(30):
                content, digit = continental(1_000 * (number + 1) + seed)
                put_correction(root, digit, f"{number}-{seed}.jpg", content)
            time.sleep(rng.uniform(3, 45))
            commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in daemon.pids()}
            trainers = [pid for pid, command in commands.items() if b"daemon.training.trainer" in command]
            if trainers and rng.random() < 0.5:
                os.kill(trainers[0], signal.SIGKILL)
            else:
                daemon.kill()
    with daemon:
        done = subprocess.run(
            [sys.executable, "-m", "daemon", "check", "-c", root / "config.toml"],
            cwd=REPOSITORY,
            capture_output=True,
            check=False,
        )
    ends: dict[str, int] = {}
    for line in ledger(root):
        ends[line["event"]] = ends.get(line["event"], 0) + 1
    print(f"{times} kills: came up {came_up} times; check says {done.returncode}; ledger {ends}")
    print("left in models/:", ", ".join(sorted(path.name for path in (root / "models").iterdir())))


def compare_latency(root: Path) -> None:
    """Single drops, a hundred without and a hundred with a training beside them, in turn, three times."""
    images = Images()
    waits: dict[str, list[float]] = {"without": [], "with": []}
    with Daemon(root, INBOX__RESCAN_SECONDS=1) as daemon:
        settings = load_settings(root / "config.toml", {"DIGITD_PATHS__MODELS": str(root / "elsewhere")})
        job = {"settings": settings.to_text(), "version": "v0009", "background": True}
        for round_ in range(3):
            waits["without"] += steady(daemon, images, f"without{round_}", 5.0, lambda: None, pause=0.05)
            command = [sys.executable, "-m", "daemon.training.trainer", json.dumps(job)]
            trainer = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
            wait_for((root / "logs" / "tensorboard" / "v0009").exists, 600)
            waits["with"] += steady(daemon, images, f"with{round_}", 5.0, lambda: None, pause=0.05)
            trainer.kill()
            trainer.wait()
            shutil.rmtree(root / "logs" / "tensorboard" / "v0009")
    for name, values in waits.items():
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        print(f"{name:8} training: p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms ({len(values)} drops)")


def steady(
    daemon: Daemon,
    images: Images,
    prefix: str,
    seconds: float,
    act: Callable[[], None],
    every: float = 1e9,
    pause: float = 0.02,
) -> list[float]:
    """Drop a file each `pause` seconds, act each `every`; give how long each took to its result, in ms."""
    ends, due, number, waits = time.monotonic() + seconds, time.monotonic() + min(every, 1.0), 0, []
    while time.monotonic() < ends:
        if time.monotonic() > due and every < 1e9:
            act()
            due += every
        name = f"{prefix}{number}.png"
        number += 1
        (daemon.root / "one").write_bytes(images.png(number))
        time.sleep(pause)
        result = f"{daemon.root}/results/{name}.json"
        began = time.perf_counter()
        (daemon.root / "one").rename(daemon.root / "inbox" / name)
        while not os.path.exists(result):
            time.sleep(0.0001)
        waits.append(1e3 * (time.perf_counter() - began))
    return waits


def read_stream(daemon: Daemon, prefix: str, seeds: range) -> float:
    """Drop images of the stream; the share that is read rightly."""
    truth = {}
    for seed in seeds:
        content, digit = continental(seed)
        truth[f"{prefix}{seed}.jpg"] = digit
        drop(daemon, f"{prefix}{seed}.jpg", content)
    wait_for(lambda: len(answers(daemon, prefix)) == len(truth), 600)
    return sum(truth[content["file"]] == content["digit"] for content in answers(daemon, prefix)) / len(truth)


def drop(daemon: Daemon, name: str, content: bytes) -> None:
    """Drop a whole file, by rename."""
    (daemon.root / "one").write_bytes(content)
    (daemon.root / "one").rename(daemon.root / "inbox" / name)


def put_correction(root: Path, digit: int, name: str, content: bytes) -> None:
    """Label an image."""
    folder = root / "corrections" / str(digit)
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def answers(daemon: Daemon, prefix: str) -> list[dict]:
    """The results of files whose names begin so."""
    return [json.loads(path.read_bytes()) for path in (daemon.root / "results").glob(f"{prefix}*.json")]


def ledger(root: Path) -> list[dict]:
    """Its lines."""
    path = root / "models" / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def verdict(root: Path) -> dict | None:
    """The first end of a training."""
    ends = ("promoted", "refused", "insufficient_evidence", "failed")
    return next((line for line in ledger(root) if line["event"] in ends), None)


def was_live(content: dict, spans: list[tuple[float, str]]) -> bool:
    """Whether the version that a result names was live then; the ledger may be 1 s late."""
    from datetime import datetime

    predicted = datetime.fromisoformat(content["predicted_at"]).timestamp()
    names = {name for at, name in spans if predicted - 1.0 <= at <= predicted + 1.0}
    before = [name for at, name in spans if at <= predicted - 1.0]
    return content["model"]["version"] in names | set(before[-1:])


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Ask until the answer is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
