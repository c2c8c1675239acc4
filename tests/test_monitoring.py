"""Scrape configuration, rules and dashboard, against the real Prometheus and Grafana's own types."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, Daemon, Digits, encode, make_root, wait_until

MONITORING = REPOSITORY / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/digitd.json").read_text())
ALERTS = re.findall(r"- alert: (\w+)", (MONITORING / "digitd-alerts.yml").read_text())
MOST_SAMPLES = 600  # of one daemon, however long it runs
WAVE = 600  # drops; more than drift's minimum sample

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm, for Grafana's types")


def promtool(*arguments: str, given: str | None = None) -> str:
    """What promtool says; it must be content."""
    done = subprocess.run(["promtool", *arguments], input=given, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A Prometheus of its own that scrapes one daemon every second, with our configuration and rules.

    Args:
        folder: for its data.
        target: the daemon's address.

    """

    def __init__(self, folder: Path, target: str) -> None:
        text = (MONITORING / "prometheus.yml").read_text()
        for shipped, ours in {"127.0.0.1:9787": target, "interval: 15s": "interval: 1s"}.items():
            assert shipped in text
            text = text.replace(shipped, ours)
        (folder / "prometheus.yml").write_text(text)
        for rules in MONITORING.glob("digitd-*.yml"):
            shutil.copy(rules, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.began = time.time()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.address}",
                ],
                stderr=log,
            )

    def get(self, path: str, **parameters: str | float) -> Any:
        """The data of an answer of its API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def values(self, query: str) -> list[float]:
        """Every number that a query gives from the beginning until now."""
        now = time.time()
        found = self.get("query_range", query=query, start=self.began, end=now, step=1)["result"]
        return [number for series in found for _, text in series["values"] if not math.isnan(number := float(text))]

    def is_up(self) -> bool:
        """Whether it answers and has scraped the daemon."""
        try:
            return self.values('up{job="digitd"} == 1') != []
        except OSError:
            return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, digits: Digits) -> Iterator[tuple[Daemon, Prometheus]]:
    """A daemon that has been through drops, rejections, a fault, corrections, a training and a swap, and was watched."""
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "prometheus").mkdir()
    root = make_root(folder / "root")
    save_small_data(root / "small.npz", digits)
    running = Daemon(
        root,
        TRAINING__DATASET="small.npz",
        TRAINING__SCANS='""',
        TRAINING__SYNTHETIC_DIGITS=0,
        TRAINING__SYNTHETIC_NO_DIGITS=0,
        RETRAIN__STEPS=12,
        RETRAIN__LEARNING_RATE=0.000001,  # the candidate is as good as the champion
        GATE__MARGIN=0.05,  # of 500 images
        GATE__REVIEW_MARGIN=0.05,
        RETRAIN__AFTER_CORRECTIONS=40,
        RETRAIN__QUIET_SECONDS=0.5,
        INBOX__GRACE_SECONDS=0,
        INBOX__RESCAN_SECONDS=1,
    )
    prometheus = None
    try:
        wait_until(lambda: running.get("/readyz")[0] == 200, "the daemon to be ready", 300)
        prometheus = Prometheus(folder / "prometheus", str(running.address))
        wait_until(prometheus.is_up, "Prometheus to scrape the daemon")
        live_through(running, digits)
        wait_until(lambda: prometheus.values('digitd_drift_psi{feature="digit"}'), "the drift to be scraped")
        wait_until(lambda: prometheus.values("instance:digitd_reviewed_images:ratio_rate1h"), "the rules to be evaluated")
        yield running, prometheus
    finally:
        running.close()
        if prometheus:
            prometheus.process.terminate()
            prometheus.process.wait()


def save_small_data(path: Path, digits: Digits) -> None:
    """A data set on which a training takes seconds."""
    x, y = digits.images, np.array(digits.labels, np.uint8)
    np.savez(path, x_train=x[:2000], y_train=y[:2000], x_test=x[2000:2500], y_test=y[2000:2500])


def live_through(daemon: Daemon, digits: Digits) -> None:
    """Whatever gives the metrics something to show."""
    blank = encode(np.zeros((28, 28), np.uint8))
    for wave in ("first", "second"):
        for number in range(60):
            daemon.drop(f"{wave}/{number}.png", digits.png(number))
        daemon.drop(f"{wave}-blank.png", blank)
        daemon.drop(f"{wave}-text.png", b"no image")
        daemon.rejection(f"{wave}-blank.png")
        time.sleep(2)  # two scrapes, for the rates
    inbox = daemon.root / "inbox"
    inbox.rename(daemon.root / "away")
    wait_until(lambda: daemon.get("/readyz")[0] == 503, "the missing inbox to be noticed")
    time.sleep(2)
    (daemon.root / "away").rename(inbox)
    wait_until(lambda: daemon.get("/readyz")[0] == 200, "the inbox to be back")
    for number in range(60):
        target = daemon.root / "corrections" / str(digits.labels[number]) / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(digits.png(number))
    wait_until(partial(has_swapped, daemon), "a training and a swap", 500)
    for number in range(WAVE):
        daemon.drop(f"third/{number}.png", digits.png(number))
    daemon.result(f"third/{WAVE - 1}.png")


def has_swapped(daemon: Daemon) -> bool:
    """Whether a training has led to a swap; one that runs is given a share of a processor that others keep busy."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if b"daemon.training.trainer" in command and str(daemon.root).encode() in command:
                subprocess.run(
                    ["chrt", "--all-tasks", "--other", "--pid", "0", process.name], check=False, capture_output=True
                )
    return daemon.metric("digitd_model_swaps_total", result="swapped") == 1


