"""One training, from the champion to the verdict: a candidate is made, the gate decides, and what was decided is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from daemon.config import Settings
from daemon.files import write_durably
from daemon.models import making
from daemon.models.registry import CURRENT, VERSION, ChampionChanged, Registry, RegistryError
from daemon.models.removal import remove_old
from daemon.models.version import Version
from daemon.training.corrections import Label
from daemon.training.dataset import list_folder, load_base_data
from daemon.training.gate import PROMOTED, Best, Evidence, PairedAnswers, Verdict, decide
from daemon.training.job import Job, TrainingEnded, run_job
from daemon.training.labels import write_learnt
from daemon.training.seen import read_labels

log = logging.getLogger(__name__)

NAMED = 20  # of what was left out of a training, in the log
OVERTAKEN = "overtaken"  # the champion that a candidate was judged against is champion no longer: judged again


@dataclass(frozen=True)
class Run:
    """How a training ended.

    Attributes:
        result: one of the gate's VERDICTS, "failed", "stopped" or "nothing_to_learn".
        version: its version, or what would have been.
        reason: in words.
        report: what the child reported, where there is a verdict.

    """

    result: str
    version: str
    reason: str
    report: dict[str, Any] | None = None


class Candidates:
    """Runs one training at a time in a child process, and lets the gate decide about its version.

    Args:
        settings: the configuration; may be replaced between two runs.
        registry: where champion and candidate are.
        on_progress: handed the content of progress.json, again and again.
        run_child: runs a job to its end.

    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        on_progress: Callable[[dict[str, float]], None] = lambda _: None,
        run_child: Callable[..., None] = run_job,
    ) -> None:
        self.settings, self._registry = settings, registry
        self._on_progress, self._run_child = on_progress, run_child
        self.stop = threading.Event()

    def run(
        self,
        why: str,
        began: float,
        *,
        labels: Set[Label] | None = None,
        even_if_nothing_new: bool = False,
        verbose: int = 0,
    ) -> Run:
        """Train, decide, and make the version current if it was promoted.

        Args:
            why: what started it, for log and ledger.
            began: now, in seconds since the epoch.
            labels: all that are there; they are read unless given.
            even_if_nothing_new: train although data and configuration are those of the last verdict.
            verbose: Keras' verbosity; not 0 means in the foreground, on this terminal.

        Raises:
            TrainingUnderWay: another process trains into this folder, or a model of somebody's own is to be taken in first.

        """
        with making.training(self._registry) as lock:
            self._give_way()
            if labels is None:
                labels = read_labels(self.settings, began)
            fingerprint = self._fingerprint(labels)
            if not even_if_nothing_new and self._has_learnt(fingerprint, labels):
                reason = "no new corrections, same data, same configuration as last time"
                run = Run("nothing_to_learn", making.next_name(self._registry), reason)
                log.info("retraining (%s): nothing to learn: %s", why, reason)
            else:
                facts = {"why": why, "began": began}
                run = self._attempt(lock, verbose, fingerprint, facts)
                while run.result == OVERTAKEN:
                    self._give_way()
                    run = self._attempt(lock, verbose, fingerprint, facts)
            try:
                self._write_down(run, labels)
            except OSError as error:
                log.error("%s: %s; what came of it stands", run.version, error)
            return run

    def _give_way(self) -> None:
        """Raise TrainingUnderWay where a person has chosen a model that is no version yet: it is to be taken in first."""
        if self._registry.foreign() is not None:
            path = self._registry.folder / CURRENT
            raise making.TrainingUnderWay(
                f"{path}: expected a link to a version. Received: a model of somebody's own, which a daemon that runs takes "
                f"in first; where none does: digitd promote {path}"
            )

    def _write_down(self, run: Run, labels: Set[Label]) -> None:
        """Write what others may read later, once all is decided; first what keeps the next training from coming at once."""
        if run.result not in ("stopped", "failed"):
            write_learnt(self.settings, labels)
        if run.report is not None:
            content = run.report | {"verdict": run.result, "reason": run.reason}
            write_durably(self._logs(run.version) / "report.json", json.dumps(content, indent=2).encode() + b"\n")
        if aside := self._registry.ledger.rotate(self._registry.names()):
            log.info("the ledger was long; all of it is in %s now", aside)

    def _attempt(self, lock: int, verbose: int, fingerprint: str, facts: dict[str, Any]) -> Run:
        """Train once, and write down what came of it."""
        name = making.begin(self._registry, f"{making.A_TRAINING} ({facts['why']})")
        log.info("retraining (%s): %s begins", facts["why"], name)
        started = time.monotonic()
        try:
            run = self._judge(name, self._train(name, lock, verbose), fingerprint, facts)
        except (TrainingEnded, RegistryError) as end:
            run = Run(end.result if isinstance(end, TrainingEnded) else "failed", name, str(end))
            self._registry.ledger.record(run.result, name, run.reason, **facts)
        self._remove_old_logs()
        level = logging.ERROR if run.result == "failed" else logging.INFO
        log.log(level, "%s %s after %.0f s: %s", name, run.result, time.monotonic() - started, run.reason)
        return run

    def _train(self, name: str, lock: int, verbose: int) -> dict[str, Any]:
        """Run the child to its end; give its report."""
        champion = self._champion()
        logs = self._logs(name)
        logs.mkdir(parents=True, exist_ok=True)
        self._run_child(
            Job(self.settings.to_text(), name, champion.name if champion else None, verbose, background=not verbose),
            logs,
            lock=lock,
            stop=self.stop,
            max_hours=self.settings.retrain.max_hours,
            on_progress=self._on_progress,
        )
        report: dict[str, Any] = json.loads((logs / "report.json").read_bytes())
        left_out = report["corrections"]["left_out"]
        for text in left_out[:NAMED]:
            log.warning("left out of training: %s", text)
        if more := left_out[NAMED:]:
            log.warning("left out of training: %d more, which %s names", len(more), logs / "report.json")
        return report

    def _champion(self) -> Version | None:
        """The version that a daemon answers with, or would; None only where there is none at all.

        Raises:
            TrainingEnded: there are versions, and none can be used.

        """
        if not self._registry.names():
            return None
        try:
            champion = self._registry.current()
        except RegistryError as error:
            raise TrainingEnded("failed", str(error)) from error
        self._registry.settle(champion)
        return champion

    def _judge(self, name: str, report: dict[str, Any], fingerprint: str, facts: dict[str, Any]) -> Run:
        """Let the gate decide; make the candidate current where it was promoted; write the verdict down."""
        best = self._best(report)
        verdict = self._decide(name, report, best)
        try:
            self._check_champion(name, report["champion"])
            if verdict.verdict == PROMOTED:
                self._registry.make_current(name, f"promoted by the gate ({facts['why']})", instead_of=report["champion"])
        except ChampionChanged as error:
            self._registry.ledger.record(OVERTAKEN, name, str(error), **facts)
            return Run(OVERTAKEN, name, str(error))
        run = Run(verdict.verdict, name, verdict.reason, report)
        self._registry.ledger.record(
            run.result,
            name,
            run.reason,
            champion=report["champion"],
            holdout_accuracy=report["holdout"]["accuracy"],
            best_accuracy=best.accuracy,
            best_held=best.held,
            review_limits=self._review_limits(),
            corrections_accuracy=report["corrections"]["accuracy"],
            dataset_sha256=report["training"]["dataset_sha256"],
            holdout_sha256=report["holdout"]["sha256"],
            fingerprint=fingerprint,
            **facts,
        )
        for removed in remove_old(self._registry, self.settings.retention.versions):
            log.info("removed %s: only the newest %d versions are kept", removed, self.settings.retention.versions)
        return run

    def _check_champion(self, name: str, judged_against: str | None) -> None:
        """Raise ChampionChanged where another model has become the champion while the candidate was made."""
        if self._registry.foreign() is not None:
            raise ChampionChanged(
                f"{name}: expected {judged_against} as the champion still. Received: somebody's own model."
            )
        champion = self._registry.current().name if judged_against else self._registry.current_name()
        if champion != judged_against:
            raise ChampionChanged(f"{name}: expected {judged_against} to be the champion still. Received: {champion}.")

    def _decide(self, name: str, report: dict[str, Any], best: Best) -> Verdict:
        if report["champion"] is None:
            return Verdict(PROMOTED, "The first version: there is no champion to compare it with.")
        with np.load(self._logs(name) / "answers.npz") as file:
            parts = {
                part.name: PairedAnswers(*(file[f"{part.name}_{what}"] for what in ("truth", "champion", "candidate")))
                for part in fields(Evidence)
            }
        return decide(Evidence(**parts), best, self.settings.gate)

    def _review_limits(self) -> list[float]:
        limits = self.settings.inference
        return [limits.review_below, limits.not_a_digit_above]

    def _best(self, report: dict[str, Any]) -> Best:
        """The best on this very hold-out, and under these limits, of all versions that ever were live.

        Each verdict keeps it, since versions are removed in time.
        """
        holdout, dataset = report["holdout"]["sha256"], report["training"]["dataset_sha256"]
        best, ever_live = [report["champion_holdout_accuracy"] or 0.0], {report["champion"]}
        held = [1.0 if report["champion_holdout_held"] is None else report["champion_holdout_held"]]
        for line in self._registry.ledger.lines():
            if line.get("event") in ("live", "current"):
                ever_live.add(line.get("version"))
            if holdout == line.get("holdout_sha256") or dataset == line.get("dataset_sha256"):
                best.append(line.get("best_accuracy", 0.0))
                if line.get("event") == PROMOTED:
                    best.append(line.get("holdout_accuracy", 0.0))
                if line.get("review_limits") == self._review_limits():
                    held.append(line.get("best_held", 1.0))
        for name in ever_live.intersection(self._registry.names()):
            try:
                manifest = self._registry.manifest(name)
            except RegistryError as error:  # of an old version: no reason to give up a new one
                log.warning("%s", error)
                continue
            if holdout == manifest.holdout.sha256 or dataset == manifest.training.dataset_sha256:
                best.append(manifest.holdout.accuracy)
        return Best(max(best), min(held))

    def _remove_old_logs(self) -> None:
        """Remove what trainings left in logs/ whose versions are gone; of those that gave none, the newest are kept."""
        known = set(self._registry.names())
        for kind in ("training", "tensorboard"):
            folder = self.settings.folder("logs") / kind
            left = [path for path in folder.glob("v*") if VERSION.fullmatch(path.name) and path.name not in known]
            for path in sorted(left, key=lambda path: int(path.name[1:]))[: -self.settings.retention.versions]:
                shutil.rmtree(path, ignore_errors=True)

    def _logs(self, name: str) -> Path:
        return self.settings.folder("logs") / "training" / name

    def _fingerprint(self, labels: Set[Label]) -> str:
        """A digest of all that a training learns from: corrections, data set and configuration."""
        chosen = self.settings.training
        learnt = [
            sorted(labels),
            [_status_of_all(self.settings.root / name) for name in (chosen.dataset, chosen.scans) if name],
            chosen.model_dump(),
            self.settings.retrain.model_dump(
                include={"steps", "learning_rate", "corrections_share", "most_corrections", "patience"}
            ),
        ]
        return hashlib.sha256(json.dumps(learnt, sort_keys=True).encode()).hexdigest()

    def _has_learnt(self, fingerprint: str, labels: Set[Label]) -> bool:
        """Whether the last verdict was on just this, or the shipped model comes from it and nobody has trained here yet."""
        found = [line["fingerprint"] for line in self._registry.ledger.lines() if "fingerprint" in line]
        if found:
            return bool(found[-1] == fingerprint)
        champion, chosen = self._champion(), self.settings.training
        if champion is None or labels:
            return False
        made = champion.manifest.training.model_dump()
        return (
            champion.manifest.layers == [layer.model_dump() for layer in chosen.layers]
            and all(made.get(key) == value for key, value in chosen.model_dump(exclude={"layers", "patience"}).items())
            and made.get("dataset_sha256") == load_base_data(chosen.dataset, self.settings.root, self.settings.inbox).sha256
        )


def _status_of_all(dataset: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of last change of a data set's file, or of each in its folder; none for one of Keras' own."""
    found = []
    with suppress(OSError):  # what is wrong with it the training says
        for path in [dataset] if dataset.is_file() else list_folder(dataset):
            status = path.stat()
            found.append((str(path.relative_to(dataset)), status.st_size, status.st_mtime_ns))
    return found
