"""`digitd correct`: what an image really shows, by copying its original into corrections/."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from daemon.answering.naming import candidates
from daemon.config import Settings
from daemon.files import file_sha256, printable
from daemon.folders import Folder
from daemon.reading.content import InvalidImage
from daemon.training.labelling import Labelling

MOST_NAMES = 4  # of an original: the plain one, and those that it gets where somebody has taken that


def print_correct(settings: Settings, name: str, label: str) -> int:
    """Label an image, and print where its copy is.

    Returns:
        0, or 1 where there is no such image.

    """
    try:
        print(printable(str(correct(settings, name, label))))
    except (InvalidImage, OSError) as error:
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
        InvalidImage, OSError: it cannot be read, or its label cannot be written.

    """
    for answers, originals in (("results", "processed"), ("rejected", "rejected")):
        answered = settings.folder(answers)
        below = _below(name, settings.root, answered, settings.folder(originals))
        content = _content(answered / below if below.endswith(".json") else answered / f"{below}.json")
        sha256 = content.get("sha256")
        dropped = str(content.get("file", below))  # of a long one, the name of its JSON has but a part
        if not settings.folder(originals).is_dir():
            continue
        with Folder(settings.folder(originals)) as folder:
            for name_ in _names(folder, (below.removesuffix(".json"), dropped), sha256):
                source = settings.folder(originals) / name_
                if source.is_file() and sha256 in (None, file_sha256(source)):
                    with Labelling(settings.folder("corrections"), settings.inbox.max_bytes) as labels:
                        done = labels.label(folder, name_, label, sha256)
                    return settings.folder("corrections") / done.name
    raise FileNotFoundError(
        f"Expected the name of a result, or of an image that was answered. Received: {name!r}, and there is no original "
        f"for it in {settings.folder('processed')} or {settings.folder('rejected')}; see `digitd find`."
    )


def _names(folder: Folder, plain: Iterable[str], sha256: str | None) -> Iterator[str]:
    """What an original may be called that was dropped under one of these names; without its digest only so."""
    for name in plain:
        yield from islice(candidates(folder, name, sha256), MOST_NAMES) if sha256 else [name]


def _below(name: str, root: Path, *folders: Path) -> str:
    for path in (Path(name).absolute(), root / name):
        for folder in folders:
            if path.is_relative_to(folder):
                return str(path.relative_to(folder))
    return name


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
