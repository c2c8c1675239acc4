"""python -m daemon."""

import os
import sys

if sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH109, PTH120 -- nothing is imported yet
    del sys.path[0]  # as for the command `digitd`, a file in the current folder is no module

from daemon.cli import main

if __name__ == "__main__":
    sys.exit(main())
