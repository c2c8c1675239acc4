"""A root without model or data set, for what only needs its folders."""

from pathlib import Path

import pytest

from daemon.config import Settings, load_settings

FOLDERS = ("results", "processed", "rejected", "corrections")


def bare_settings(root: Path, **retention: object) -> Settings:
    """The settings of a root in that folder, with [retention] as given."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {value!r}" for key, value in retention.items()]
    (root / "config.toml").write_text("\n".join(["[retention]", *lines, '[[training.layers]]\nlayer = "Flatten"\n']))
    return load_settings(root / "config.toml", {})


@pytest.fixture
def bare(tmp_path: Path) -> Settings:
    """A root with the folders and nothing in them."""
    return bare_settings(tmp_path)
