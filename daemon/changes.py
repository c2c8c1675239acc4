"""What a configuration that was read again changes: what SIGHUP puts in force, and what needs a restart."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from daemon.config import LIVE, Settings


def tell_in_force(log: logging.Logger, before: Settings, after: Settings, *keys: str) -> None:
    """Log each change of live keys; the part that has just put them in force calls this, so that nobody else claims it.

    Args:
        log: of that part.
        before, after: the configurations.
        keys: its tables, such as "inbox", or single keys, such as "retention.versions".

    """
    old, new = by_key(before), by_key(after)
    for key, value in new.items():
        if key.startswith(keys) and is_live(key) and value != old.get(key):
            log.info("%s is now %r; it was %r", key, value, old.get(key))


def tell_waiting(log: logging.Logger, before: Settings, after: Settings) -> None:
    """Log each change that needs a restart."""
    old, new = by_key(before), by_key(after)
    for key, value in new.items():
        if not is_live(key) and value != old[key]:
            log.warning("%s = %r needs a restart; %r stays in force", key, value, old[key])


def in_force(running: Settings, read: Settings) -> Settings:
    """What was read, but for what needs a restart: that stays as it is, also for whoever is handed the whole."""
    live: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        before, after = getattr(running, name), getattr(read, name)
        keys = [key for key, part in type(before).model_fields.items() if LIVE in part.metadata]
        live[name] = (
            after if LIVE in field.metadata else before.model_copy(update={key: getattr(after, key) for key in keys})
        )
    return running.model_copy(update=live)


def by_key(settings: Settings) -> dict[str, Any]:
    """Every value under its dotted key, such as "inbox.rescan_seconds"."""
    return dict(_dotted("", settings.model_dump()))


def is_live(key: str) -> bool:
    """Whether SIGHUP puts a key in force."""
    table: Any = Settings
    for name in key.split("."):
        field = table.model_fields[name]
        if LIVE in field.metadata:
            return True
        table = field.annotation
    return False


def _dotted(prefix: str, tables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _dotted(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
