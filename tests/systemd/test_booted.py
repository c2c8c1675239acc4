"""The service in a booted systemd: installed, used, attacked, killed, upgraded and removed, in this order.

Run by `make test-systemd`, which needs root, debootstrap and systemd-nspawn. What it fetches is kept in build/test-systemd.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.systemd.machine import PYTHON, Machine, debootstrap, why_not

REPOSITORY = Path(__file__).parent.parent.parent
KEPT = REPOSITORY / "build/test-systemd"
INBOX, RESULTS = "/var/lib/digitd/inbox", "/var/lib/digitd/results"
BACKLOG = 400
ASKED = "TEST_SYSTEMD"  # not DIGITD_…: conftest.py takes those out of the environment

ALLOWED = {  # of what attack.py tries: what each service lives on
    "digitd.service": {
        "write into its data",
        "write a label",
        "write into its cache",
        "talk over AF_UNIX",
        "step back to SCHED_IDLE",
        "read the configuration",
    },
    "digitd-open.service": {"write a label", "talk over AF_UNIX"},  # with itself alone: socketpair(2)
    "digitd-web.service": {
        "write a label",
        "talk over AF_UNIX",
        "read the configuration",
        "connect over TCP",  # to ask the daemon for its metrics
        "open an IPv6 socket",
    },
}

reason = why_not() if os.environ.get(ASKED) else "takes minutes; run `make test-systemd`"
pytestmark = [pytest.mark.skipif(reason is not None, reason=str(reason)), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the source in /src, digits in /drops, and three people: alice and bob in the group, mallory not."""
    folder = tmp_path_factory.mktemp("machine")
    source, drops = folder / "src", folder / "drops"
    copy_source(source)
    save_drops(drops)
    attack = folder / "attack"
    attack.mkdir()
    for name in ("attack.py", "visit.py"):
        shutil.copy(Path(__file__).parent / name, attack)
    shown = {"/src": source, "/drops": drops, "/wheels": fetch_wheels(), "/attack": attack}
    machine = Machine(debootstrap(KEPT), folder / "root", shown)
    try:
        for person in ("alice", "bob", "mallory"):
            machine.run("useradd", "--create-home", person)
        machine.run("sh", "-c", "echo secret >/root/secret; echo readable >/home/alice/readable; chmod 755 /home/alice")
        yield machine
    finally:
        machine.close()


def copy_source(target: Path) -> None:
    """What git would commit, and what it has."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout.decode()
    for name in names.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target / name)


def fetch_wheels() -> Path:
    """Everything that the program depends on, for the machine's Python, fetched once."""
    wheels = KEPT / "wheels"
    if not wheels.exists():
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
        locked = REPOSITORY / "requirements.txt"
        wanted = ["-r", str(locked)] if locked.exists() else project["project"]["dependencies"]
        for packages in (wanted, project["build-system"]["requires"]):
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels.with_suffix(".new"))),
                    *("--only-binary", ":all:", "--python-version", PYTHON, *packages),
                ],
                check=True,
            )
        wheels.with_suffix(".new").rename(wheels)
    return wheels


def save_drops(folder: Path) -> None:
    """Test images of the data set, as <number>-<digit>.png, and a data set on which a training takes seconds."""
    folder.mkdir(mode=0o755)
    with np.load(REPOSITORY / "datasets/mnist.npz") as data:
        for number, (image, digit) in enumerate(zip(data["x_test"][:BACKLOG], data["y_test"], strict=False)):
            Image.fromarray(image).save(folder / f"{number:03}-{digit}.png")
        x, y = data["x_test"], data["y_test"]
        np.savez(folder / "small.npz", x_train=x[:2000], y_train=y[:2000], x_test=x[2000:2500], y_test=y[2000:2500])


def install(machine: Machine) -> str:
    """What `make install` runs, typed by a person with a strict umask, which sudo keeps."""
    return machine.run("sh", "-c", "umask 077; exec /src/systemd/install.sh")


def results(machine: Machine, folder: str = RESULTS) -> dict[str, int]:
    """The digit of each result below a folder, by its image's name."""
    code = f"cat $(find {folder} -name '*.json' -not -path '*/.tmp/*' 2>/dev/null) /dev/null"
    lines = map(json.loads, machine.run("sh", "-c", code, user="alice").splitlines())
    return {line["file"]: line["digit"] for line in lines}


