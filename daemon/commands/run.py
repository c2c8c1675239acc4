"""`digitd run`: the daemon, until it is told to stop."""

from __future__ import annotations

import sys

from daemon.config import Settings
from daemon.processes import take_temporary_folder
from daemon.reading.workers import start_fork_server


def run(settings: Settings, intake: bool) -> int:
    """Watch the inbox until SIGTERM.

    Args:
        settings: the configuration.
        intake: whether to answer what is dropped; else only all the rest is done.

    Returns:
        0, or 1 where the daemon could not start or a part of it died.

    """
    take_temporary_folder(settings.root)
    if intake:
        start_fork_server()  # it gets ready while TensorFlow is imported here

    from daemon.answering.root import StartError
    from daemon.models.network import ModelError
    from daemon.models.registry import RegistryError
    from daemon.service import Service

    try:
        return Service(settings, intake).run()
    except (StartError, RegistryError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
