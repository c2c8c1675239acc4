"""`digitd init`: a new root."""

from pathlib import Path

import pytest

from daemon.cli import main
from daemon.config import FOLDERS
from tests.conftest import REPOSITORY, digitd, files_below


def test_init_lays_out_a_root(tmp_path: Path) -> None:
    """All folders, configuration, model and data set are there; what it made passes its own check of the configuration."""
    new = tmp_path / "deep" / "new"
    done = digitd("init", new)
    assert (0, "") == (done.returncode, done.stderr)
    assert set(FOLDERS) <= {path.name for path in new.iterdir() if path.is_dir()}
    assert [*map(str, range(10)), "none"] == sorted(path.name for path in (new / "corrections").iterdir())
    datasets = {"datasets/mnist.npz", "datasets/scans.npz", "datasets/NOTICE"}
    shipped = {"config.toml", "models/v0001.h5", "models/v0001.json"} | datasets
    assert shipped == files_below(new)
    for name in shipped:
        assert (REPOSITORY / name).read_bytes() == (new / name).read_bytes()


def test_init_keeps_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second time nothing is overwritten, and a missing folder comes back."""
    assert main(["init", str(tmp_path)]) == 0
    (tmp_path / "config.toml").write_text((REPOSITORY / "config.toml").read_text() + "\n# mine\n")
    (tmp_path / "inbox").rmdir()
    assert main(["init", str(tmp_path)]) == 0
    assert (tmp_path / "config.toml").read_text().endswith("# mine\n")
    assert (tmp_path / "inbox").is_dir()
    assert f"kept    {tmp_path / 'config.toml'}" in capsys.readouterr().out


def test_init_where_it_cannot_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the folder's place is told in a sentence."""
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'}: expected a folder that can be written. Received: File exists.\n" == capsys.readouterr().err