def wait_for_results(machine: Machine, folder: str, count: int) -> None:
    """Wait until a folder below results/ holds so many, and all of them name the right digit, but for the model's errors."""
    machine.wait_until(lambda: len(results(machine, folder)) == count, f"{count} results in {folder}")
    wrong = [name for name, digit in results(machine, folder).items() if f"-{digit}.png" not in name]
    assert len(wrong) <= count / 50


def restarts(machine: Machine) -> int:
    """How often systemd has restarted the service by itself."""
    return int(machine.property("NRestarts"))


def test_install_makes_a_ready_service(machine: Machine) -> None:
    """One command installs, starts and waits; the installed units satisfy systemd."""
    said = install(machine)
    assert "ready " in said
    assert machine.property("ActiveState") == "active"
    assert machine.ready()
    installed = "/usr/local/lib/systemd/system"
    units = machine.run("sh", "-c", f"ls {installed}/digitd*").split()
    assert machine.run("systemd-analyze", "verify", *units) == ""
    for unit in ("digitd", "digitd-open", "digitd-web", "digitd-stream"):
        print(machine.run("systemd-analyze", "security", "--no-pager", f"{unit}.service").splitlines()[-1])
    enabled = machine.run("systemctl", "list-unit-files", "digitd*", "--state", "enabled", "--no-legend")
    assert [line.split()[0] for line in enabled.splitlines()] == ["digitd.service"]
    assert machine.run("digitd", "--version", user="alice").startswith("digitd ")


def test_a_member_of_the_group_drops_and_reads(machine: Machine) -> None:
    """Whatever the umask: files and sub-folders of an ordinary member are answered, and the answer is readable."""
    machine.run("usermod", "--append", "--groups", "digitd", "alice")
    machine.run("usermod", "--append", "--groups", "digitd", "bob")
    machine.run("sh", "-c", f"umask 077; cat /drops/000-7.png >{INBOX}/strict-7.png", user="alice")
    machine.run("sh", "-c", f"mkdir {INBOX}/alice && cp /drops/00[0-4]-*.png {INBOX}/alice/", user="alice")
    machine.run("sh", "-c", f"cp /drops/001-2.png {INBOX}/bob-2.png", user="bob")
    wait_for_results(machine, RESULTS, 7)
    assert results(machine)["strict-7.png"] == 7
    machine.wait_until(
        lambda: machine.succeeds("test", "-r", "/var/lib/digitd/processed/bob-2.png", user="alice"), "retired"
    )


def test_folders_are_taken_however_they_come(machine: Machine) -> None:
    """By `cp -r`, `cp -a`, `mv` and `tar`, with a usual umask and with a strict one, with the sticky bit, at any depth."""
    made = []
    for umask in ("022", "077"):
        for way, command in {
            "cp-r": f"cp -r batch {INBOX}/",
            "cp-a": f"cp -a batch {INBOX}/",
            "mv": f"mv batch {INBOX}/",
            "sticky": f"find batch -type d -exec chmod +t {{}} +; mv batch {INBOX}/",
            "tar": f"tar -cf - batch | tar -xf - -C {INBOX}",
        }.items():
            name = f"{way}-{umask}"
            script = (
                f"umask {umask}; cd /home/alice; mkdir -p {name}/deep/er; cp /drops/00[0-4]-*.png {name}/; "
                f"cp /drops/00[5-9]-*.png {name}/deep/er/; find {name} -type f -exec chmod 644 {{}} +; "
            )
            machine.run("sh", "-c", script + command.replace("batch", name), user="alice")
            made.append(name)
    for name in made:
        wait_for_results(machine, f"{RESULTS}/{name}", 10)
    assert machine.run("find", "/var/lib/digitd/rejected", "-type", "f") == ""
    assert "cannot" not in machine.journal()
    assert machine.property("ActiveState") == "active"


