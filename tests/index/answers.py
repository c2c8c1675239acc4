"""Answers as the daemon leaves them in its folders, and records of them, without a daemon."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from daemon.clock import timestamp
from daemon.index.schema import Record

DAY = 86400.0
NOON = 1_764_072_000.0  # 2025-11-25 12:00 UTC


def record(name: str, content: bytes = b"x", at: float = NOON, **other: object) -> Record:
    """An accepted 7."""
    digest = hashlib.sha256(content).digest()
    return Record(at, at - 0.5, name, digest, "accepted", None, 7, 0.99, "v0001", len(content))._replace(**other)


def answer(root: Path, name: str, content: bytes = b"x", at: float = NOON, **other: object) -> Record:
    """An original in processed/ and its JSON in results/; the record that belongs to them."""
    made = record(name, content, at, **other)
    result = {
        "schema": 1,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "digit": made.digit,
        "confidence": made.confidence,
        "probabilities": [0.1] * 10,
        "decision": made.outcome,
        "review_reason": made.reason,
        "model": {"version": made.version, "sha256": "m" * 64},
        "image": {"format": "PNG", "width": 28, "height": 28},
        "received_at": timestamp(made.received_at or 0.0),
        "predicted_at": timestamp(at),
        "seconds": {"waiting": 0.0, "total": 0.5},
    }
    put(root / "processed" / str(made.original or name), content)
    put(root / "results" / str(made.json or f"{name}.json"), json.dumps(result).encode())
    return made


def reject(root: Path, name: str, content: bytes = b"no image", at: float = NOON) -> Record:
    """An original with its JSON in rejected/; the record that belongs to them."""
    rejection = {
        "schema": 1,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "reason": "not_an_image",
        "detail": "Text.",
        "hint": "Drop an image.",
        "rejected_at": timestamp(at),
    }
    put(root / "rejected" / name, content)
    put(root / "rejected" / f"{name}.json", json.dumps(rejection).encode())
    digest = hashlib.sha256(content).digest()
    return Record(at, None, name, digest, "rejected", "not_an_image", None, None, None, len(content))


def put(path: Path, content: bytes) -> None:
    """Write a file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
