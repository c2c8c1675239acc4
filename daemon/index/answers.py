"""What a JSON in results/ or rejected/ says, as the index has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from daemon.drops import with_ending
from daemon.files import printable
from daemon.index.schema import Record, storable

LAST_MOMENT = 1e11  # in the year 5138


def answered_at(content: dict[str, Any]) -> float:
    """When an answer or rejection was given, as its JSON says it."""
    return datetime.fromisoformat(content.get("predicted_at") or content["rejected_at"]).timestamp()


def parse(content: bytes) -> dict[str, Any]:
    """A JSON of ours; empty where it is none."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def read_record(text: bytes, path: str, rejected: bool, size: Callable[[str], int | None]) -> Record | None:
    """What a JSON says; None where it is none of ours, as when a power cut left it empty.

    Args:
        path: of the JSON, below its folder.
        size: of an original, by its path; None where there is none.

    """
    content = parse(text)
    try:
        beside = path.removesuffix(".json")
        name = beside if printable(beside) == content["file"] else str(content["file"])
        if any(place.startswith("/") or ".." in place.split("/") for place in (name, path)):
            return None
        sha256 = content["sha256"]
        tagged = [with_ending(name, f"~{digits}", "") for digits in (sha256, sha256[:8])] if sha256 else []
        candidates = [*tagged, beside, name] if not rejected else [beside, *tagged, name]
        original = next((candidate for candidate in candidates if size(candidate) is not None), name)
        places = (
            None if path == f"{name}.json" else storable(path),
            None if original == name else storable(original),
        )
        digest = None if sha256 is None else bytes.fromhex(sha256)
        at, name_, length = answered_at(content), storable(name), size(original)
        if not 0 <= at < LAST_MOMENT:
            return None  # nobody could be told of it
        if rejected:
            str(content["reason"]).encode()  # half of a surrogate pair is a ValueError now, and not when it is inserted
            return Record(at, None, name_, digest, "rejected", str(content["reason"]), None, None, None, length, *places)
        return Record(
            at,
            datetime.fromisoformat(content["received_at"]).timestamp(),
            name_,
            digest,
            str(content["decision"]),
            content["review_reason"],
            int(content["digit"]),
            float(content["confidence"]),
            str(content["model"]["version"]),
            length,
            *places,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
