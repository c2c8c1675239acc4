"""Watches the inbox by watchdog's inotify observer. An event only says "look there now"."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask, WatchDescriptor
from watchdog.observers.inotify_move_event_grouper import GroupedInotifyEvent

from daemon.folders import DEEPEST_FOLDER, MOST_LEVELS, Folder
from daemon.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MOST_WATCHED = 50_000  # folders, which takes some seconds; what is in others, the next sweep of everything finds


class Watch:
    """Calls `look` when the inbox changes, by watchdog's inotify observer; sweeps make up for whatever it cannot see.

    Args:
        folder: the inbox.
        look: is told where, as `Inbox.look` takes it.
        metrics: counts overflows and failures to watch.

    """

    def __init__(self, folder: Path, look: Callable[..., None], metrics: Metrics) -> None:
        self._folder, self._look, self._metrics = folder, look, metrics
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._blind = False

    def renew(self, identity: tuple[int, int]) -> bool:
        """See to it that the folder now at this path, which has this device and inode, is the one being watched.

        Returns:
            Whether it was all the time, or could not be, so that no event was missed.

        """
        if self._observer and self._watched == identity and all(e.is_alive() for e in self._observer.emitters):
            return True
        try:
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
            was_blind, self._blind = self._blind and self._watched == identity, True
            self._watched = identity
            return was_blind
        return False

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer:
            observer.stop()
            if observer.is_alive():
                observer.join()

    def _start(self) -> None:
        self._observer = BaseObserver(WakingEmitter, look=self._look, overflowed=self._metrics.overflows.inc)
        self._observer.schedule(FileSystemEventHandler(), str(self._folder), recursive=True)
        self._observer.start()


class WakingEmitter(InotifyEmitter):
    """Watchdog's emitter with a watch that wakes the pipeline itself, instead of making an event object for each file."""

    def __init__(self, *args: Any, look: Callable[..., None], overflowed: Callable[[], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look, self._overflowed = look, overflowed

    def build_and_queue_event(self, event: GroupedInotifyEvent, *, full_events: bool = False) -> None:
        """No event objects: nobody takes them, and watchdog would walk through new folders for them, recursively."""

    def on_thread_start(self) -> None:
        self._inotify = WakingWatch(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            event_mask=WAKING,
            is_recursive=True,
            look=self._look,
            overflowed=self._overflowed,
        )


@dataclass(kw_only=True)
class WakingWatch(InotifyWatchGroup):
    """Runs in watchdog's reading thread; only folders need watchdog's books, to be watched themselves."""

    look: Callable[..., None]
    overflowed: Callable[[], None]

    def _add_all_callbacks(self, path: bytes) -> None:
        """Watch a folder and those below it, and no link that takes the place of one.

        Watchdog's own way down is recursive, so deep folders would end its thread, and it goes by path.
        """
        begin = self._below(path).lstrip("/")
        try:
            with Folder(os.fsdecode(self.path), mounts=False) as top:
                self._watch(top, begin)
                levels = [self._folders(top, begin)]  # not their names, for memory holds only so many
                while levels and len(self._active_callbacks_by_watch) < MOST_WATCHED:
                    folder = next(levels[-1], None)
                    if folder is None:
                        levels.pop()
                        continue
                    with suppress(OSError):  # it has gone, or may not be read
                        self._watch(top, folder)
                        levels.append(self._folders(top, folder))
        except OSError:
            if not begin:
                raise

    def _watch(self, top: Folder, folder: str) -> WatchDescriptor:
        descriptor = top.open_folder(folder.rstrip("/"))
        try:
            # Not add_callback, which spells all that is watched out in a warning where this is watched already.
            with self._inotify_fd._lock:  # noqa: SLF001
                watch = self._inotify_fd._get_or_create_watch(b"/proc/self/fd/%d/." % descriptor, self.event_mask)  # noqa: SLF001
                watch.callbacks[self._id] = self
        finally:
            os.close(descriptor)
        self._remove_watch_internally(watch.wd)  # under the name that it had
        path = os.path.join(self.path, os.fsencode(folder)).rstrip(b"/")
        self._active_callbacks_by_path[path] = watch.wd
        self._active_callbacks_by_watch[watch.wd] = path
        return watch.wd

    def _moved(self, wd: WatchDescriptor) -> None:
        """Forget a folder that has left the inbox, with those below it, for the kernel grants only so many watches."""
        path = self._active_callbacks_by_watch.get(wd)
        if path in (None, self.path):
            return
        try:
            with Folder(os.fsdecode(self.path), mounts=False) as top:
                if self._watch(top, self._below(path)) == wd:
                    return  # it has another name now
        except OSError:
            pass  # nothing has its name
        watched = self._active_callbacks_by_watch.items()
        self._remove_callbacks([other for other, at in watched if at == path or at.startswith(path + b"/")])
        self._add_all_callbacks(path)

    def _remove_watch_internally(self, wd: WatchDescriptor) -> None:
        """Forget a watch; watchdog's own raises where a folder has left and another one has come and gone by its name."""
        path = self._active_callbacks_by_watch.pop(wd, None)
        if path is not None and self._active_callbacks_by_path.get(path) == wd:
            del self._active_callbacks_by_path[path]

    def _folders(self, top: Folder, folder: str) -> Iterator[str]:
        if len(os.fsencode(folder)) > DEEPEST_FOLDER or folder.count("/") > MOST_LEVELS:
            return
        with suppress(OSError):  # it has gone, or may not be listed
            for entry in top.entries(folder.rstrip("/")):
                if entry.is_dir(follow_symlinks=False):
                    yield f"{folder}{entry.name}/"

    def _below(self, path: bytes) -> str:
        """A path as `Inbox.look` takes it: from the inbox, everything below it included."""
        return os.fsdecode(path[len(self.path) :]).strip("/") + "/"

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:  # noqa: ARG002 -- watchdog's signature
        """No events are made up for what a new folder holds: the sweep that its own event causes finds it."""
        return []

    def on_event(self, event: InotifyEvent) -> None:
        folder = self._active_callbacks_by_watch.get(event.wd, self.path)
        if event.is_move_self:
            with self._lock:
                self._moved(event.wd)
        elif event.is_directory:
            super().on_event(event)
            self.look(self._below(os.path.join(folder, event.name)))
        else:
            self.look(self._below(folder).rstrip("/"), os.fsdecode(event.name))

    def on_queue_overflow(self) -> None:
        self.overflowed()
        super().on_queue_overflow()
        self.look("/")


# MOVED_FROM is left out: our own claims cause it, and watchdog would hold its queue back for 0.5 s on each.
WAKING = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
)
