"""`digitd stream`: the daemon's walk on Apache Spark, until it is told to stop."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

from daemon.config import Settings


def stream(settings: Settings, master: str) -> int:
    """Answer what is dropped, on one machine or many, until SIGTERM.

    Args:
        settings: the configuration.
        master: where Spark runs; "" leaves it to `spark-submit`.

    Returns:
        0; 1 where it could not start or failed; 2 where the extra is not installed, which trying again does not change.

    """
    outlive_hangups()
    if importlib.util.find_spec("pyspark") is None or importlib.util.find_spec("pyarrow") is None:
        print(
            "digitd stream: expected PySpark and PyArrow. Received: neither or one of them. Install them with: "
            f"{sys.prefix}/bin/pip install --require-hashes -r requirements-spark.txt",
            file=sys.stderr,
        )
        return 2

    from daemon.answering.root import StartError
    from daemon.cluster.stream import Stream
    from daemon.models.registry import RegistryError

    try:
        return Stream(settings, master).run()
    except (StartError, RegistryError) as error:
        print(error, file=sys.stderr)
        return 1


def outlive_hangups() -> None:
    """Ignore SIGHUP, after which systemd starts nobody again, unless it may come from a terminal that was closed."""
    if not os.isatty(0):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
