"""What becomes of an image on disk: its prediction or rejection as JSON, its atomic appearance, its retirement."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from daemon.answering.naming import candidates, file_digest, json_name, json_owner, may_have
from daemon.clock import timestamp, timestamps
from daemon.config import TEMPORARY
from daemon.drops import Predictions, Rejection, with_ending
from daemon.files import file_system_time, printable, writer_name
from daemon.folders import Folder, rename, rename_to_free_name

SCHEMA = 1
ABANDONED_SECONDS = 3600.0  # a file that is not whole and did not change for so long is nobody's any more


def publish_predictions(results: Path, batch: Predictions) -> dict[int, str]:
    """Make the JSON of each prediction appear, whole, below results/. Doing it again changes nothing.

    Returns:
        Of those that could not be called `<name>.json`: their names, by position.

    Raises:
        OSError: the machine failed; what comes before that file is there.

    """
    elsewhere = {}
    lines = [to_line(content) for content in prediction_json(batch)]  # at once: system calls in between cost it a third
    with Folder(results) as folder:
        for number, (drop, line) in enumerate(zip(batch.drops, lines, strict=True)):
            usual = with_ending(drop.name, "", ".json")
            name = _write_json(folder, line, usual, partial(json_name, drop.name, batch.images[number].sha256, folder))
            if name != f"{drop.name}.json":
                elsewhere[number] = name
    return elsewhere


def publish_rejection(work: Path, rejected: Path, rejection: Rejection, now: float) -> tuple[str | None, str]:
    """Make the JSON of a rejection appear, whole, below rejected/. Doing it again changes nothing.

    Args:
        work: the folder with the original.
        rejected: the folder for both.
        rejection: of a file that is still in `work`.
        now: in seconds since the epoch.

    Returns:
        The name that the original is to have in `rejected`, and that of its JSON beside it. The former is None where it is
        not to be kept: what is no regular file has no content, and a link or a pipe would be a trap for whoever reads the
        folder.

    Raises:
        OSError: the machine failed.

    """
    name, sha256 = rejection.drop.name, rejection.sha256
    try:
        with Folder(work) as folder:
            status = folder.status(name)
    except FileNotFoundError:
        return None, ""  # somebody took it away: there is nothing left to answer
    own = printable(name), sha256
    kept = ""
    with Folder(rejected) as folder:

        def choose() -> str:
            nonlocal kept
            for kept in candidates(folder, name, sha256 or file_digest(status)):
                target = with_ending(kept, "", ".json")
                if may_have(folder, kept, sha256, status) and _may_be_json(folder, target, own):
                    break
            return target

        target = _write_json(folder, to_line(rejection_json(rejection, now)), choose(), choose)
    return kept if stat.S_ISREG(status.st_mode) else None, target


def _may_be_json(folder: Folder, name: str, own: tuple[str, str | None]) -> bool:
    """Whether the JSON of a rejection may have this name, and not be what another original in work/ is to be called.

    For that would be kept under another name, away from its JSON; and nothing would tell an original that looks like a JSON
    from one of ours.
    """
    owner = json_owner(folder, name)
    return owner == own or (owner is None and not folder.holds(with_ending(name, "", ".json")))


def prediction_json(batch: Predictions) -> Iterator[dict[str, Any]]:
    """What the contract says of each image that was read."""
    model = {"version": batch.version, "sha256": batch.model_sha256}
    digits = batch.probabilities.argmax(axis=1).tolist()
    rows = batch.probabilities.astype(np.float64).round(6).tolist()
    *received, answered = timestamps([*(drop.received for drop in batch.drops), batch.predicted])
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


def retire(work: Folder, name: str, folder: Folder, kept: str | None, sha256: str | None) -> str | None:
    """Move an original from work/ to processed/ or rejected/. Doing it again changes nothing.

    Args:
        work, name: where it is.
        folder, kept: where it goes, unless another file has that name by now; None where it is not kept.
        sha256: of its content; None where that was not read.

    Returns:
        The name that it has there; None where it is not there.

    Raises:
        OSError: the machine failed; the original is still in work/.

    """
    if kept is not None and rename_to_free_name(work, name, folder, kept):
        return kept
    try:
        status = work.status(name)
    except FileNotFoundError:
        return None  # somebody took it away: there is nothing left to keep
    if kept is None:
        work.unlink(name)
        return None
    names = candidates(folder, name, sha256 or file_digest(status))
    target = next(candidate for candidate in names if may_have(folder, candidate, sha256, status))
    if folder.holds(target):
        work.unlink(name)  # the same drop again: the original that is there is known to be durable
    else:
        rename(work, name, folder, target)
    return target


def _write_json(folder: Folder, line: bytes, usual: str, otherwise: Callable[[], str]) -> str:
    """Make it appear under the usual name, or where that is taken or has no folder yet, under the one that is told then."""
    temporary = f"{TEMPORARY}/{writer_name()}.json"
    try:
        descriptor = _begin(folder, temporary)
        try:
            if os.write(descriptor, line) != len(line):  # a disk that fills up takes a part, and only then says so
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
        finally:
            os.close(descriptor)
        if rename_to_free_name(folder, temporary, folder, usual):
            return usual
        folder.make_parents(name := otherwise())
        if rename_to_free_name(folder, temporary, folder, name):
            return name
        name = otherwise()  # it holds its JSON already, or another host was faster: the next
        rename(folder, temporary, folder, name)
    except OSError:
        with suppress(OSError):
            folder.unlink(temporary)  # it holds space that the disk may not have
        raise
    return name


def _begin(folder: Folder, temporary: str) -> int:
    """A descriptor of a new file: one of that name, left by an end in between, may by now be the other name of a result."""
    try:
        return folder.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        folder.unlink(temporary)
        return folder.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


def prepare(folder: Path) -> None:
    """Make a folder for JSON files, with a place for those that are not whole yet; others may write there meanwhile.

    What crashes left unfinished there is removed, whichever host they were on. A writer that is only slow finds its file
    gone, and writes it again.

    Raises:
        NotADirectoryError: there is a link in that place.
        OSError: the machine failed.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with Folder(folder) as held:
        held.make_parents(f"{TEMPORARY}/")
        if left := [f"{TEMPORARY}/{entry.name}" for entry in held.entries(TEMPORARY)]:
            descriptor = held.open_folder(TEMPORARY)
            try:
                now = file_system_time(descriptor)
            finally:
                os.close(descriptor)
            for name in left:
                with suppress(FileNotFoundError, IsADirectoryError):  # it was finished, or another host was faster
                    if now - held.status(name).st_mtime > ABANDONED_SECONDS:
                        held.unlink(name)
