"""cli.py: the commands, their output and their exit codes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from daemon import __version__
from daemon.cli import main
from daemon.commands.status import read_status
from daemon.config import FOLDERS, HttpSettings
from daemon.telemetry.http import HttpServer
from daemon.telemetry.metrics import Metrics
from daemon.telemetry.presence import announce
from tests.conftest import REPOSITORY, Daemon, Digits, encode, files_below

HEAVY = ("tensorflow", "keras", "matplotlib", "h5py")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], root: Path) -> Run:
    """Runs a command in this process, on a fresh root: exit code, output, errors."""

    def run_here(*arguments: object) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return lambda command, *rest: run_here(command, "-c", root / "config.toml", *rest)


def digitd(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m daemon` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_lists_the_commands() -> None:
    """--help names every command, with a line on each."""
    done = digitd("--help")
    assert (0, "") == (done.returncode, done.stderr)
    for command in ("run", "predict", "retrain", "evaluate", "status", "check", "init"):
        assert f"\n    {command} " in done.stdout


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


def test_init_lays_out_a_root(tmp_path: Path) -> None:
    """All folders, configuration, model and data set are there; what it made passes its own check of the configuration."""
    new = tmp_path / "deep" / "new"
    done = digitd("init", new)
    assert (0, "") == (done.returncode, done.stderr)
    assert set(FOLDERS) <= {path.name for path in new.iterdir() if path.is_dir()}
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
    assert "expected a folder that can be written" in capsys.readouterr().err


def test_status_without_a_daemon_exits_with_1(run: Run, root: Path) -> None:
    """It says so, in words and in JSON."""
    assert (1, f"not running on {root}\n", "") == run("status")
    code, out, err = run("status", "--json")
    assert (1, {"running": False}, "") == (code, json.loads(out), err)


def test_status_of_a_daemon(daemon: Daemon, digits: Digits) -> None:
    """A running daemon's status is 0, with its model, its figures and where its metrics are."""
    daemon.drop("status.png", digits.png(0))
    daemon.result("status.png")
    done = digitd("status", "-c", daemon.root / "config.toml")
    assert (0, "") == (done.returncode, done.stderr)
    assert f"running   pid {daemon.process.pid} since " in done.stdout
    assert "ready     yes\nmodel     v0001, loaded 20" in done.stdout
    assert f"metrics   http://{daemon.address}/metrics\n" in done.stdout
    done = digitd("status", "--json", "-c", daemon.root / "config.toml")
    status = json.loads(done.stdout)
    assert (0, True, True, daemon.process.pid, "v0001") == (
        done.returncode,
        status["running"],
        status["ready"],
        status["pid"],
        status["model"],
    )
    assert status["images"]["accepted"] >= 1


@pytest.fixture
def announced(root: Path) -> Iterator[Callable[[str], None]]:
    """Says that this process is the daemon of the root, under an address."""
    with ExitStack() as stack:
        path = root / "work" / ".daemon.json"
        yield lambda address: stack.callback(os.close, announce(path, {"pid": os.getpid(), "address": address})) and None


def test_status_of_a_daemon_that_loads_its_model(run: Run, root: Path, announced: Callable[[str], None]) -> None:
    """Before the model is there, the status is 1 with the reason, and invents neither model nor date."""
    server = HttpServer(HttpSettings(port=0), Metrics(), list, lambda: ["start: the model is being loaded"])
    threading.Thread(target=server.run, daemon=True).start()
    announced(server.address)
    code, out, _ = run("status")
    status = read_status(root / "work")
    assert code == 1
    assert "ready     no: start: the model is being loaded\n" in out
    assert "None" not in out
    assert "1970" not in out
    assert (None, None) == (status["model"], status["model_loaded_at"])


def test_status_of_a_daemon_that_does_not_answer(run: Run, announced: Callable[[str], None]) -> None:
    """An address where nobody answers is said."""
    announced("127.0.0.1:1")
    code, out, _ = run("status")
    assert code == 1
    assert "it does not answer on http://127.0.0.1:1" in out


def test_status_asks_no_proxy(root: Path, announced: Callable[[str], None]) -> None:
    """The daemon is on this machine, whatever http_proxy says of the way to others."""
    server = HttpServer(HttpSettings(port=0), Metrics(), list, list)
    threading.Thread(target=server.run, daemon=True).start()
    announced(server.address)
    done = digitd("status", "-c", root / "config.toml", http_proxy="http://127.0.0.1:1", no_proxy="")
    assert "ready     yes" in done.stdout, done.stdout


