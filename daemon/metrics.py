"""Every metric of the daemon, in one place. No label ever holds a file's name."""

from __future__ import annotations

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

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
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
        for outcome in ("accepted", "review", "rejected"):
            self.images.labels(outcome)
        for digit in range(10):
            self.predictions.labels(str(digit))

        self.image_seconds = histogram("image_seconds", "Time from drop to visible result.", SECONDS)
        self.stage_seconds = histogram("stage_seconds", "Time one batch spends in a stage.", STAGE_SECONDS, "stage")
        self.batch_size = histogram("batch_size_images", "Images predicted together.", BATCH_SIZES)
        self.confidence = histogram("confidence_ratio", "Confidence of predictions.", CONFIDENCE)
        self.swap_seconds = histogram("model_swap_seconds", "Time to load, warm and swap a model.", SECONDS)

        self.backlog = gauge("backlog_images", "Files waiting, by folder, as of the last sweep.", "folder")
        self.oldest_waiting = gauge("oldest_waiting_seconds", "Time that the oldest unanswered file has waited.")
        self.ready = gauge("ready", "1 while a model is loaded and the intake is open.")
        self.model_info = gauge("model_info", "The live model.", "version", "sha256", "keras")
        self.model_loaded = gauge("model_loaded_timestamp_seconds", "When the live model was loaded.")
        Info("build", "The program.", namespace="digitd", registry=registry).info({"version": __version__})
