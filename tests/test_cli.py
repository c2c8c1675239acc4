"""cli.py: usage, configuration, exit codes."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon import __version__
from daemon.answering.root import take_root
from daemon.cli import main
from daemon.config import FOLDERS, load_settings
from tests.conftest import NOBODY, REPOSITORY, Digits, Run, digitd, make_root

HEAVY = ("tensorflow", "keras", "matplotlib", "h5py")


def test_help_lists_the_commands() -> None:
    """--help names every command, with a line on each."""
    done = digitd("--help")
    assert (0, "") == (done.returncode, done.stderr)
    for command in ("run", "predict", "retrain", "evaluate", "status", "check", "init"):
        assert f"\n    {command} " in done.stdout
    assert "digitd COMMAND --help" in done.stdout


def test_version_is_told() -> None:
    """--version prints the program and its version."""
    assert f"digitd {__version__}\n" == digitd("--version").stdout


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["predict"], ["status", "--no-such-option"], ["init"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or unknown command, argument or option: exit code 2, and the usage."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: digitd" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["status"], ["check"], ["predict", "a.png"], ["evaluate"], ["retrain"]])
def test_a_missing_configuration_exits_with_2(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a configuration every command says so, in a sentence."""
    assert main([command[0], "-c", str(tmp_path / "none.toml"), *command[1:]]) == 2
    assert f"No configuration: expected a file {tmp_path / 'none.toml'}" in capsys.readouterr().err


def test_a_wrong_configuration_exits_with_2(run: Run, root: Path) -> None:
    """A wrong key is named."""
    (root / "config.toml").write_text("[http]\nprot = 1\n")
    code, out, err = run("status")
    assert (2, "") == (code, out)
    assert "[http] prot: unknown key" in err
    assert "Traceback" not in err


def test_the_configuration_is_found_by_the_environment(root: Path) -> None:
    """DIGITD_CONFIG names the file where --config does not."""
    done = digitd("status", DIGITD_CONFIG=str(root / "config.toml"))
    assert (1, f"not running on {root}\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize("arguments", ["['--help']", "['--version']", "['status', '-c', CONFIG]", "['init', NEW]", "None"])
def test_light_commands_do_not_import_tensorflow(arguments: str, root: Path, tmp_path: Path) -> None:
    """Importing the command line, --help, status and init load nothing that needs a model."""
    code = f"""
import sys
CONFIG, NEW = {str(root / "config.toml")!r}, {str(tmp_path / "new")!r}
from daemon.cli import main
try:
    if {arguments} is not None:
        main({arguments})
except SystemExit:
    pass
print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "heavy: []" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize("program", [["-m", "daemon"], ["../bin/digitd"]])
def test_nothing_is_imported_from_the_current_folder(root: Path, tmp_path: Path, program: list[str]) -> None:
    """Neither by the command nor by a process that it starts: people may drop a .py where somebody types it."""
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/digitd").write_text("import sys; from daemon.cli import main; sys.exit(main())")  # as pip makes it
    for module in ("selectors", "socket", "signal", "resource", "argparse"):
        (here / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('{module} ')\n")
    (root / "models/v0001.json").unlink()  # it starts its processes, finds no model, and ends
    subprocess.run(
        [sys.executable, *program, "run", "-c", root / "config.toml"],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert not (tmp_path / "imported").exists()


SECOND = """
import sys
from daemon.cli import main
print(main(["run", "-c", sys.argv[1]]), "tensorflow" in sys.modules)
"""


def test_who_is_refused_a_root_does_not_wait_for_tensorflow(root: Path) -> None:
    """It takes seconds to import."""
    with ExitStack() as stack:
        take_root(load_settings(root / "config.toml"), stack)
        command = [sys.executable, "-c", SECOND, str(root / "config.toml")]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "1 False\n" == done.stdout
    assert f"{root}: expected no other daemon on this root. Received: one that has only just started.\n" == done.stderr


def test_a_wrong_schedule_keeps_the_daemon_from_starting(root: Path) -> None:
    """It had answered what was there before it ended."""
    (root / "inbox" / "a.png").write_bytes(b"")
    done = digitd("run", "-c", root / "config.toml", DIGITD_RETRAIN__CRON="hourly", DIGITD_HTTP__PORT="0")
    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("[retrain] cron: expected five fields")
    assert done.stderr.endswith("Received: 'hourly': it has 1.\n")


AS_ROOT = """
import sys
import daemon.index.filling, daemon.training.choosing, daemon.training.labelling, encodings.idna
from daemon.cli import main
sys.executable = "/bin/sh"  # this Python may be in root's home
sys.exit(main(sys.argv[1:]))
"""


def test_a_model_that_cannot_be_looked_at_is_said(run: Run) -> None:
    """As one in somebody's home: a sentence, and no traceback."""
    code, _, err = run("promote", f"{'x' * 300}.h5")
    assert (1, True) == (code, "File name too long" in err)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("command", [["correct", "a.png", "7"], ["index", "--rebuild"], ["promote", "v0001"]])
def test_what_root_types_leaves_nothing_of_roots(open_path: Path, digits: Digits, command: list[str]) -> None:
    """On a root that is another user's, whom it would shut out, and who could lead root astray."""
    root = make_root(open_path / "root")
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    (root / "processed" / "a.png").write_bytes(digits.png(0))
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-c", AS_ROOT, command[0], "-c", str(root / "config.toml"), *command[1:]],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert {NOBODY} == {path.lstat().st_uid for path in root.rglob("*")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_root_lays_out_no_root_through_a_link(open_path: Path) -> None:
    """Of whoever owns the folder, and wants a file of root's elsewhere."""
    root = open_path / "root"
    (root / "models").mkdir(parents=True)
    (open_path / "roots").mkdir(0o755)
    (root / "models" / "v0001.h5").symlink_to(open_path / "roots" / "made.h5")
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    command = [sys.executable, "-c", AS_ROOT, "init", str(root)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=False)
    assert 1 == done.returncode
    assert [] == list((open_path / "roots").iterdir())
