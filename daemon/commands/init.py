"""`digitd init`: a new root with everything that the daemon needs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from daemon.config import FOLDERS, SHARE, load_settings
from daemon.folders import Folder
from daemon.processes import become_owner
from daemon.training.corrections import make_folders

SHARED = (
    "config.toml",
    "models/v0001.h5",
    "models/v0001.json",
    "datasets/mnist.npz",
    "datasets/scans.npz",
    "datasets/NOTICE",
)


def lay_out(folder: Path) -> int:
    """Make the folders and copy configuration, model and data set; what is there already stays as it is.

    Returns:
        0, or 1 where the folder cannot be written.

    """
    become_owner(folder)
    try:
        for name in SHARED:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                print(f"kept    {target}")
            else:
                shutil.copyfile(SHARE / name, target)
                print(f"made    {target}")
        settings = load_settings(folder / "config.toml")
        for name in FOLDERS:
            settings.folder(name).mkdir(parents=True, exist_ok=True)
        with Folder(settings.folder("corrections")) as corrections:
            make_folders(corrections)
    except OSError as error:
        print(
            f"{error.filename or folder}: expected a folder that can be written. Received: {error.strerror}.",
            file=sys.stderr,
        )
        return 1
    print(f"\nStart the daemon with: digitd run --config {folder / 'config.toml'}")
    return 0
