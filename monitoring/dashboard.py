"""Writes grafana/digitd.json, the dashboard. Change it here, then run `python monitoring/dashboard.py`.

A panel is one call; rows and places follow from the order of the calls. {where} selects the daemons chosen at the top.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent / "grafana" / "digitd.json"
WHERE = '{job="digitd", instance=~"$instance"}'
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid
GOOD, WARNING, BAD, PLAIN = "green", "orange", "red", "text"

Query = tuple[str, str]  # (PromQL, legend)
Steps = list[tuple[float | None, str]]  # (from this value on, colour)


class Dashboard:
    """Panels, put side by side in rows of WIDTH columns."""

    def __init__(self) -> None:
        self.panels: list[dict[str, Any]] = []
        self._x = self._y = self._height = 0

    def row(self, title: str) -> None:
        """Begin a titled row."""
        self._next_line()
        self._add({"type": "row", "title": title, "collapsed": False, "panels": []}, WIDTH, 1)

    def stat(
        self,
        title: str,
        query: Query,
        description: str,
        *,
        unit: str = "short",
        steps: Steps | None = None,
        mappings: dict[str, tuple[str, str]] | None = None,
        text: str = "value",
        width: int = 4,
    ) -> None:
        """One large value."""
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "textMode": text,
            "wideLayout": True,
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "percentChangeColorMode": "standard",
            "showPercentChange": False,
        }
        defaults = _defaults(unit, steps or [(None, PLAIN)], "thresholds")
        if mappings:
            shown = {value: {"text": text, "color": color} for value, (text, color) in mappings.items()}
            defaults["mappings"] = [{"type": "value", "options": shown}]
        self._panel("stat", title, description, [query], defaults, options, width, 4)

    def graph(
        self,
        title: str,
        queries: list[Query],
        description: str,
        *,
        unit: str = "short",
        width: int = 8,
        stack: str = "none",
        limit: float | None = None,
        highest: float | None = None,
        lowest: float | None = 0,
    ) -> None:
        """Curves over time; `limit` draws a line where an alert begins."""
        defaults = _defaults(unit, [(None, "transparent"), (limit, BAD)] if limit is not None else [(None, GOOD)])
        if lowest is not None:
            defaults["min"] = lowest
        if highest is not None:
            defaults["max"] = highest
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if stack != "none" else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": stack, "group": "A"},
            "thresholdsStyle": {"mode": "line" if limit is not None else "off"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        self._panel("timeseries", title, description, queries, defaults, options, width, 8)

    def heatmap(self, title: str, query: str, description: str, *, unit: str, width: int = 8) -> None:
        """A histogram over time; the query gives its buckets by le."""
        options = {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "steps": 64,
                "reverse": False,
                "fill": "dark-orange",
                "exponent": 0.5,
                "scale": "exponential",
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        }
        defaults = _defaults(unit, [(None, GOOD)])
        self._panel("heatmap", title, description, [(query, "{{le}}")], defaults, options, width, 8, form="heatmap")

    def timeline(self, title: str, query: Query, description: str, *, width: int = 8) -> None:
        """A bar for as long as each series is there."""
        options = {
            "alignValue": "left",
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "never",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        }
        self._panel("state-timeline", title, description, [query], _defaults("short", [(None, GOOD)]), options, width, 8)

    def _panel(
        self,
        kind: str,
        title: str,
        description: str,
        queries: list[Query],
        defaults: dict[str, Any],
        options: dict[str, Any],
        width: int,
        height: int,
        form: str = "time_series",
    ) -> None:
        targets = [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATA_SOURCE,
                "expr": expression.replace("{where}", WHERE),
                "legendFormat": legend,
                "format": form,
                "range": True,
                "instant": False,
            }
            for number, (expression, legend) in enumerate(queries)
        ]
        panel = {
            "type": kind,
            "title": title,
            "description": description,
            "datasource": DATA_SOURCE,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
            "targets": targets,
        }
        self._add(panel, width, height)

    def _add(self, panel: dict[str, Any], width: int, height: int) -> None:
        if self._x + width > WIDTH:
            self._next_line()
        place = {"h": height, "w": width, "x": self._x, "y": self._y}
        self.panels.append({"id": len(self.panels) + 1, "gridPos": place, **panel})
        self._x += width
        self._height = max(self._height, height)

    def _next_line(self) -> None:
        self._x, self._y, self._height = 0, self._y + self._height, 0


def _defaults(unit: str, steps: Steps, color: str = "palette-classic") -> dict[str, Any]:
    return {
        "unit": unit,
        "color": {"mode": color},
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]},
    }


def _mean(histogram: str, by: str) -> str:
    total, count = (f"sum {by}(rate({histogram}_{part}{{where}}[$__rate_interval]))" for part in ("sum", "count"))
    return f"{total} / {count}"


def build() -> dict[str, Any]:
    """The whole dashboard."""
    board = Dashboard()

    board.row("Is it working?")
    board.stat(
        "Ready",
        ("min(digitd_ready{where})", ""),
        "Whether a model is loaded and the intake is open. If not, /readyz says why.",
        steps=[(None, BAD), (1, GOOD)],
        mappings={"0": ("NO", BAD), "1": ("yes", GOOD)},
    )
    board.stat(
        "Images waiting",
        ("sum(digitd_backlog_images{where})", ""),
        "Files in the inbox and in work, as of the last sweep; at least so many: an inbox is listed 250,000 at once.",
        steps=[(None, PLAIN)],
    )
    board.stat(
        "Oldest waiting",
        ("max(digitd_oldest_waiting_seconds{where})", ""),
        "How long the oldest file without a result has waited. Alert from 5 minutes.",
        unit="s",
        steps=[(None, GOOD), (60, WARNING), (300, BAD)],
    )
    board.stat(
        "Rejected, 30 minutes",
        ("max(instance:digitd_rejected_images:ratio_rate30m{where})", ""),
        "Share of the files that got no prediction. Alert from 5 %.",
        unit="percentunit",
        steps=[(None, GOOD), (0.02, WARNING), (0.05, BAD)],
    )
    board.stat(
        "Alerts firing",
        ('count(ALERTS{alertname=~"Digitd.+", alertstate="firing", instance=~"$instance"}) or vector(0)', ""),
        "README, Watch it, says what each means.",
        steps=[(None, GOOD), (1, BAD)],
    )
    board.stat(
        "Live model",
        ("max by (version) (digitd_model_info{where})", "{{version}}"),
        "The version that answers now.",
        text="name",
    )
    board.graph(
        "Backlog",
        [("sum by (folder) (digitd_backlog_images{where})", "{{folder}}")],
        "Files waiting, by folder; at least so many: an inbox is listed 250,000 at once.",
    )
    board.graph(
        "Rejections by reason",
        [("sum by (reason) (increase(digitd_rejections_total{where}[$__rate_interval]))", "{{reason}}")],
        "The slug that the JSON files in rejected/ give as their reason.",
    )
    board.graph(
        "Faults of the machine",
        [
            ("sum by (cause) (increase(digitd_intake_errors_total{where}[$__rate_interval]))", "{{cause}}"),
            ("sum(increase(digitd_inbox_overflows_total{where}[$__rate_interval]))", "inbox events dropped"),
        ],
        "Disk full, no permission, and so on: each pauses the intake, nothing is lost. A sweep makes up for dropped events.",
    )

    board.row("How fast?")
    board.graph(
        "Throughput by outcome",
        [("sum by (outcome) (rate(digitd_images_total{where}[$__rate_interval]))", "{{outcome}}")],
        "Images that reached an end, per second.",
        unit="ops",
        stack="normal",
    )
    board.heatmap(
        "Drop to result",
        "sum by (le) (increase(digitd_image_seconds_bucket{where}[$__rate_interval]))",
        "How long images took. The vertical lines are model swaps: nothing should happen there.",
        unit="s",
    )
    board.graph(
        "Drop to result, percentiles",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate(digitd_image_seconds_bucket{{where}}[$__rate_interval])))",
                f"{q:.0%}",
            )
            for q in (0.5, 0.95, 0.99)
        ],
        "The promise is 99 % within 10 s; a bulk drop waits for its turn.",
        unit="s",
        limit=10,
    )
    board.graph(
        "Time of a batch, by stage",
        [
            (_mean("digitd_stage_seconds", "by (stage) "), "{{stage}}"),
        ],
        "Mean. retire is the disk's sync, which nobody waits for.",
        unit="s",
        width=12,
    )
    board.graph(
        "Images predicted together",
        [
            (_mean("digitd_batch_size_images", ""), "mean batch"),
        ],
        "Batches grow by themselves when there is much to do.",
        width=12,
    )

    board.row("How good?")
    board.graph(
        "Confidence",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate(digitd_confidence_ratio_bucket{{where}}[$__rate_interval])))",
                name,
            )
            for q, name in ((0.01, "lowest 1 %"), (0.05, "lowest 5 %"), (0.5, "median"))
        ],
        "Of all answers. It does not reveal every shift of what comes in; live accuracy does.",
        unit="percentunit",
        highest=1,
    )
    board.graph(
        "To be reviewed",
        [("instance:digitd_reviewed_images:ratio_rate1h{where}", "{{instance}}")],
        "Share of the answers of the last hour that a person should look at.",
        unit="percentunit",
    )
    board.graph(
        "Live accuracy",
        [("digitd_live_accuracy_ratio{where}", "{{instance}}")],
        "Share of right answers among those that people corrected or confirmed lately. Alert under 95 %.",
        unit="percentunit",
        limit=0.95,
        highest=1,
    )
    board.graph(
        "Drift",
        [("max by (feature) (digitd_drift_psi{where})", "{{feature}}")],
        "Population stability index of the last 2,000 images (500 at least) against validation data. Alert from 0.25.",
        limit=0.25,
    )
    board.graph(
        "Class mix",
        [("sum by (digit) (increase(digitd_predictions_total{where}[$__rate_interval]))", "{{digit}}")],
        "Share of each digit among the answers.",
        stack="percent",
    )
    board.graph(
        "Corrections",
        [("sum by (agrees) (digitd_corrections_total{where})", "answer was right: {{agrees}}")],
        "Noticed since the start.",
    )

    board.row("What does the model do?")
    board.timeline(
        "Versions",
        ("max by (version) (digitd_model_info{where})", "{{version}}"),
        "Which version answered when.",
    )
    board.graph(
        "Champion against candidate",
        [("max by (model) (digitd_holdout_accuracy_ratio{where})", "{{model}}")],
        "Share of right answers on the frozen hold-out.",
        unit="percentunit",
        lowest=None,
    )
    board.graph(
        "Verdicts of the gate",
        [("sum by (verdict) (digitd_gate_decisions_total{where})", "{{verdict}}")],
        "Since the start.",
    )
    board.graph(
        "Training: loss",
        [("max by (split) (digitd_training_loss{where})", "{{split}}")],
        "After the latest epoch of the training that runs, or of the last one.",
    )
    board.graph(
        "Training: accuracy",
        [("max by (split) (digitd_training_accuracy{where})", "{{split}}")],
        "Training images are augmented, so theirs may stay below validation.",
        unit="percentunit",
        lowest=None,
    )
    board.graph(
        "Trainings",
        [
            ("sum by (result) (digitd_training_runs_total{where})", "{{result}}"),
            ("max(digitd_training_in_progress{where})", "runs now"),
            ("max(digitd_training_epoch{where})", "epoch"),
        ],
        "Ended since the start, by result.",
    )
    board.stat(
        "Next training",
        ("min(digitd_training_next_run_timestamp_seconds{where} > 0) * 1000", ""),
        "By the schedule of [retrain]; enough corrections bring it forward.",
        unit="dateTimeFromNow",
        width=6,
    )
    board.stat(
        "Last promotion",
        ("max(digitd_training_last_success_timestamp_seconds{where} > 0) * 1000", ""),
        "When a training last gave the model that was put in force.",
        unit="dateTimeFromNow",
        width=6,
    )
    board.stat(
        "Training takes",
        ("sum(digitd_training_seconds_sum{where}) / sum(digitd_training_seconds_count{where})", ""),
        "Mean since the start, at the lowest priority.",
        unit="s",
        width=6,
    )
    board.stat(
        "A swap takes",
        ("sum(digitd_model_swap_seconds_sum{where}) / sum(digitd_model_swap_seconds_count{where})", ""),
        "Mean since the start: loading, warming, replacing. Images go on being read meanwhile.",
        unit="s",
        width=6,
    )

    board.row("The machine")
    board.graph(
        "Memory",
        [("process_resident_memory_bytes{where}", "{{instance}}")],
        "Of the main process: decoders add about 30 MB each, a training its own.",
        unit="bytes",
    )
    board.graph(
        "Disk",
        [("digitd_disk_free_bytes{where}", "free"), ("digitd_disk_size_bytes{where}", "size")],
        "Of the root folder. When it is full the intake pauses, and resumes by itself.",
        unit="bytes",
    )
    board.graph(
        "Processor",
        [("rate(process_cpu_seconds_total{where}[$__rate_interval])", "{{instance}}")],
        "Cores that the main process uses.",
    )
    board.stat(
        "Disk full in",
        ("min(digitd_disk_free_bytes{where} / clamp_min(-deriv(digitd_disk_free_bytes{where}[1d]), 1))", ""),
        "At the pace of the last day. [retention] says what leaves, and when.",
        unit="s",
        width=12,
    )
    board.stat(
        "Records that wait for the index",
        ("max(digitd_index_pending_records{where})", ""),
        "0 while the index of all answers can be written. It costs no answer when not; digitd find lacks the newest then.",
        width=12,
    )
    return {
        "uid": "digitd",
        "title": "digitd",
        "description": "Images of handwritten digits: is it working, how fast, how good, and what the model does.",
        "tags": ["digitd"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables()},
        "annotations": {"list": annotations()},
        "panels": board.panels,
    }


def variables() -> list[dict[str, Any]]:
    """What can be chosen at the top."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}
    instance = {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": 'label_values(digitd_ready{job="digitd"}, instance)', "refId": "instance"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, instance]


def annotations() -> list[dict[str, Any]]:
    """Vertical lines in every graph."""
    swaps = "digitd_model_loaded_timestamp_seconds{where} * 1000".replace("{where}", WHERE)
    return [
        {
            "name": "Model swaps",
            "enable": True,
            "iconColor": "purple",
            "datasource": DATA_SOURCE,
            "target": {"refId": "swaps", "expr": swaps, "interval": "30s"},
            "titleFormat": "a model went live on {{instance}}",
            "useValueForTime": "on",
        }
    ]


def text() -> str:
    """The content of the file."""
    return json.dumps(build(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text())
