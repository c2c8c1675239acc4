"""metrics.py: the names of the contract, and that no file name ever gets into them."""

import os

import pytest
from prometheus_client import generate_latest

from daemon.telemetry.metrics import Metrics
from tests.conftest import Daemon, Digits, samples, wait_until

COUNTERS = {
    "images": {"outcome"},
    "rejections": {"reason"},
    "predictions": {"digit"},
    "reviews": {"reason"},
    "model_swaps": {"result"},
    "inbox_overflows": set(),
    "intake_errors": {"cause"},
}
HISTOGRAMS = {
    "image_seconds": set(),
    "stage_seconds": {"stage"},
    "batch_size_images": set(),
    "confidence_ratio": set(),
    "model_swap_seconds": set(),
}
GAUGES = {
    "backlog_images": {"folder"},
    "oldest_waiting_seconds": set(),
    "model_info": {"version", "sha256", "keras"},
    "model_loaded_timestamp_seconds": set(),
    "ready": set(),
}
LABELS = {
    "outcome": {"accepted", "review", "rejected"},
    "digit": set("0123456789"),
    "folder": {"inbox", "work"},
    "stage": {"decode", "predict", "publish", "retire"},
}


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        (kind, name, labels)
        for kind, metrics in (("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES))
        for name, labels in metrics.items()
    ],
)
def test_a_metric_of_the_contract_exists(kind: str, name: str, labels: set[str]) -> None:
    """It has the name, the kind and the labels that the contract says, and a help text."""
    metrics = Metrics()
    family = next(family for family in metrics.registry.collect() if family.name == f"digitd_{name}")
    (collector,) = {
        id(c): c
        for c in metrics.registry._names_to_collectors.values()
        if c.describe() and family.name in {described.name for described in c.describe()}
    }.values()
    assert kind == family.type
    assert labels == set(collector._labelnames)
    assert family.documentation.endswith(".")


def test_a_fresh_daemon_has_every_counter_at_zero() -> None:
    """Outcomes and digits are there before the first image, so that a rate of them is never missing."""
    page = samples(generate_latest(Metrics().registry).decode())
    for outcome in LABELS["outcome"]:
        assert page["digitd_images_total", frozenset({("outcome", outcome)})] == 0
    for digit in LABELS["digit"]:
        assert page["digitd_predictions_total", frozenset({("digit", digit)})] == 0


def test_two_daemons_in_a_process_share_nothing() -> None:
    """Each has a registry of its own."""
    first, second = Metrics(), Metrics()
    first.overflows.inc()
    assert (1, 0) == tuple(metrics.registry.get_sample_value("digitd_inbox_overflows_total") for metrics in (first, second))


def test_metrics_of_a_daemon_count_what_happened(daemon: Daemon, digits: Digits) -> None:
    """A reading and a rejection are each counted once, under their outcome, digit and reason."""
    before = daemon.metrics()
    number = digits.labels.index(7)
    daemon.drop("metrics/seven.png", digits.png(number))
    daemon.drop("metrics/text.png", b"text")
    daemon.result("metrics/seven.png")
    daemon.rejection("metrics/text.png")

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return daemon.metrics().get(key, 0) - before.get(key, 0)

    wait_until(lambda: grown("digitd_rejections_total", reason="not_an_image") == 1, "the rejection to be counted")
    wait_until(lambda: grown("digitd_predictions_total", digit="7") == 1, "the prediction to be counted")
    assert 1 == grown("digitd_images_total", outcome="accepted")
    assert 1 == grown("digitd_images_total", outcome="rejected")
    assert 1 == grown("digitd_image_seconds_count")
    assert 1 == grown("digitd_confidence_ratio_count")
    assert 1 == grown("digitd_batch_size_images_sum")


def test_metrics_of_a_daemon_describe_it(daemon: Daemon) -> None:
    """Ready, model, program and process are there."""
    page = daemon.metrics()
    assert 1 == page["digitd_ready", frozenset()]
    (model,) = (dict(labels) for name, labels in page if name == "digitd_model_info")
    assert ("v0001", 64) == (model["version"], len(model["sha256"]))
    assert any(name == "digitd_build_info" for name, _ in page)
    assert any(name == "process_cpu_seconds_total" for name, _ in page)
    assert page["digitd_model_loaded_timestamp_seconds", frozenset()] > page["process_start_time_seconds", frozenset()]


def test_no_label_holds_a_file_name(daemon: Daemon, digits: Digits) -> None:
    """After names of every kind, also such as are not UTF-8, /metrics is valid and every label is one of a few words."""
    name = os.fsdecode(b'metrics/bad"\xff\n{}.png')
    daemon.drop(name, digits.png(0))
    daemon.drop(name + ".txt", b"text")
    daemon.result(name)
    daemon.rejection(name + ".txt")
    status, text = daemon.get("/metrics")
    assert status == 200
    text.encode("utf-8")
    for _, labels in samples(text):
        for label, value in labels:
            assert ".png" not in value
            assert value in LABELS.get(label, {value})
