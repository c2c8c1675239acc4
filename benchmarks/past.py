"""A past for a root: answers, corrections and versions as the daemon leaves them, by the million and without it."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from benchmarks.speed import Images
from daemon.clock import timestamps, to_microsecond
from daemon.config import load_settings
from daemon.index.schema import INSERT, INSERT_LABEL, Record, open_to_write, put_state, settle
from daemon.models.ledger import Ledger
from daemon.training.corrections import Label
from daemon.training.labels import write_learnt

HEADER = 33  # bytes of a PNG before its second chunk
IN_ONE_TRANSACTION = 10_000
KINDS = 1_000  # different pictures
OUTCOMES = [("accepted", None)] * 18 + [("review", "low_confidence"), ("review", "not_a_digit")]

RESULT = (
    '{"schema":1,"file":"%s","sha256":"%s","digit":%d,"confidence":%f,"probabilities":[0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1,0.1],'
    '"decision":"%s","review_reason":%s,"model":{"version":"v0001","sha256":"d7379131"},'
    '"image":{"format":"PNG","width":28,"height":28},"received_at":"%s","predicted_at":"%s",'
    '"seconds":{"waiting":0.0,"total":0.0}}\n'
)


def unique(png: bytes, number: int) -> bytes:
    """The same picture in bytes that no other number has."""
    text = b"tEXtComment\0%d" % number
    return png[:HEADER] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + png[HEADER:]


def write_answers(root: Path, count: int, first: float, last: float, prefix: str = "past") -> Iterator[Record]:
    """Write originals and JSONs, evenly from one moment to another; give the record of each.

    Args:
        root: with processed/ and results/.
        count: how many.
        first, last: seconds since the epoch.
        prefix: of their names.

    """
    images = Images()
    pngs = [images.png(number) for number in range(KINDS)]
    for start in range(0, count, KINDS):
        moments = [
            to_microsecond(first + (last - first) * number / count) for number in range(start, min(start + KINDS, count))
        ]
        for number, at, text in zip(range(start, count), moments, timestamps(moments), strict=False):
            name, content = f"{prefix}{number:07d}.png", unique(pngs[number % KINDS], number)
            outcome, reason = OUTCOMES[number * 7 % len(OUTCOMES)]
            confidence = 0.9 + number % 1000 / 10_000 if outcome == "accepted" else number % 900 / 1000
            digest, digit = hashlib.sha256(content), images.label(number % KINDS)
            result = RESULT % (
                name,
                digest.hexdigest(),
                digit,
                confidence,
                outcome,
                f'"{reason}"' if reason else "null",
                text,
                text,
            )
            _write(f"{root}/processed/{name}", content)
            _write(f"{root}/results/{name}.json", result.encode())
            yield Record(at, at, name, digest.digest(), outcome, reason, digit, confidence, "v0001", len(content))


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
    os.write(descriptor, content)
    os.close(descriptor)


def write_index(path: Path, records: Iterator[Record]) -> None:
    """Make an index of them that says that it is whole."""
    with closing(open_to_write(path, 60)) as connection:
        connection.execute("PRAGMA cache_size = -200000")  # KiB
        while chunk := list(islice(records, IN_ONE_TRANSACTION)):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, chunk)
            connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        settle(connection)
        put_state(connection, since=None, clean=1)
        connection.execute("COMMIT")


def write_corrections(root: Path, count: int) -> None:
    """Label so many images, all noticed and learnt from: files, journal, index."""
    settings = load_settings(root / "config.toml")
    images, now = Images("x_train"), time.time()
    labels: dict[str, Label] = {}
    for digit in range(10):
        (root / "corrections" / str(digit)).mkdir(exist_ok=True)
    for number in range(count):
        digit, name = images.label(number % 60_000), f"c{number:06d}.png"
        content = unique(images.png(number), number)
        _write(f"{root}/corrections/{digit}/{name}", content)
        labels[f"{digit}/{name}"] = digit, hashlib.sha256(content).hexdigest()
    write_learnt(settings, labels.values())
    noticed = {"noticed_at": timestamps([now])[0], "predicted": 1, "model": "v0001", "review_reason": None}
    with (root / "logs" / "corrections.jsonl").open("w") as journal:
        for name, (digit, sha256) in labels.items():
            journal.write(f"{json.dumps(noticed | {'file': name, 'sha256': sha256, 'digit': digit})}\n")
    later = time.time() + 1
    with closing(open_to_write(settings.index, 60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = ((bytes.fromhex(sha256), digit, name, later) for name, (digit, sha256) in labels.items())
        connection.executemany(INSERT_LABEL, rows)
        connection.execute("COMMIT")


def write_versions(models: Path, count: int) -> None:
    """Give the ledger the lines of so many trainings, a night each, and let it be put aside as it would have been."""
    ledger = Ledger(models / "ledger.jsonl")
    first = time.time() - count * 86400
    with (models / "ledger.jsonl").open("w") as file:
        for number in range(2, count):
            for event in ("begun", "made", "promoted", "current", "live"):
                line = {
                    "time": first + number * 86400,
                    "event": event,
                    "version": f"v{number:04d}",
                    "reason": "as it was " * 12,
                }
                verdict = {"holdout_sha256": "h", "dataset_sha256": "d", "best_accuracy": 0.9, "holdout_accuracy": 0.9}
                file.write(f"{json.dumps(line | (verdict if event == 'promoted' else {}))}\n")
    ledger.rotate(["v0001"])
