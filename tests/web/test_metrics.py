"""metrics.py and charts.py: the last hour, as lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from daemon.telemetry.metrics import Metrics
from daemon.telemetry.samples import read_samples
from daemon.web.charts import chart, scale
from daemon.web.metrics import LastHour, Look, draw, look

NOW = 1_800_000_000.0  # the first second of a minute


def at(seconds: float, accepted: float, quick: float = 0.0) -> Look:
    """A look with that many accepted, `quick` of them within 10 ms, the others within 20."""
    return Look(NOW + seconds, {"accepted": accepted}, 3.0, 5e8, ((0.01, quick), (0.02, accepted), (float("inf"), accepted)))


def test_what_a_daemon_says_is_kept_for_the_charts() -> None:
    """Answers by outcome, files that wait, memory and the histogram of times, from a page of metrics."""
    from prometheus_client import generate_latest

    metrics = Metrics()
    metrics.images.labels("review").inc(4)
    metrics.backlog.labels("inbox").set(2)
    metrics.backlog.labels("work").set(3)
    metrics.image_seconds.observe(0.003)
    seen = look(read_samples(generate_latest(metrics.registry).decode()), NOW)
    assert (seen.answered["review"], seen.waiting, seen.seconds[-1]) == (4, 5, (float("inf"), 1))
    assert seen.memory > 1e6


def test_the_last_hour_is_drawn_minute_by_minute() -> None:
    """What was added in each, also across a start of the daemon; a minute that nobody looked at is empty."""
    looks = [at(0, 100), at(5, 130), at(10, 10), at(3000, 500), at(3005, 501)]
    answers, times, waiting, memory = draw(looks, NOW + 3010)
    assert answers.summary == "Answers a minute in the last hour: 1 in the latest minute, at most 40."
    assert len(answers.lines[0].dots) == 2, "two minutes, far apart"
    assert times.summary == "Time to the answer in the last hour: 19.5 ms in the latest minute, at most 19.5 ms."
    assert "at most 3." in waiting.summary
    assert "500 MB" in memory.summary
    assert draw([], NOW)[0].summary == "Answers a minute in the last hour: nothing to show yet."
    assert draw(looks, NOW + 90_000)[0].lines[0].dots == []


def test_it_remembers_no_more_than_an_hour(tmp_path: Path) -> None:
    """However long it looks; and where no daemon runs it says so."""
    hour = LastHour(tmp_path / "none.json")
    for number in range(2000):
        hour.looks.append(at(number, number))
    assert len(hour.looks) == 720
    hour.run_once()
    assert hour.status == {"running": False}
    (tmp_path / "none.json").write_text("{")
    hour.run_once()
    assert not hour.status["running"]


def test_status_without_a_daemon(browser: TestClient) -> None:
    """It says so; so does the part that changes."""
    for address in ("/status", "/status/now"):
        assert "No daemon runs here" in browser.get(address).text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 7, [0, 2, 4, 6, 8]),
        (0.96, 0.9956, [0.96, 0.97, 0.98, 0.99, 1.0]),
        (0, 0, [0, 0.25, 0.5, 0.75, 1.0]),
        (0, 1000, [0, 250, 500, 750, 1000]),
        (5, 5, [4, 6, 8, 10]),
    ],
)
def test_scales_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    """From at most the lowest to at least the highest, about four steps."""
    found = scale(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 3 <= len(found) <= 7
    assert found == expected


def test_a_line_has_gaps_where_there_is_nothing() -> None:
    """Neither None nor NaN is drawn, and a value alone is a dot."""
    drawn = chart("A", "a", {"": [1.0, 2.0, None, 4.0, float("nan")]}, ["", "", "", "", ""], str)
    assert drawn.lines[0].path.count("M") == 1
    assert len(drawn.lines[0].dots) == 1
    assert chart("A", "a", {"": []}, [], str).lines[0].path == ""
