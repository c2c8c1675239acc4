"""Watches the inbox by watchdog's inotify observer. An event only says "look now"."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Counter
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask
from watchdog.observers.inotify_move_event_grouper import GroupedInotifyEvent

from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

DEEPEST_FOLDER = 1024  # bytes of a path below the inbox; with the longest root, name and tag it must fit into PATH_MAX


class Watch:
    """Calls `look` when the inbox changes, by watchdog's inotify observer; sweeps make up for whatever it cannot see."""

    def __init__(self, folder: Path, look: Callable[[], None], metrics: Metrics) -> None:
        self._folder, self._look, self._metrics = folder, look, metrics
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._blind = False

    def renew(self) -> None:
        """See to it that the folder now at this path is the one being watched."""
        try:
            status = self._folder.stat()
            identity = (status.st_dev, status.st_ino)
            if self._observer and self._watched == identity and all(e.is_alive() for e in self._observer.emitters):
                return
            self.stop()
            os.scandir(self._folder).close()  # watchdog says nothing when it may not watch
            self._start()
            self._watched = identity
            if self._blind:
                log.info("watching %s again", self._folder)
            self._blind = False
        except OSError as error:
            self.stop()
            if not self._blind:
                self._metrics.intake_errors.labels("watch").inc()
                log.warning("cannot watch %s: %s; it is looked through from time to time instead", self._folder, error)
            self._blind = True

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer:
            observer.stop()
            if observer.is_alive():
                observer.join()

    def _start(self) -> None:
        self._observer = BaseObserver(WakingEmitter, look=self._look, overflows=self._metrics.overflows)
        self._observer.schedule(FileSystemEventHandler(), str(self._folder), recursive=True)
        self._observer.start()


class WakingEmitter(InotifyEmitter):
    """Watchdog's emitter with a watch that wakes the pipeline itself, instead of making an event object for each file."""

    def __init__(self, *args: Any, look: Callable[[], None], overflows: Counter, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look, self._overflows = look, overflows

    def build_and_queue_event(self, event: GroupedInotifyEvent, *, full_events: bool = False) -> None:
        """No event objects: nobody takes them, and watchdog would walk through new folders for them, recursively."""

    def on_thread_start(self) -> None:
        self._inotify = WakingWatch(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            event_mask=WAKING,
            is_recursive=True,
            look=self._look,
            overflows=self._overflows,
        )


@dataclass(kw_only=True)
class WakingWatch(InotifyWatchGroup):
    """Runs in watchdog's reading thread; only folders need watchdog's books, to be watched themselves."""

    look: Callable[[], None]
    overflows: Counter

    def _add_all_callbacks(self, path: bytes) -> None:
        """Watch a folder and those below it. Watchdog's own way down is recursive, and deep folders would end its thread."""
        folders = [path]
        while folders:
            folder = folders.pop()
            if len(folder) > len(self.path) + DEEPEST_FOLDER:
                continue
            self._add_callback(folder)
            with suppress(OSError), os.scandir(folder) as entries:  # it has gone, or may not be read
                folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:  # noqa: ARG002 -- watchdog's signature
        """No events are made up for what a new folder holds: the sweep that its own event causes finds it."""
        return []

    def on_event(self, event: InotifyEvent) -> None:
        if event.is_directory:
            super().on_event(event)
        self.look()

    def on_queue_overflow(self) -> None:
        self.overflows.inc()
        super().on_queue_overflow()
        self.look()


# MOVED_FROM is left out: our own claims cause it, and watchdog would hold its queue back for 0.5 s on each.
WAKING = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_DELETE_SELF
)
