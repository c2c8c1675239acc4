"""A root without model or data set, for what only needs its folders."""

from contextlib import closing
from pathlib import Path

import pytest

from daemon.config import Settings, load_settings
from daemon.index.schema import open_to_write, put_state

FOLDERS = ("results", "processed", "rejected", "corrections")


def bare_settings(root: Path, **retention: object) -> Settings:
    """The settings of a root in that folder, with [retention] as given."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {value!r}" for key, value in retention.items()]
    (root / "config.toml").write_text("\n".join(["[retention]", *lines, '[[training.layers]]\nlayer = "Flatten"\n']))
    return load_settings(root / "config.toml", {})


def has_gone_steadily(settings: Settings, now: float) -> None:
    """Note in the index that the clock, which shows this now, has not leapt for long."""
    with closing(open_to_write(settings.index, 0)) as connection:
        put_state(connection, clock=now, steady=0.0)


@pytest.fixture
def bare(tmp_path: Path) -> Settings:
    """A root with the folders and nothing in them."""
    return bare_settings(tmp_path)
