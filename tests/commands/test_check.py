"""`digitd check`: what is in force, and what is wrong with it."""

import tomllib
from pathlib import Path

import pytest

from daemon.commands.check import disk_pace
from daemon.config import Settings
from tests.conftest import Run
from tests.index.answers import NOON


def test_check_finds_nothing_wrong(run: Run, root: Path) -> None:
    """On a fresh root it prints what is in force, and exits with 0."""
    code, out, err = run("check")
    assert (0, "") == (code, err)
    assert "rescan_seconds = 5.0\n" in out
    assert f"# {root / 'config.toml'}, " in out
    assert out.endswith("no problems found\n")


def test_check_shows_what_the_environment_overrides(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is what is in force."""
    monkeypatch.setenv("DIGITD_INBOX__RESCAN_SECONDS", "7.5")
    assert "rescan_seconds = 7.5\n" in run("check")[1]


def test_what_check_prints_is_a_configuration(run: Run, settings: Settings) -> None:
    """As TOML, and that of config.toml; of the layers it has but the names."""
    printed = tomllib.loads(run("check")[1].split("[[training.layers]]")[0])
    assert settings.model_dump(exclude={"training": {"layers"}}) == printed


def test_check_names_every_problem(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a folder's place, a damaged model, a missing data set, missing scans: each is named."""
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "none.npz")
    monkeypatch.setenv("DIGITD_TRAINING__SCANS", "none.npz")
    (root / "results").rmdir()
    (root / "results").touch()
    (root / "models" / "v0001.h5").write_bytes(b"damaged")
    code, out, _ = run("check")
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    nothing = [f"[training] {key}: there is nothing at" for key in ("dataset", "scans")]
    for expected in ("[paths] results: expected a folder", *nothing, "v0001.h5: expected"):
        assert any(expected in problem for problem in problems), problems


def test_check_finds_an_archive_whose_disk_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing would leave, which nobody would notice for months."""
    monkeypatch.setenv("DIGITD_RETENTION__ARCHIVE", str(tmp_path / "disk" / "archive"))
    code, out, _ = run("check")
    assert code == 1
    assert f"problem: [retention] archive: expected a disk that is mounted. Received: no folder {tmp_path}/disk\n" in out


def test_check_finds_a_schedule_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong cron is a problem before the service is restarted, not after."""
    monkeypatch.setenv("DIGITD_RETRAIN__CRON", "0 25 * * *")
    code, out, _ = run("check")
    assert code == 1
    assert "problem: [retrain] cron: expected" in out


@pytest.mark.parametrize("key", ["OPTIMIZER", "LOSS"])
def test_check_refuses_what_keras_does_not_know(run: Run, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A wrong optimizer or loss is a wrong configuration, as for every other command."""
    monkeypatch.setenv(f"DIGITD_TRAINING__{key}", "adamm")
    code, _, err = run("check")
    assert code == 2
    assert f"[training] {key.lower()}: expected '" in err
    assert "Received: 'adamm' (str)." in err


def test_check_says_when_the_disk_is_full(answered: Settings) -> None:
    """By the pace of the last week; nothing where nothing was answered, or there is no index."""
    pace = disk_pace(answered, NOON + 1000)
    assert pace
    assert pace.startswith("answers take 0.0 MiB a day; ")
    assert disk_pace(answered, NOON + 1e9) is None
    answered.index.unlink()
    assert disk_pace(answered, NOON) is None
