"""`digitd run`: the daemon, until it is told to stop."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack

from daemon.answering.retirement import Folders
from daemon.answering.root import StartError, keep_house, take_root
from daemon.config import Settings
from daemon.models.registry import RegistryError
from daemon.processes import take_temporary_folder
from daemon.reading.workers import start_fork_server
from daemon.training.schedule import Schedule


def run(settings: Settings, intake: bool) -> int:
    """Watch the inbox until SIGTERM.

    Args:
        settings: the configuration.
        intake: whether to answer what is dropped; else only all the rest is done.

    Returns:
        0, or 1 where the daemon could not start or a part of it died.

    Raises:
        ConfigError: the schedule is none.

    """
    # It waits until it is heeded: systemd does not start again whom it has ended.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    Schedule(settings.retrain)  # who mistyped it is told before anything is answered
    try:
        with ExitStack() as stack:  # first, so that who is refused does not import TensorFlow for it
            folders = take_root(settings, stack) if intake else None
            keep_house(settings, stack)
            return _serve(settings, folders)
    except (StartError, RegistryError) as error:
        print(error, file=sys.stderr)
        return 1


def _serve(settings: Settings, folders: Folders | None) -> int:
    take_temporary_folder(settings.root)
    if folders:
        start_fork_server()  # it gets ready while TensorFlow is imported here

    from daemon.models.network import ModelError
    from daemon.service import Service

    try:
        return Service(settings, folders).run()
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
