"""`digitd-python`: the Python that Spark starts its workers with; what it imports is compiled already.

Spark puts PySpark as a .zip before everything else, and in there no compiled modules can be kept: each process would compile
them anew, which takes 1.2 s of CPU instead of 0.4.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

ARCHIVES = (".zip", ".jar")


def main() -> NoReturn:
    """Become the Python of this environment."""
    folders = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path and not path.endswith(ARCHIVES)]
    os.environ["PYTHONPATH"] = ":".join(folders)
    os.execv(sys.executable, [sys.executable, "-P", *sys.argv[1:]])  # noqa: S606  # this very Python, with what it was given
