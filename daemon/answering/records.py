"""What the index is told of answers and rejections."""

from __future__ import annotations

from daemon.clock import to_microsecond
from daemon.drops import Predictions, Rejection
from daemon.index.schema import Record, storable


def prediction_records(batch: Predictions, elsewhere: dict[int, str]) -> list[Record]:
    """A record for each answer of a batch.

    Args:
        batch: that was published.
        elsewhere: the names of the JSONs that could not have their usual one, by position.

    """
    digits = batch.probabilities.argmax(axis=1).tolist()
    confidences = batch.probabilities.max(axis=1).astype(float).round(6).tolist()
    answered_at, version = to_microsecond(batch.predicted), batch.version
    records = [
        Record(
            answered_at,
            to_microsecond(drop.received),
            storable(drop.name),
            bytes.fromhex(image.sha256),
            "review" if reason else "accepted",
            reason,
            digit,
            confidence,
            version,
            image.size,
        )
        for drop, image, reason, digit, confidence in zip(
            batch.drops, batch.images, batch.review_reasons, digits, confidences, strict=True
        )
    ]
    for position, name in elsewhere.items():
        records[position] = records[position]._replace(json=storable(name))
    return records


def rejection_record(rejection: Rejection, now: float, json: str) -> Record:
    """A record of a rejection.

    Args:
        rejection: that was published.
        now: when, in seconds since the epoch.
        json: the name of its JSON.

    """
    name, sha256 = rejection.drop.name, rejection.sha256
    digest = bytes.fromhex(sha256) if sha256 else None
    place = None if json == f"{name}.json" else storable(json)
    at, reason = to_microsecond(now), rejection.reason
    return Record(at, None, storable(name), digest, "rejected", reason, None, None, None, None, place)
