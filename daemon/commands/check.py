"""`digitd check`: the configuration that is in force, and what is wrong with folders, model and limits."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from daemon.config import FOLDERS, ONE_FILE_SYSTEM, ConfigError, Settings
from daemon.folders import try_renames
from daemon.index.queries import bytes_per_day
from daemon.index.schema import NoIndex, reading
from daemon.models.registry import Registry, RegistryError
from daemon.training.schedule import Schedule

LOW_DISK_BYTES = 500 * 2**20
FAR_DAYS = 3650  # a date beyond says nothing
INOTIFY = Path("/proc/sys/fs/inotify")
FEW_INOTIFY = {"max_user_watches": 1024, "max_user_instances": 8}


def print_check(settings: Settings) -> int:
    """Print both.

    Returns:
        0 where nothing is wrong, else 1.

    """
    print(f"# {settings.file}, with the environment's overrides")
    tables = settings.model_dump(exclude={"training": {"layers"}})
    augmentation = {"training.augmentation": tables["training"].pop("augmentation")}
    for table, values in (tables | augmentation).items():
        print(f"[{table}]")
        for key, value in values.items():
            print(f"{key} = {value!r}")
    print(f"[[training.layers]]\n# {' - '.join(layer.layer for layer in settings.training.layers)}\n")
    if pace := disk_pace(settings, time.time()):
        print(f"{pace}\n")
    problems = list(find_problems(settings))
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("no problems found")
    return 1 if problems else 0


def disk_pace(settings: Settings, now: float) -> str | None:
    """How fast answers fill the disk, and when it will be full; None where the index cannot say.

    Args:
        settings: where the index is.
        now: in seconds since the epoch.

    """
    try:
        with reading(settings.index) as connection:
            rate = bytes_per_day(connection, now)
    except (NoIndex, OSError, sqlite3.Error):
        return None
    if not rate:
        return None
    free = shutil.disk_usage(settings.root).free
    days = free / rate
    pace = f"answers take {rate / 2**20:,.1f} MiB a day; {free / 2**20:,.0f} MiB are free: full in {days:,.0f} days"
    if days >= FAR_DAYS:
        return pace
    return f"{pace}, on {datetime.fromtimestamp(now + days * 86400, UTC):%Y-%m-%d}, unless [retention] lets enough leave"


def find_problems(settings: Settings) -> Iterator[str]:
    """What would keep the daemon from working well, one sentence each."""
    yield from _schedule_problems(settings)
    yield from _folder_problems(settings)
    yield from _limit_problems(settings)
    yield from _model_problems(settings)


def _schedule_problems(settings: Settings) -> Iterator[str]:
    try:
        Schedule(settings.retrain)
    except ConfigError as error:
        yield str(error)


def _folder_problems(settings: Settings) -> Iterator[str]:
    folders = {f"[paths] {name}": settings.folder(name) for name in FOLDERS}
    if settings.archive:
        folders["[retention] archive"] = settings.archive
        if settings.root.exists() and not settings.archive.parent.exists():
            yield f"[retention] archive: expected a disk that is mounted. Received: no folder {settings.archive.parent}"
    for key, folder in folders.items():
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            yield f"{key}: expected a folder. Received: {nearest} is a file"
        elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
            yield f"{key}: {nearest} is not readable and writable for this user"
    for name in ONE_FILE_SYSTEM:
        try:
            try_renames(settings.folder("work"), settings.folder(name))
        except OSError as error:
            if error.errno == errno.EXDEV:  # all else was said above, or is not there yet
                yield f"[paths]: work and {name} are not on one file system and in one mount; files are renamed between them"


def _limit_problems(settings: Settings) -> Iterator[str]:
    free = shutil.disk_usage(settings.root if settings.root.exists() else settings.file.parent).free
    if free < LOW_DISK_BYTES:
        yield f"[paths] root: only {free / 2**20:.0f} MiB are free on the disk"
    for limit, few in FEW_INOTIFY.items():
        try:
            value = int((INOTIFY / limit).read_text())
        except (OSError, ValueError):
            continue  # not Linux's usual /proc: nothing to say
        if value < few:
            yield f"fs.inotify.{limit} is {value}, expected at least {few}: the inbox may have to be polled; use sysctl"


def _model_problems(settings: Settings) -> Iterator[str]:
    for key, name in (("dataset", settings.training.dataset), ("scans", settings.training.scans)):
        if name and not name.startswith("keras:") and not (settings.root / name).exists():
            yield f"[training] {key}: there is nothing at {settings.root / name}; retraining would fail"
    try:
        version = Registry(settings.folder("models")).current()
    except (RegistryError, OSError) as error:
        yield f"[paths] models: {error}"
        return
    print(f"model {version.name}: {version.describe()}\n")
    from daemon.models.live import load
    from daemon.models.network import ModelError, build_model

    try:
        load(version)
        build_model(settings.training.layers)
    except (ModelError, ConfigError) as error:
        yield str(error)
