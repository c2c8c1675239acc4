"""`digitd correct`: what an image really shows, by copying its original into corrections/."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.answering.naming import may_have
from daemon.config import Settings
from daemon.drops import with_ending
from daemon.files import file_sha256
from daemon.folders import Folder, rename
from daemon.training.corrections import list_corrections, read_label


def print_correct(settings: Settings, name: str, label: str) -> int:
    """Label an image, and print where its copy is.

    Returns:
        0, or 1 where there is no such image.

    """
    try:
        print(correct(settings, name, label))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def correct(settings: Settings, name: str, label: str) -> Path:
    """Label an image that was answered, by copying its original into corrections/<digit>/ or corrections/none/.

    Labelled before, its label moves.

    Args:
        settings: where the folders are.
        name: of the result ("results/a.png.json", "a.png.json") or of the image ("a.png").
        label: what it really shows, "0" to "9" or "none".

    Returns:
        The copy.

    Raises:
        FileNotFoundError: there is no such image in processed/ or rejected/.

    """
    for answers, originals in (("results", "processed"), ("rejected", "rejected")):
        answered = settings.folder(answers)
        below = _below(name, settings.root, answered, settings.folder(originals))
        sha256 = _content(answered / below if below.endswith(".json") else answered / f"{below}.json").get("sha256")
        plain = Path(below.removesuffix(".json"))
        for candidate in (plain, plain.with_name(f"{plain.stem}~{str(sha256)[:8]}{plain.suffix}")):
            source = settings.folder(originals) / candidate
            if source.is_file() and sha256 in (None, file_sha256(source)):
                return _label(source, settings.folder("corrections"), f"{label}/{candidate}")
    raise FileNotFoundError(
        f"Expected the name of a result, or of an image that was answered. Received: {name!r}, and there is no original "
        f"for it in {settings.folder('processed')} or {settings.folder('rejected')}."
    )


def _label(original: Path, corrections: Path, name: str) -> Path:
    """Make corrections/<digit>/... appear whole, beside others of its name; another label of the image moves."""
    content = original.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    with Folder(corrections, make=True) as folder:
        labels = list(_other_labels(folder, len(content), sha256, name.partition("/")[0]))
        if not may_have(folder, name, sha256, original.stat()):
            name = with_ending(name, f"~{sha256[:8]}", "")
        if labels:
            source = labels.pop()
        else:
            parent = name.rpartition("/")[0]
            source = f"{parent}/.digitd-{secrets.token_hex(8)}"
            folder.make_parents(source)
            with os.fdopen(folder.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(content)
        rename(folder, source, folder, name)
        for label in labels:
            folder.unlink(label)
    return corrections / name


def _other_labels(folder: Folder, size: int, sha256: str, label: str) -> Iterator[str]:
    """The names of this image under other labels."""
    for name, status in list_corrections(folder):
        if name.partition("/")[0] != label and status.st_size == size:
            with suppress(OSError):  # it cannot be read, or has gone
                if read_label(folder, name, size)[1] == sha256:
                    yield name


def _below(name: str, root: Path, *folders: Path) -> str:
    for path in (Path(name).absolute(), root / name):
        for folder in folders:
            if path.is_relative_to(folder):
                return str(path.relative_to(folder))
    return name


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
