"""tally.py: what others counted is on our page."""

from prometheus_client import generate_latest

from daemon.telemetry.metrics import Metrics
from daemon.telemetry.tally import Summed, from_text, grown, read_counts, to_text
from tests.conftest import samples


def test_what_others_counted_is_added() -> None:
    """Counters and histograms of both are one; labels that only they have are there; gauges are ours."""
    ours, theirs = Metrics(), Metrics()
    summed = Summed(ours.registry)
    ours.images.labels("accepted").inc(2)
    ours.ready.set(1)
    before = read_counts(theirs.registry)
    theirs.images.labels("accepted").inc(3)
    theirs.rejections.labels("blank").inc()
    theirs.image_seconds.observe(0.02)
    theirs.ready.set(0)
    for _ in range(2):
        summed.add(from_text(to_text(grown(before, read_counts(theirs.registry)))))
    page = samples(generate_latest(summed).decode())
    assert 8 == page["digitd_images_total", frozenset({("outcome", "accepted")})]
    assert 2 == page["digitd_rejections_total", frozenset({("reason", "blank")})]
    assert 2 == page["digitd_image_seconds_bucket", frozenset({("le", "0.025")})]
    assert 0 == page["digitd_image_seconds_bucket", frozenset({("le", "0.01")})]
    assert 2 == page["digitd_image_seconds_count", frozenset()]
    assert 1 == page["digitd_ready", frozenset()]


def test_what_has_not_grown_is_not_sent() -> None:
    """A task without files has nothing to tell."""
    metrics = Metrics()
    metrics.images.labels("accepted").inc()
    before = read_counts(metrics.registry)
    assert {} == grown(before, read_counts(metrics.registry))