def test_a_member_of_the_group_can_ask(machine: Machine) -> None:
    """What README tells people to type works for a member of the group, for the service's own user, and for root."""
    assert "ready     yes" in machine.run("digitd", "status", user="alice")
    assert "v0001" in machine.run("digitd", "models", user="alice")
    assert "no problems found" in machine.run("digitd", "check", user="digitd")
    assert "7 (" in machine.run("digitd", "predict", "/drops/000-7.png", user="alice")
    private = "install -d -m 700 /root/private; cd /root/private; exec runuser -u digitd -- "
    assert "7 (" in machine.run("sh", "-c", f"{private} digitd predict /drops/000-7.png")
    assert "v0001 -> v0001" in machine.run("digitd", "promote", "v0001")
    assert "it is whole" in machine.run("digitd", "index", "--rebuild")
    assert machine.run("find", "/var/lib/digitd", "-user", "root") == "", "the service is not shut out"


def test_somebody_else_can_neither_drop_nor_read(machine: Machine) -> None:
    """Who is not in the group sees nothing of it, and is told so."""
    assert not machine.succeeds("cp", "/drops/000-7.png", INBOX, user="mallory")
    assert not machine.succeeds("ls", RESULTS, user="mallory")
    for command in ("status", "models"):
        said = machine.run("digitd", command, user="mallory", check=False)
        assert "expected a user who may use it. Received: mallory" in said
        assert "Traceback" not in said
    assert not machine.succeeds("touch", f"{RESULTS}/forged.json", user="alice")


def test_reload_changes_what_can_change_live(machine: Machine) -> None:
    """`systemctl reload` puts a new threshold in force and names what needs a restart, in the same process."""
    process = machine.property("MainPID")
    change = "s/^review_below = 0.9 /review_below = 1.0 /; s/^workers = 2 /workers = 1 /"
    machine.run("sed", "--in-place=.before", change, "/etc/digitd/config.toml")
    machine.run("systemctl", "reload", "digitd.service")
    machine.wait_until(lambda: "config.toml again" in machine.journal(), "the journal to tell of it")
    assert "inference.review_below is now 1.0; it was 0.9" in machine.journal()
    assert "inbox.workers = 1 needs a restart; 2 stays in force" in machine.journal()
    assert machine.property("MainPID") == process
    machine.run("mv", "/etc/digitd/config.toml.before", "/etc/digitd/config.toml")
    machine.run("systemctl", "reload", "digitd.service")


def test_the_journal_is_fit_to_read(machine: Machine) -> None:
    """Warnings have the priority of warnings, and no line repeats the time that the journal has."""
    lines = machine.run("journalctl", "--unit", "digitd.service", "--output", "json", "_COMM=digitd").splitlines()
    entries = [json.loads(line) for line in lines]
    assert next(entry["PRIORITY"] for entry in entries if "needs a restart" in entry["MESSAGE"]) == "4"
    assert next(entry["PRIORITY"] for entry in entries if "watching /var" in entry["MESSAGE"]) == "6"
    assert not [entry["MESSAGE"] for entry in entries if entry["MESSAGE"].startswith(("2", "<"))]


@pytest.mark.parametrize("unit", ALLOWED)
def test_the_sandbox_denies_what_it_should(machine: Machine, unit: str) -> None:
    """Every attempt that succeeds for root outside the sandbox fails inside, but for what the service lives on."""
    text = Path(REPOSITORY / "systemd" / unit).read_text()
    program = "/opt/digitd/current/bin/python"
    text = re.sub(r"^(Type|ExecStart|Restart|WatchdogSec)=.*\n", "", text, flags=re.MULTILINE)
    attack = f"[Service]\nType=oneshot\nExecStart={program} /attack/attack.py\nStandardOutput=truncate:/run/attack.json\n"
    (machine.folder / "etc/systemd/system/attack.service").write_text(text.replace("[Service]\n", attack))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "attack.service")
    inside = json.loads(machine.run("cat", "/run/attack.json"))
    outside = json.loads(machine.run(program, "/attack/attack.py"))
    print("\n".join(f"{name:36} outside: {outside[name]:40} inside: {inside[name]}" for name in inside))
    assert outside == dict.fromkeys(outside, "allowed")
    assert {name for name in inside if inside[name] == "allowed"} == ALLOWED[unit]


