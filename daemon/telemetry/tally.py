"""What other processes counted, added to one page of metrics, under the names that it has here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.samples import Sample

Counts = dict[tuple[str, str, tuple[tuple[str, str], ...]], float]  # (metric, sample, labels) -> value
GROWING = ("counter", "histogram")


def read_counts(registry: CollectorRegistry) -> Counts:
    """What only grows: our counters and histograms."""
    return {
        (metric.name, sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in registry.collect()
        if metric.type in GROWING and metric.name.startswith("digitd_")
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def grown(before: Counts, after: Counts) -> Counts:
    """By how much each has grown; those that have not are left out."""
    return {key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)}


def to_text(counts: Counts) -> str:
    """Counts as JSON."""
    return json.dumps([[*key, value] for key, value in counts.items()])


def from_text(text: str) -> Counts:
    """What `to_text` wrote."""
    rows = json.loads(text)
    return {
        (metric, sample, tuple((name, value) for name, value in labels)): number for metric, sample, labels, number in rows
    }


class Summed(CollectorRegistry):
    """What is counted here and what others counted, as one; gauges and the rest are ours.

    Args:
        own: what is counted here.

    """

    def __init__(self, own: CollectorRegistry) -> None:
        super().__init__()
        self._own, self._others, self._sum_lock = own, Counts(), threading.Lock()

    def add(self, counts: Counts) -> None:
        """Add what others counted. Any thread may call this."""
        with self._sum_lock:
            for key, value in counts.items():
                self._others[key] = self._others.get(key, 0.0) + value

    def collect(self) -> Iterable[Metric]:
        """As CollectorRegistry does."""
        with self._sum_lock:
            others = dict(self._others)
        for metric in self._own.collect():
            samples = [
                sample._replace(value=sample.value + others.pop(key, 0.0))
                if (key := (metric.name, sample.name, tuple(sorted(sample.labels.items())))) in others
                else sample
                for sample in metric.samples
            ]
            new = [key for key in others if key[0] == metric.name]  # labels that nothing here has had yet
            metric.samples = samples + [Sample(key[1], dict(key[2]), others[key]) for key in new]
            yield metric
