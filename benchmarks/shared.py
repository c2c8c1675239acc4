"""`python -m benchmarks.shared FOLDER`: how many files a second a file system takes: three moves and a JSON each, no model.

Run it on the file system that daemons or a stream are to share, from each of the machines at once to see where it ends. It
does what the walk does to the folders, and nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from daemon.folders import Folder, rename, rename_to_free_name

JSON = bytes(600)


def walk(folder: str, who: int, names: list[str]) -> tuple[float, float]:
    """Claim, read, publish and retire files; seconds that it took, and of those on the processor."""
    with (
        Folder(f"{folder}/inbox") as inbox,
        Folder(f"{folder}/work/{who}", make=True) as work,
        Folder(f"{folder}/results") as results,
        Folder(f"{folder}/processed") as processed,
    ):
        began, cpu = time.monotonic(), time.process_time()
        for name in names:
            rename(inbox, name, work, name)
            descriptor = work.open(name, os.O_RDONLY)
            os.read(descriptor, 4096)
            os.close(descriptor)
            temporary = f".tmp/{who}.json"
            descriptor = results.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(descriptor, JSON)
            os.close(descriptor)
            rename_to_free_name(results, temporary, results, f"{name}.json")
            rename_to_free_name(work, name, processed, name)
        return time.monotonic() - began, time.process_time() - cpu


def measure(folder: Path, processes: int, files: int) -> tuple[float, float]:
    """Files a second of so many processes together, and microseconds of CPU a file."""
    for name in ("inbox", "work", "results/.tmp", "processed"):
        (folder / name).mkdir(parents=True)
    names = [f"{number}.png" for number in range(processes * files)]
    for name in names:
        (folder / "inbox" / name).write_bytes(bytes(300))
    os.sync()
    shares = [(str(folder), who, names[who::processes]) for who in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(abs, range(processes))  # they are there
        began = time.monotonic()
        took = pool.starmap(walk, shares, chunksize=1)
        seconds = time.monotonic() - began
    return len(names) / seconds, 1e6 * sum(cpu for _, cpu in took) / len(names)


def main() -> int:
    """Measure with more and more processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="on the file system to measure; what is made there is removed")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8], help="at once (default: 1 2 4 8)")
    parser.add_argument("--files", type=int, default=5_000, help="of each (default: 5000)")
    options = parser.parse_args()
    print("processes     files/s   renames/s   us of CPU a file")
    for processes in options.processes:
        place = Path(tempfile.mkdtemp(prefix="digitd-shared-", dir=options.folder))
        try:
            rate, cpu = measure(place, processes, options.files)
        finally:
            shutil.rmtree(place)
        print(f"{processes:>9} {rate:>11,.0f} {3 * rate:>11,.0f} {cpu:>18.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