def test_the_page_is_off_until_somebody_enables_it(machine: Machine) -> None:
    """Then whoever may read its token looks and labels, from this machine, and the daemon takes the label."""
    unit, token = "digitd-web.service", "/etc/digitd/web-token"
    assert machine.property("ActiveState", unit) == "inactive"
    machine.run("systemctl", "enable", "--now", unit)
    assert not machine.succeeds("cat", token, user="mallory")
    visit = ("/opt/digitd/current/bin/python", "/attack/visit.py")
    machine.wait_until(lambda: machine.succeeds(*visit, token, user="alice"), "the page, with its token")
    assert "HTTP Error 401" in machine.run(*visit, "/dev/null", user="mallory", check=False)
    listening = machine.run("sh", "-c", "grep --no-filename ' 0A ' /proc/net/tcp /proc/net/tcp6")
    assert re.findall(r" (\w+):263C ", listening) == ["0100007F"]  # port 9788, at 127.0.0.1 alone
    assert '"failed":[]' in machine.run(*visit, token, "7", user="alice").replace(" ", "")
    labels = machine.run("find", "/var/lib/digitd/corrections/7", "-type", "f", "-user", "digitd-web", "-group", "digitd")
    assert len(labels.split()) == 1
    machine.wait_until(lambda: 'digitd_corrections_total{agrees="yes"} 1.0' in machine.get("/metrics"), "the label")
    assert machine.property("NRestarts", unit) == "0"


def test_it_retrains_and_swaps_in_the_sandbox(machine: Machine) -> None:
    """Corrections from people lead to a training at idle priority, a verdict and a swap, all within the unit's limits."""
    machine.run("install", "-o", "digitd", "-g", "digitd", "/drops/small.npz", "/var/lib/digitd/datasets/small.npz")
    changes = {
        'dataset = "[^"]*"': 'dataset = "datasets/small.npz"',
        'scans = "[^"]*"': 'scans = ""',
        "synthetic_digits = 20000 ": "synthetic_digits = 100 ",  # each takes milliseconds to draw and to read
        "synthetic_no_digits = 6000 ": "synthetic_no_digits = 100 ",
        "steps = 1200 ": "steps = 24 ",
        "learning_rate = 0.001 ": "learning_rate = 0.000001 ",  # the candidate is as good as the champion
        "margin = 0.0025 ": "margin = 0.05 ",  # of 500 images
        "review_margin = 0.01 ": "review_margin = 0.05 ",
        "after_corrections = 50 ": "after_corrections = 40 ",
        "quiet_seconds = 60.0 ": "quiet_seconds = 1.0 ",
    }
    script = ";".join(f"s|^{old}|{new}|" for old, new in changes.items())
    machine.run("sed", "--in-place", script, "/etc/digitd/config.toml")
    machine.run("systemctl", "reload", "digitd.service")
    machine.wait_until(lambda: "retrain.after_corrections is now 40" in machine.journal(), "the new configuration")
    machine.run("digitd", "correct", "alice/001-2.png", "2", user="alice")
    for digit in range(10):
        folder = f"/var/lib/digitd/corrections/{digit}"
        machine.run("sh", "-c", f"mkdir -p {folder} && cp /drops/0[0-9][0-9]-{digit}.png {folder}/", user="bob")
    machine.wait_until(lambda: machine.trainers() != [], "a training")
    trainer = machine.trainers()[0]
    machine.wait_until(lambda: "SCHED_IDLE" in machine.run("chrt", "--pid", trainer), "the training to step back")

    def ended() -> bool:
        for trainer in machine.trainers():  # others may keep the processor busy: the test cannot wait for idle time
            machine.run("chrt", "--all-tasks", "--other", "--pid", "0", trainer, check=False)
        return 'digitd_training_runs_total{result="promoted"} 1.0' in machine.get("/metrics")

    machine.wait_until(ended, "the training to end", 600)
    machine.wait_until(lambda: 'version="v0002"' in machine.get("/metrics"), "the swap")
    machine.run("cp", "/drops/003-0.png", f"{INBOX}/after-swap-0.png", user="alice")
    machine.wait_until(lambda: results(machine).get("after-swap-0.png") == 0, "a result of the new version")
    assert '"version":"v0002"' in machine.run("cat", f"{RESULTS}/after-swap-0.png.json", user="bob")
    assert "not permitted" not in machine.run("cat", "/var/lib/digitd/logs/training/v0002/trainer.log")
    assert "v0003" in machine.run("digitd", "retrain")  # by root, who leaves nothing that shuts the service out
    assert machine.run("find", "/var/lib/digitd", "-user", "root", "-path", "*/v0003*") == ""