def test_predict_prints_a_line_a_file(run: Run, tmp_path: Path, digits: Digits) -> None:
    """Name, digit and confidence."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(digits.png(number))
    code, out, err = run("predict", *(tmp_path / f"{number}.png" for number in range(3)))
    assert (0, "") == (code, err)
    expected = [f"{tmp_path / f'{number}.png'}: {digits.labels[number]}" for number in range(3)]
    assert expected == [line.rpartition(" (")[0] for line in out.splitlines()]


def test_predict_gives_json_as_in_results(run: Run, tmp_path: Path, digits: Digits) -> None:
    """With --json a line is a result or a rejection of the contract; a rejection makes the exit code 1."""
    (tmp_path / "a.png").write_bytes(digits.png(0))
    (tmp_path / "b.png").write_bytes(b"text")
    code, out, err = run("predict", "--json", tmp_path / "a.png", tmp_path / "b.png")
    assert (1, "") == (code, err)
    result, rejection = (json.loads(line) for line in out.splitlines())
    assert (str(tmp_path / "a.png"), digits.labels[0], "v0001") == (
        result["file"],
        result["digit"],
        result["model"]["version"],
    )
    assert (str(tmp_path / "b.png"), "not_an_image") == (rejection["file"], rejection["reason"])


def test_predict_goes_on_after_a_bad_file(run: Run, tmp_path: Path, digits: Digits) -> None:
    """Each bad file has its sentence, good ones their answer; the exit code is 1."""
    (tmp_path / "a.png").write_bytes(digits.png(0))
    (tmp_path / "b.png").write_bytes(b"text")
    code, out, err = run("predict", tmp_path / "none.png", tmp_path / "b.png", tmp_path / "a.png")
    assert code == 1
    assert out.startswith(f"{tmp_path / 'a.png'}: {digits.labels[0]} (")
    assert [f"{tmp_path / 'none.png'}: No such file or directory", f"{tmp_path / 'b.png'}: not_an_image: "] == [
        err.splitlines()[0],
        err.splitlines()[1][: len(f"{tmp_path / 'b.png'}: not_an_image: ")],
    ]


def test_predict_marks_what_a_person_should_see(
    run: Run, root: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of less than the configured confidence says so."""
    monkeypatch.setenv("DIGITD_INFERENCE__REVIEW_BELOW", "1.0")
    monkeypatch.setenv("DIGITD_INFERENCE__NOT_A_DIGIT_ABOVE", "9.0")
    ink = digits.images[0] // 2 + digits.images[1] // 2
    (root / "two.png").write_bytes(encode(ink))
    code, out, _ = run("predict", root / "two.png")
    assert code == 0
    assert out.endswith(", to be reviewed: low_confidence)\n")


def test_predict_without_a_model_exits_with_1(run: Run, root: Path) -> None:
    """It says which file it expected."""
    (root / "models" / "v0001.json").unlink()
    code, out, err = run("predict", root / "a.png")
    assert (1, "") == (code, out)
    assert "expected at least one model version" in err


def test_evaluate_on_a_small_data_set(run: Run, root: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, accuracy and confusion matrix of the test images of the configured data set."""
    x, y = digits.images[:200], np.array(digits.labels[:200])
    np.savez(root / "small.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "small.npz")
    code, out, err = run("evaluate")
    assert (0, "") == (code, err)
    lines = out.splitlines()
    assert "v0001 on 200 test images of small.npz" == lines[0]
    assert lines[1].startswith("loss ")
    rows = [line.split() for line in lines[5:15]]
    assert [str(digit) for digit in range(10)] == [row[0] for row in rows]
    assert 200 == sum(int(count) for row in rows for count in row[1:11] if count != ".")
    diagonal = sum(int(row[1 + digit]) for digit, row in enumerate(rows))
    assert f"accuracy  {diagonal / 200:.2%} ({200 - diagonal} wrong)" == lines[2]
    assert diagonal >= 198


def test_evaluate_of_an_unknown_version_exits_with_1(run: Run) -> None:
    """It lists the versions that there are."""
    code, out, err = run("evaluate", "v0009")
    assert (1, "") == (code, out)
    assert "Versions here: v0001" in err


def test_evaluate_without_data_exits_with_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set that is not there is a fault of the configuration."""
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "none.npz")
    code, out, err = run("evaluate")
    assert (2, "") == (code, out)
    assert "[training] dataset" in err


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


def test_check_names_every_problem(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a folder's place, a damaged model, a missing data set, a layer that Keras does not know: each is named."""
    monkeypatch.setenv("DIGITD_TRAINING__DATASET", "none.npz")
    (root / "results").rmdir()
    (root / "results").touch()
    (root / "models" / "v0001.h5").write_bytes(b"damaged")
    code, out, _ = run("check")
    assert code == 1
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    for expected in ("[paths] results: expected a folder", "[training] dataset: there is nothing", "v0001.h5: expected"):
        assert any(expected in problem for problem in problems), problems