def filled_in(query: str) -> str:
    """A panel's query as Grafana would send it."""
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@needs_promtool
def test_configuration_and_rules_are_valid() -> None:
    """Promtool accepts the scrape configuration with both rule files."""
    said = promtool("check", "config", "prometheus.yml")
    assert said.count("SUCCESS") == 4
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@needs_promtool
def test_every_alert_fires_and_stays_silent_just_short_of_it() -> None:
    """The cases of both files hold, and leave no alert out."""
    cases = ["digitd-tests.yml", "digitd-tests-days.yml"]
    assert promtool("test", "rules", *cases).count("SUCCESS") == 2
    text = "".join((MONITORING / name).read_text() for name in cases)
    expected = re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", text)
    assert sorted(set(expected)) == sorted(ALERTS)


def test_every_alert_says_what_and_what_to_do() -> None:
    """Each has a severity, a summary, a description and an action."""
    text = (MONITORING / "digitd-alerts.yml").read_text()
    for alert, rule in zip(ALERTS, text.split("- alert: ")[1:], strict=True):
        missing = [key for key in ("severity:", "summary:", "description:", "action:") if key not in rule]
        assert (alert, []) == (alert, missing)


def test_the_dashboard_is_what_its_script_writes() -> None:
    """Whoever edits one must not forget the other."""
    script = "import sys; sys.path.insert(0, 'monitoring'); import dashboard; sys.stdout.write(dashboard.text())"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == (MONITORING / "grafana/digitd.json").read_text()


@needs_npm
def test_the_dashboard_has_grafanas_types() -> None:
    """Every property of dashboard, panels and their options is one that Grafana knows, with a value that it allows."""
    folder = REPOSITORY / "build/grafana-types"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(MONITORING / "schema/package.json", folder)
    done = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"npm could not fetch Grafana's types: {done.stderr.strip().splitlines()[-1:]}")
    literal = (MONITORING / "grafana/digitd.json").read_text().strip()
    types = (MONITORING / "schema/check.ts").read_text()

    def check(dashboard: str) -> str:
        (folder / "check.ts").write_text(f"{types}export const dashboard = {dashboard} satisfies Ours;\n")
        compiler = ["node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck"]
        modules = ["--module", "nodenext", "--moduleResolution", "nodenext", "--target", "es2022"]
        return subprocess.run(
            [*compiler, *modules, "check.ts"], cwd=folder, capture_output=True, text=True, check=False
        ).stdout

    assert check(literal) == ""
    assert '"nmae"' in check(literal.replace('"textMode": "name"', '"textMode": "nmae"'))


@pytest.mark.timeout(900)
@needs_prometheus
def test_every_panel_returns_data(watched: tuple[Daemon, Prometheus]) -> None:
    """Each query of each panel, and of the annotation, gives numbers after drops, a fault, a training and a swap."""
    _, prometheus = watched
    queries = {(panel["title"], target["refId"]): target["expr"] for panel in panels() for target in panel["targets"]}
    queries |= {(note["name"], "annotation"): note["target"]["expr"] for note in DASHBOARD["annotations"]["list"]}
    found = {where: len(prometheus.values(filled_in(query))) for where, query in queries.items()}
    print("\n".join(f"{title:28} {name:10} {count:6} values" for (title, name), count in found.items()))
    assert [where for where, count in found.items() if not count] == []


@pytest.mark.timeout(900)
@needs_prometheus
def test_every_rule_is_evaluated_without_error(watched: tuple[Daemon, Prometheus]) -> None:
    """Prometheus calls each rule healthy, and the fault that was lived through has its alert."""
    _, prometheus = watched
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["name"]: "ok" for rule in rules}
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
    assert prometheus.values('ALERTS{alertname="DigitdIntakeErrors", cause="ENOENT", alertstate="firing"}')


@pytest.mark.timeout(900)
@needs_prometheus
def test_instances_can_be_chosen(watched: tuple[Daemon, Prometheus]) -> None:
    """The dashboard's variable finds the daemon."""
    daemon, prometheus = watched
    variable = next(item for item in DASHBOARD["templating"]["list"] if item["name"] == "instance")
    selector = re.fullmatch(r"label_values\((.+), instance\)", variable["query"]["query"])
    assert selector
    assert [series["instance"] for series in prometheus.get("series", **{"match[]": selector[1]})] == [daemon.address]


@pytest.mark.timeout(900)
@needs_prometheus
def test_the_metrics_follow_prometheus_conventions(watched: tuple[Daemon, Prometheus]) -> None:
    """`promtool check metrics` has nothing to say about names and help texts, and there are not too many series."""
    page = watched[0].get("/metrics")[1]
    assert promtool("check", "metrics", given=page) == ""
    samples = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(samples) < MOST_SAMPLES
    assert [line for line in samples if ".png" in line] == []