def test_nothing_is_lost_when_it_is_killed(machine: Machine) -> None:
    """Kill -9 in the middle of a backlog: it is ready again by itself, and every drop has its result."""
    before = restarts(machine)
    machine.run("sh", "-c", f"mkdir {INBOX}/killed && cp /drops/*.png {INBOX}/killed/", user="alice")
    machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "digitd.service")
    machine.wait_until(lambda: restarts(machine) == before + 1 and machine.ready(), "it to be ready again")
    wait_for_results(machine, f"{RESULTS}/killed", BACKLOG)
    assert machine.run("find", "/var/lib/digitd/rejected", "-type", "f") == ""


def test_the_watchdog_restarts_what_hangs(machine: Machine) -> None:
    """A stopped process feeds no watchdog: systemd ends it and starts it again."""
    before = restarts(machine)
    machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "digitd.service")
    machine.wait_until(lambda: restarts(machine) == before + 1 and machine.ready(), "the watchdog to restart it")
    assert "Watchdog timeout" in machine.journal()


def test_stop_is_clean_and_lasts(machine: Machine) -> None:
    """Stopping takes less than its limit, leaves nothing behind, and a scrape does not start it again."""
    began = time.monotonic()
    machine.run("systemctl", "stop", "digitd.service")
    assert time.monotonic() - began < 15
    assert machine.property("Result") == "success"
    assert machine.get("/metrics") == ""
    assert machine.property("ActiveState") == "inactive"
    assert re.findall(r" digitd +digitd ", machine.run("sh", "-c", "ls -ld /proc/[0-9]*")) == []  # owner and group


def test_an_upgrade_keeps_backlog_and_configuration(machine: Machine) -> None:
    """Dropped while it was stopped, answered by the new version; the old program is gone, the configuration as it was."""
    machine.run("sh", "-c", f"mkdir {INBOX}/upgrade && cp /drops/*.png {INBOX}/upgrade/", user="alice")
    machine.run("sh", "-c", "echo '# ours' >>/etc/digitd/config.toml")
    version = machine.folder.parent / "src/daemon/__init__.py"
    text = version.read_text()
    version.write_text(text.replace('__version__ = "', '__version__ = "9.'))
    assert version.read_text() != text
    said = install(machine)
    assert "kept       /etc/digitd/config.toml" in said
    assert machine.run("tail", "-1", "/etc/digitd/config.toml") == "# ours\n"
    assert 'digitd_build_info{version="9.' in machine.get("/metrics")
    wait_for_results(machine, f"{RESULTS}/upgrade", BACKLOG)
    assert len(machine.run("sh", "-c", "ls -d /opt/digitd/2*").split()) == 1


def test_an_upgrade_that_cannot_work_changes_nothing(machine: Machine) -> None:
    """A configuration that the new version refuses is named, and what runs goes on running."""
    process, program = machine.property("MainPID"), machine.run("readlink", "/opt/digitd/current")
    machine.run("sed", "--in-place=.before", "s/^workers = /wrokers = /", "/etc/digitd/config.toml")
    failed = machine.run("/src/systemd/install.sh", check=False)
    assert "wrokers: unknown key" in failed
    assert "Nothing was changed" in failed
    assert machine.property("MainPID") == process
    assert machine.run("readlink", "/opt/digitd/current") == program
    assert len(machine.run("sh", "-c", "ls -d /opt/digitd/2*").split()) == 1
    machine.run("mv", "/etc/digitd/config.toml.before", "/etc/digitd/config.toml")


