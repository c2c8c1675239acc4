"""Reads a page of metrics, as /metrics gives it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]  # name -> labels -> value


def read_samples(text: str) -> Samples:
    """Every sample of a page in Prometheus' text form."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples
