"""Every metric of the daemon, in one place. No label ever holds a file's name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    gc_collector,
    platform_collector,
    process_collector,
)

from daemon import __version__
from daemon.telemetry.drift import FEATURES, Drift

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TRAINING_SECONDS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        process_collector.ProcessCollector(registry=registry)
        platform_collector.PlatformCollector(registry=registry)
        gc_collector.GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="digitd", registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace="digitd", registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, namespace="digitd", registry=registry, buckets=buckets)

        self.images = counter("images_total", "Images that reached an end.", "outcome")
        self.rejections = counter("rejections_total", "Files that got no prediction.", "reason")
        self.predictions = counter("predictions_total", "Predictions by digit.", "digit")
        self.reviews = counter("reviews_total", "Predictions that a person should look at.", "reason")
        self.overflows = counter("inbox_overflows_total", "Times the kernel dropped inbox events; a sweep follows each.")
        self.intake_errors = counter("intake_errors_total", "Faults of the machine that paused the intake.", "cause")
        self.swaps = counter("model_swaps_total", "Attempts to replace the live model.", "result")
        self.gate_decisions = counter("gate_decisions_total", "Verdicts on candidates.", "verdict")
        self.training_runs = counter("training_runs_total", "Trainings that ended.", "result")
        self.corrections = counter("corrections_total", "Corrections noticed, by whether the answer was right.", "agrees")
        for verdict in ("promoted", "refused", "insufficient_evidence"):
            self.gate_decisions.labels(verdict)
        for result in ("promoted", "refused", "insufficient_evidence", "failed", "stopped", "nothing_to_learn"):
            self.training_runs.labels(result)
        for agrees in ("yes", "no", "unknown"):
            self.corrections.labels(agrees)
        for result in ("swapped", "rolled_back", "failed"):
            self.swaps.labels(result)
        for outcome in ("accepted", "review", "rejected"):
            self.images.labels(outcome)
        for digit in range(10):
            self.predictions.labels(str(digit))

        self.image_seconds = histogram("image_seconds", "Time from drop to visible result.", SECONDS)
        self.stage_seconds = histogram("stage_seconds", "Time one batch spends in a stage.", STAGE_SECONDS, "stage")
        self.batch_size = histogram("batch_size_images", "Images predicted together.", BATCH_SIZES)
        self.confidence = histogram("confidence_ratio", "Confidence of predictions.", CONFIDENCE)
        self.training_seconds = histogram("training_seconds", "Time of trainings that got a verdict.", TRAINING_SECONDS)
        self.swap_seconds = histogram("model_swap_seconds", "Time to load, warm and swap a model.", SECONDS)

        self.backlog = gauge(
            "backlog_images",
            "Files waiting, by folder, as of the last sweep; at least so many, for an inbox is listed 250000 at once.",
            "folder",
        )
        self.oldest_waiting = gauge("oldest_waiting_seconds", "Time that the oldest unanswered file has waited.")
        self.ready = gauge("ready", "1 while a model is loaded and the intake is open.")
        self.model_info = gauge("model_info", "The live model.", "version", "sha256", "keras")
        self.model_loaded = gauge("model_loaded_timestamp_seconds", "When the live model was loaded.")
        self.live_accuracy = gauge("live_accuracy_ratio", "Share of right answers among the latest corrected ones.")
        self.live_accuracy.set(float("nan"))  # not 0: nobody has corrected anything yet
        self.live_accuracy_images = gauge("live_accuracy_images", "How many corrected images that accuracy is of.")
        self.holdout_accuracy = gauge("holdout_accuracy_ratio", "Share of right answers on the hold-out.", "model")
        self.training_in_progress = gauge("training_in_progress", "1 while a training runs.")
        self.training_epoch = gauge("training_epoch", "Epochs that the latest training finished.")
        self.training_loss = gauge("training_loss", "Loss of the latest finished epoch.", "split")
        self.training_accuracy = gauge("training_accuracy", "Accuracy of the latest finished epoch.", "split")
        self.training_last_success = gauge(
            "training_last_success_timestamp_seconds", "When the latest candidate was promoted."
        )
        self.training_next_run = gauge("training_next_run_timestamp_seconds", "When the next training is scheduled.")
        self.drift = Drift(None)
        psi = gauge("drift_psi", "Population stability index of recent images against validation data.", "feature")
        _show_drift(psi, self.drift)
        self._describe_storage(counter, gauge)
        Info("build", "The program.", namespace="digitd", registry=registry).info({"version": __version__})

    def _describe_storage(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self._disk_free = gauge("disk_free_bytes", "Free space on the file system of the root folder.")
        self._disk_size = gauge("disk_size_bytes", "Size of the file system of the root folder.")
        self.index_up = gauge("index_up", "1 while the index of all answers can be written; it costs no answer when not.")
        self.index_pending = gauge("index_pending_records", "Records that wait for an index that cannot be written.")
        self.index_errors = counter("index_errors_total", "Faults of the index.", "cause")
        self.index_tasks = counter(
            "index_tasks_total", "Fillings of the index and leavings of what is old, by their end.", "result"
        )
        for result in ("done", "failed"):
            self.index_tasks.labels(result)

    def watch_disk(self, folder: Path) -> None:
        """Show how full the file system of a folder is, at each scrape."""

        def usage(part: str) -> float:
            try:
                return float(getattr(shutil.disk_usage(folder), part))
            except OSError:
                return float("nan")

        self._disk_free.set_function(partial(usage, "free"))
        self._disk_size.set_function(partial(usage, "total"))


def _show_drift(psi: Gauge, drift: Drift) -> None:
    for feature in FEATURES:
        psi.labels(feature).set_function(partial(drift.psi, feature))