def test_an_upgrade_that_does_not_become_ready_is_taken_back(machine: Machine) -> None:
    """The old program runs again with the units it came with, the new one is gone, and what was dropped is answered."""
    program, installed = machine.run("readlink", "/opt/digitd/current"), "/usr/local/lib/systemd/system/digitd.service"
    unit = machine.run("cat", installed)
    service, new_unit = (machine.folder.parent / "src" / name for name in ("daemon/service.py", "systemd/digitd.service"))
    texts = {path: path.read_text() for path in (service, new_unit)}
    service.write_text("raise SystemExit('this version is broken')\n")
    new_unit.write_text(texts[new_unit].replace("digitd run --config", "digitd run --no-such-option --config"))
    machine.run("sh", "-c", f"mkdir {INBOX}/broken && cp /drops/*.png {INBOX}/broken/", user="alice")
    failed = machine.run("/src/systemd/install.sh", check=False)
    for path, text in texts.items():
        path.write_text(text)
    assert "the new version did not become ready" in failed
    assert machine.run("readlink", "/opt/digitd/current") == program
    assert machine.run("cat", installed) == unit
    assert len(machine.run("sh", "-c", "ls -d /opt/digitd/2*").split()) == 1
    assert machine.ready()
    wait_for_results(machine, f"{RESULTS}/broken", BACKLOG)


def test_a_wrong_configuration_is_not_tried_again_and_again(machine: Machine) -> None:
    """Nobody gains by that: the journal names the key once, and the service waits for a person."""
    machine.run("sed", "--in-place=.before", "s/^workers = /wrokers = /", "/etc/digitd/config.toml")
    assert not machine.succeeds("systemctl", "restart", "digitd.service")
    assert machine.property("ActiveState") == "failed"
    assert "wrokers: unknown key. Expected one of:" in machine.journal()
    machine.run("mv", "/etc/digitd/config.toml.before", "/etc/digitd/config.toml")
    machine.run("systemctl", "start", "digitd.service")
    assert machine.ready()


def test_it_comes_back_when_the_machine_does(machine: Machine) -> None:
    """What was enabled, the daemon and the page, and nothing else; what was dropped meanwhile is answered."""
    machine.run("systemctl", "stop", "digitd.service")
    machine.run("sh", "-c", f"mkdir {INBOX}/reboot && cp /drops/00*.png {INBOX}/reboot/", user="alice")
    machine.reboot()
    machine.wait_until(machine.ready, "it to be ready")
    wait_for_results(machine, f"{RESULTS}/reboot", 10)
    visit = ("/opt/digitd/current/bin/python", "/attack/visit.py", "/etc/digitd/web-token")
    machine.wait_until(lambda: machine.succeeds(*visit, user="bob"), "the page")
    assert machine.property("ActiveState", "digitd-stream.service") == "inactive"


def test_the_stream_takes_the_daemons_place(machine: Machine) -> None:
    """Only one of them runs; without its extra it says so once; by hand nobody answers beside the daemon."""
    machine.run("systemctl", "disable", "digitd.service")
    assert not machine.succeeds("systemctl", "enable", "--now", "digitd-stream.service")
    assert machine.property("ActiveState") == "inactive"
    assert machine.property("ActiveState", "digitd-stream.service") == "failed"
    assert machine.property("NRestarts", "digitd-stream.service") == "0"
    assert "expected PySpark and PyArrow" in machine.journal("digitd-stream.service")
    program = machine.run("readlink", "/opt/digitd/current")
    said = machine.run("/src/systemd/install.sh", check=False)  # an upgrade brings the extra along, or nothing
    assert "No matching distribution found for py4j" in said
    assert machine.run("readlink", "/opt/digitd/current") == program
    assert len(machine.run("sh", "-c", "ls -d /opt/digitd/2*").split()) == 1
    machine.run("systemctl", "disable", "digitd-stream.service")
    machine.run("systemctl", "enable", "--now", "digitd.service")
    assert machine.ready()
    assert "expected no other daemon on this root" in machine.run("digitd", "run", user="digitd", check=False)
    assert machine.property("ActiveState") == "active"


def test_uninstall_keeps_the_data(machine: Machine) -> None:
    """Service and program go; images, results, models and configuration stay."""
    kept = "find /var/lib/digitd /etc/digitd -type f ! -name 'index.sqlite-*' | sort"  # SQLite's, while it is open
    before = machine.run("sh", "-c", kept)
    machine.run("/src/systemd/uninstall.sh")
    assert machine.run("sh", "-c", kept) == before
    assert machine.run("systemctl", "list-unit-files", "digitd*", "--no-legend", check=False) == ""
    assert machine.run("systemctl", "list-units", "digitd*", "--no-legend", "--state", "active") == ""
    assert not machine.succeeds("test", "-e", "/opt/digitd")
    assert machine.get("/metrics") == ""
