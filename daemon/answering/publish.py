"""What becomes of an image on disk: its prediction or rejection as JSON, its atomic appearance, its retirement."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from daemon.answering.naming import below, file_identity, json_name, with_ending
from daemon.clock import timestamp, timestamps
from daemon.config import TEMPORARY
from daemon.drops import Predictions, Rejection
from daemon.files import file_sha256, printable, rename_to_free_name

SCHEMA = 1


def publish_predictions(folder: Path, batch: Predictions) -> None:
    """Make the JSON of each prediction appear, whole, below results/. Doing it again changes nothing.

    Raises:
        OSError: the machine failed; what comes before that file is there.

    """
    for drop, image, content in zip(batch.drops, batch.images, prediction_json(batch), strict=True):
        usual = with_ending(drop.name, "", ".json")
        _write_json(folder, content, usual, partial(json_name, drop.name, image.sha256, folder))


def publish_rejection(work: Path, folder: Path, rejection: Rejection, now: float) -> None:
    """Make the JSON of a rejection appear, whole, below rejected/. Doing it again changes nothing.

    Args:
        work: the folder with the original, whose identity names what has no digest.
        folder: rejected/.
        rejection: of a file that is still in `work`.
        now: in seconds since the epoch.

    Raises:
        OSError: the machine failed.

    """
    name, sha256 = rejection.drop.name, rejection.sha256
    target = json_name(name, sha256, folder)
    source = f"{work}/{name}"
    if sha256 is None and os.path.lexists(f"{folder}/{name}") and os.path.lexists(source):
        target = with_ending(name, f"~{file_identity(source)[:8]}", ".json")  # beside the original, as retire will call it
    _write_json(folder, rejection_json(rejection, now), target, lambda: target)


def prediction_json(batch: Predictions) -> Iterator[dict[str, Any]]:
    """What the contract says of each image that was read."""
    answered = timestamp(batch.predicted)
    model = {"version": batch.version, "sha256": batch.model_sha256}
    digits = batch.probabilities.argmax(axis=1).tolist()
    rows = batch.probabilities.astype(np.float64).round(6).tolist()
    received = timestamps([drop.received for drop in batch.drops])
    for drop, image, probabilities, digit, reason, received_at in zip(
        batch.drops, batch.images, rows, digits, batch.review_reasons, received, strict=True
    ):
        yield {
            "schema": SCHEMA,
            "file": printable(drop.name),
            "sha256": image.sha256,
            "digit": digit,
            "confidence": probabilities[digit],
            "probabilities": probabilities,
            "decision": "review" if reason else "accepted",
            "review_reason": reason,
            "model": model,
            "image": {"format": image.format, "width": image.width, "height": image.height},
            "received_at": received_at,
            "predicted_at": answered,
            "seconds": {
                "waiting": round(max(0.0, batch.claimed - drop.received), 6),
                "total": round(max(0.0, batch.predicted - drop.received), 6),
            },
        }


def rejection_json(rejection: Rejection, now: float) -> dict[str, Any]:
    """What the contract says of a file that was not read."""
    return {
        "schema": SCHEMA,
        "file": printable(rejection.drop.name),
        "sha256": rejection.sha256,
        "reason": rejection.reason,
        "detail": rejection.detail,
        "hint": rejection.hint,
        "rejected_at": timestamp(now),
    }


def to_line(content: dict[str, Any]) -> bytes:
    """JSON on one line, with its line feed."""
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def retire(name: str, sha256: str | None, work: Path, folder: Path) -> None:
    """Move an original from work/ to processed/ or rejected/. Doing it again changes nothing.

    Args:
        name: its path below work/.
        sha256: of its content; None where that was not read.
        work: the folder it is in.
        folder: the folder it goes to.

    Raises:
        OSError: the machine failed; the original is still in work/.

    """
    source = f"{work}/{name}"
    if rename_to_free_name(source, f"{folder}/{with_ending(name, '', '')}"):
        return
    if not os.path.lexists(source):
        return  # somebody took it away: there is nothing left to keep
    name = below(folder, name)
    target = with_ending(name, "", "")
    if os.path.lexists(f"{folder}/{target}") and not _same_bytes(folder / target, sha256):
        target = with_ending(name, f"~{(sha256 or file_identity(source))[:8]}", "")
    _move(source, folder, target)
    if os.path.lexists(source):
        os.unlink(source)  # rename(2) leaves both names where they are links to one file


def _write_json(folder: Path, content: dict[str, Any], usual: str, otherwise: Callable[[], str]) -> None:
    """Make it appear under the usual name, or where that is taken or has no folder yet, under the one that is told then."""
    temporary = f"{folder}/{TEMPORARY}/{os.getpid()}.json"
    try:
        _write(temporary, to_line(content))
        if not rename_to_free_name(temporary, f"{folder}/{usual}"):
            _move(temporary, folder, otherwise())
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)  # it holds space that the disk may not have
        raise


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        if os.write(descriptor, text) != len(text):  # a disk that fills up takes a part, and only then says so
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(descriptor)


def _move(source: str, folder: Path, name: str) -> None:
    """Rename to folder/name, making the sub-folders it needs."""
    try:
        os.rename(source, f"{folder}/{name}")
    except FileNotFoundError:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, f"{folder}/{name}")


def prepare(folder: Path) -> None:
    """Make a folder for JSON files, with a place beside them for those that are not whole yet."""
    (folder / TEMPORARY).mkdir(parents=True, exist_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what a crash left half-written; only while nobody writes."""
    for left in (folder / TEMPORARY).iterdir():
        left.unlink(missing_ok=True)


def remove_orphaned_temporaries(folder: Path) -> None:
    """Remove what processes left half-written that have ended since."""
    for left in (folder / TEMPORARY).iterdir():
        if not os.path.exists(f"/proc/{left.stem}"):
            left.unlink(missing_ok=True)


def _same_bytes(path: Path, sha256: str | None) -> bool:
    """Whether the file holds the content with this digest."""
    return sha256 is not None and not path.is_symlink() and path.is_file() and file_sha256(path) == sha256
