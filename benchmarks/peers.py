"""`make bench-peers`: the daemon beside Apache Beam and its own form on Apache Spark, on the same files in the same run.

Each reads the same PNGs from a fresh file system, in turn, again and again: trust the ratios, and CPU more than wall time.
Beam writes a shorter JSON, syncs nothing, moves no originals. Prints a table, writes it as JSON, draws docs/peers.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed import REPOSITORY, Daemon, Images, fresh_file_system, note, print_table

BEAM = REPOSITORY / "build" / "peers" / "bin" / "python"
SPARK = REPOSITORY / "build" / "spark"  # PySpark, for the daemon's own environment
PICTURE = REPOSITORY / "docs" / "peers.png"
MASTER_PORT = 27077
OURS = "digitd run"


class Stream(Daemon):
    """`digitd stream` on a fresh root.

    Args:
        root: its folder.
        master: where Spark runs.
        others: processes of Spark that it does not start itself.

    """

    def __init__(self, root: Path, master: str, others: list[int]) -> None:
        super().__init__(root)
        self.command = ("stream", "--master", master)
        self._others = others
        self.environment |= spark_environment()

    def pids(self) -> list[int]:
        """The driver, all that it started, and the other processes with what they started."""
        return [*super().pids(), *(pid for other in self._others for pid in self.family(other))]


def spark_environment() -> dict[str, str]:
    """What finds PySpark and digitd, in every process of Spark."""
    return {"PYTHONPATH": f"{SPARK}:{REPOSITORY}", "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}


@contextlib.contextmanager
def cluster(logs: Path) -> Iterator[list[int]]:
    """A standalone cluster on loopback: a master and two workers of one core; gives their process numbers."""
    environment = os.environ | spark_environment() | {"SPARK_WORKER_DIR": str(logs / "workers")}
    url = f"spark://127.0.0.1:{MASTER_PORT}"
    roles = [["master.Master", "--host", "127.0.0.1", "--port", str(MASTER_PORT), "--webui-port", "0"]]
    roles += [["worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0", url]] * 2
    with contextlib.ExitStack() as stack:
        pids = []
        for number, (role, *arguments) in enumerate(roles):
            log = stack.enter_context((logs / f"spark{number}").open("wb"))
            command = [SPARK / "pyspark" / "bin" / "spark-class", f"org.apache.spark.deploy.{role}", *arguments]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            pids.append(process.pid)
        yield pids


def measure_beam(folder: Path, files: int, images: Images) -> dict[str, float]:
    """Beam on the same files, with the same model."""
    (folder / "inbox").mkdir(parents=True)
    (folder / "results").mkdir()
    for number in range(files):
        (folder / "inbox" / f"{number}.png").write_bytes(images.png(number))
    os.sync()
    run = "import sys; from benchmarks.beam import main; main(*sys.argv[1:])"
    arguments = [folder / "inbox", REPOSITORY / "models" / "v0001.h5", folder / "results"]
    done = subprocess.run([BEAM, "-W", "ignore", "-c", run, *arguments], stdout=subprocess.PIPE, check=True, cwd=REPOSITORY)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """All figures: by name, one dictionary a round."""
    figures: dict[str, list[dict[str, float]]] = {}
    images = Images()

    def burst(name: str, program: Daemon) -> None:
        with program:
            program.burst(images.png, 1_000)  # every process has its model, and the JVM is warm
            note(figures, name, program.burst(images.png, options.files))
        shutil.rmtree(program.root)

    for round_ in range(options.rounds):
        burst(OURS, Daemon(folder / f"daemon{round_}"))
        if BEAM.exists():
            note(figures, "Beam RunInference", measure_beam(folder / f"beam{round_}", options.files, images))
        if shutil.which("java") and SPARK.exists():
            for slots in (1, 2):
                master = f"local[{slots},4]"
                burst(f"digitd stream, local[{slots}]", Stream(folder / f"{master}{round_}", master, []))
            with cluster(folder) as pids:
                master = f"spark://127.0.0.1:{MASTER_PORT}"
                burst("digitd stream, cluster", Stream(folder / f"cluster{round_}", master, pids))
        for name, rounds in figures.items():
            ratio = rounds[-1]["us of CPU a file"] / figures[OURS][-1]["us of CPU a file"]
            rounds[-1]["CPU / digitd's"] = ratio
            print(f"  {name}: {ratio:.2f} times digitd's CPU", flush=True)
    return figures


def draw(figures: dict[str, list[dict[str, float]]], path: Path) -> None:
    """A bar each: CPU a file, as a ratio to the daemon's in the same round; the least and the most as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = sorted(figures, key=lambda name: statistics.median(one["CPU / digitd's"] for one in figures[name]))
    figure, axes = plt.subplots(figsize=(8, 0.6 * len(names) + 1.1), layout="constrained")
    for place, name in enumerate(reversed(names)):
        ratios = [one["CPU / digitd's"] for one in figures[name]]
        middle = statistics.median(ratios)
        bar = axes.barh(place, middle, color="#2a6f97" if name.startswith("digitd") else "#9a9a9a", height=0.6)
        if len(ratios) > 1:
            axes.plot([min(ratios), max(ratios)], [place, place], color="black", linewidth=1.5)
        axes.bar_label(bar, [f"{middle:.2f}"], padding=10)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("CPU a file, as a ratio to digitd run in the same round (less is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, 1.15 * axes.get_xlim()[1])
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure what is there, say what is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="PNGs of 28x28 (default: 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turn (default: 3)")
    parser.add_argument("--json", type=Path, default=Path("build/peers.json"), help="where to write the figures")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw them (default: docs/peers.png)")
    options = parser.parse_args()
    if not BEAM.exists():
        print(f"without Beam: there is no {BEAM}; `make bench-peers` makes it")
    if not shutil.which("java") or not SPARK.exists():
        print(f"without Spark: expected `java` and {SPARK}; on Debian: apt install openjdk-17-jre-headless")
    began = time.monotonic()
    with fresh_file_system() as folder:
        figures = measure(folder, options)
    print_table(figures)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; took {time.monotonic() - began:.0f} s")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    draw(figures, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
