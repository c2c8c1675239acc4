"""`make bench-peers`: the daemon beside Apache Beam and its own form on Apache Spark, on the same files in the same run.

Each reads the same PNGs from a fresh file system, in turn, again and again: trust the ratios, and CPU more than wall time.
Beam and the tutorial script write a shorter JSON, sync nothing, and move no originals. Prints a table, and
writes it as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed import REPOSITORY, TICK, Daemon, Images, fresh_file_system, measure_peer, note, print_table

BEAM = REPOSITORY / "build" / "peers" / "bin" / "python"
MASTER_PORT = 27077
OURS = "digitd run"
IDLE_SECONDS = 20.0
CPU = "us of CPU a file"


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
    """What keeps Spark on this machine."""
    return {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}


@contextlib.contextmanager
def cluster(logs: Path) -> Iterator[list[int]]:
    """A standalone cluster on loopback: a master and two workers of one core; gives their process numbers."""
    home = Path(importlib.util.find_spec("pyspark").origin).parent  # type: ignore[union-attr, arg-type]
    environment = os.environ | spark_environment() | {"SPARK_HOME": str(home), "SPARK_WORKER_DIR": str(logs / "workers")}
    url = f"spark://127.0.0.1:{MASTER_PORT}"
    roles = [["master.Master", "--host", "127.0.0.1", "--port", str(MASTER_PORT), "--webui-port", "0"]]
    roles += [["worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0", url]] * 2
    with contextlib.ExitStack() as stack:
        pids = []
        for number, (role, *arguments) in enumerate(roles):
            log = stack.enter_context((logs / f"spark{number}").open("wb"))
            command = [home / "bin" / "spark-class", f"org.apache.spark.deploy.{role}", *arguments]
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

    def burst(name: str, program: Daemon, is_last: bool) -> None:
        with program:
            program.burst(images.png, 1_000)  # every process has its model, and the JVM is warm
            found = program.burst(images.png, options.files)
            if is_last and options.waiting and name in (OURS, "digitd stream, local[2]"):
                found["CPU with more waiting"] = program.burst(images.png, options.waiting)[CPU] / found[CPU]
            time.sleep(3.0)  # what was answered is retired
            before, began = cpu_by_process(program), time.monotonic()
            time.sleep(IDLE_SECONDS)
            spent = sum(cpu - before[pid] for pid, cpu in cpu_by_process(program).items() if pid in before)
            found["idle, % of a core"] = 100 * spent / (time.monotonic() - began)
        shutil.rmtree(program.root)
        note(figures, name, found | {"CPU / digitd run's": found[CPU] / figures.get(OURS, [found])[-1][CPU]})

    for round_ in range(options.rounds):
        is_last = round_ == options.rounds - 1
        burst(OURS, Daemon(folder / f"daemon{round_}"), is_last)
        others = {"tutorial script": measure_peer(folder / f"tutorial{round_}", images, 100, "predict")}
        if BEAM.exists():
            others["Beam RunInference"] = measure_beam(folder / f"beam{round_}", options.files, images)
        for name, found in others.items():
            note(figures, name, found | {"CPU / digitd run's": found[CPU] / figures[OURS][-1][CPU]})
        if has_spark():
            for slots in (1, 2):
                master = f"local[{slots},4]"
                burst(f"digitd stream, local[{slots}]", Stream(folder / f"{master}{round_}", master, []), is_last)
            with cluster(folder) as pids:
                master = f"spark://127.0.0.1:{MASTER_PORT}"
                burst("digitd stream, cluster", Stream(folder / f"cluster{round_}", master, pids), is_last)
    return figures


def cpu_by_process(program: Daemon) -> dict[int, float]:
    """Seconds; Spark's idle processes end now and then, and are nobody's children."""
    found = {}
    for pid in program.pids():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            found[pid] = (int(fields[11]) + int(fields[12])) / TICK
    return found


def has_spark() -> bool:
    """Whether the stream can run here."""
    return bool(shutil.which("java")) and importlib.util.find_spec("pyspark") is not None


def main() -> int:
    """Measure what is there, say what is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="PNGs of 28x28 (default: 10000)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured, in turn (default: 2)")
    parser.add_argument("--waiting", type=int, default=100_000, help="once, so many at once (default: 100000; 0: never)")
    parser.add_argument("--json", type=Path, default=Path("build/peers.json"), help="where to write the figures")
    options = parser.parse_args()
    if not BEAM.exists():
        print(f"without Beam: there is no {BEAM}; `make bench-peers` makes it")
    if not has_spark():
        print("without Spark: expected `java` and PySpark; `make bench-peers` installs the latter")
    began = time.monotonic()
    with fresh_file_system() as folder:
        figures = measure(folder, options)
    print_table(figures)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; took {time.monotonic() - began:.0f} s")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
