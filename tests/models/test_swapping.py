"""swapping.py: what becomes live, without a process: the vetting is a function that says yes or no."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from daemon.files import file_sha256
from daemon.models import making
from daemon.models.adoption import Findings, VettingHindered, VettingStopped
from daemon.models.backend import keras
from daemon.models.manifest import Holdout, Manifest
from daemon.models.network import ModelError
from daemon.models.registry import Registry, RegistryError
from daemon.models.swapping import Swapper
from daemon.telemetry.metrics import Metrics
from tests.conftest import LONG_AGO, samples


class Vetting:
    """Says of every file what it is told to, and remembers which it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.end: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, file: Path, _shown: Path) -> Findings:
        self.asked.append(file.name)
        self.meanwhile()
        if self.end:
            raise self.end
        return Findings(keras="3.15.1", parameters=7, dataset_sha256="d" * 64, holdout=Holdout(images=10, accuracy=0.9))


class Root:
    """models/ with versions of one dense layer, and a swapper on it."""

    def __init__(self, folder: Path, make_model: Callable[[Path, int], None]) -> None:
        self.registry, self.vetting, self.metrics = Registry(folder), Vetting(), Metrics()
        self._make_model = make_model

    def add(self, name: str, made_here: bool = True) -> Path:
        """Lay a version there, made here or copied there by somebody."""
        path = self.registry.folder / f"{name}.h5"
        self._make_model(path, int(name[1:]))
        manifest = Manifest(
            version=name,
            sha256=file_sha256(path),
            created_at="2026-11-23T08:00:00.000000Z",
            parameters=7850,
            holdout=Holdout(images=10, accuracy=0.9),
        )
        (self.registry.folder / f"{name}.json").write_bytes(manifest.to_json())
        if made_here:
            self.registry.ledger.record("made", name, "a test", sha256=manifest.sha256)
        return path

    def point_at(self, target: str) -> None:
        """Move current.h5, as a script would."""
        link = self.registry.folder / ".new"
        link.symlink_to(target)
        link.replace(self.registry.folder / "current.h5")

    def put_in_place(self, name: str = "own.h5", changed: float = LONG_AGO) -> None:
        """Replace current.h5 by a file that is no version."""
        own = self.registry.folder / name
        self._make_model(own, 77)
        os.utime(own, (changed, changed))
        own.replace(self.registry.folder / "current.h5")

    def swapper(self) -> Swapper:
        """A swapper as a daemon that starts has it."""
        return Swapper(self.registry, self.vetting, self.metrics)

    def events(self) -> list[tuple[str, str]]:
        """What the ledger says, without what is made."""
        lines = self.registry.ledger.lines()
        return [(line["event"], line["version"]) for line in lines if line["event"] not in ("made", "begun")]

    def swaps(self, result: str) -> float:
        """How often it came to this."""
        page = samples(generate_latest(self.metrics.registry).decode())
        return page.get(("digitd_model_swaps_total", frozenset({("result", result)})), 0.0)


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], None]:
    """Saves a model of one dense layer, whose weights are a number's."""
    entry, flat = keras.Input((28, 28, 1)), keras.layers.Flatten()
    model = keras.Sequential([entry, flat, keras.layers.Dense(10, activation="softmax")])
    folder = tmp_path_factory.mktemp("made")

    def make(path: Path, seed: int) -> None:
        cached = folder / f"{seed}.h5"
        if not cached.exists():
            random = np.random.default_rng(seed)
            model.set_weights([random.normal(0, 0.1, weight.shape) for weight in model.get_weights()])
            model.save(cached, include_optimizer=False)
        shutil.copy(cached, path)

    return make


@pytest.fixture
def root(tmp_path: Path, make_model: Callable[[Path, int], None]) -> Root:
    """models/ with v0001, made here."""
    root = Root(tmp_path / "models", make_model)
    root.add("v0001")
    return root


def live(swapper: Swapper) -> str:
    """Which version answers."""
    return swapper.slot.live.predict(np.zeros((1, 28, 28), np.uint8)).identity.version


def test_the_version_that_current_names_is_followed(root: Root) -> None:
    """What was made here is swapped to at once, and gone back to; nothing is vetted."""
    root.add("v0002")
    swapper = root.swapper()
    assert "v0001" == live(swapper)
    root.registry.make_current("v0002", "test")
    swapper.run_once(0.0)
    assert "v0002" == live(swapper)
    root.registry.roll_back()
    swapper.run_once(0.0)
    assert "v0001" == live(swapper)
    assert (1, 1) == (root.swaps("swapped"), root.swaps("rolled_back"))
    assert [] == root.vetting.asked
    assert [("live", "v0001"), ("live", "v0002"), ("live", "v0001")] == [e for e in root.events() if e[0] == "live"]


def test_a_version_that_was_not_made_here_is_vetted_first(root: Root) -> None:
    """A planted v9999.h5 with a manifest of its own that does not pass never answers, and is tried once."""
    swapper = root.swapper()
    root.add("v9999", made_here=False)
    root.point_at("v9999.h5")
    root.vetting.end = RegistryError("it does not read digits")
    for _ in range(3):
        swapper.run_once(0.0)
        assert "v0001" == live(swapper)
    assert ["v9999.h5"] == root.vetting.asked
    assert 1 == root.swaps("failed")
    assert ("swap_failed", "v9999") == root.events()[-1]


def test_what_passed_is_not_vetted_again(root: Root) -> None:
    """The ledger remembers its digest, also for the next daemon; other content under its name is another matter."""
    swapper = root.swapper()
    root.add("v0002", made_here=False)
    root.point_at("v0002.h5")
    swapper.run_once(0.0)
    assert "v0002" == live(swapper)
    assert "v0002" == live(root.swapper())
    assert ["v0002.h5"] == root.vetting.asked
    content = root.add("v0003", made_here=False).read_bytes()
    manifest = json.loads((root.registry.folder / "v0003.json").read_bytes())
    (root.registry.folder / "v0002.h5").write_bytes(content)
    (root.registry.folder / "v0002.json").write_text(json.dumps(manifest | {"version": "v0002"}))
    root.swapper()
    assert not root.registry.is_proven(root.registry.version("v0002"))


def test_a_daemon_begins_with_what_needs_no_vetting(root: Root) -> None:
    """It does not keep images waiting for the child: it swaps when that has passed."""
    root.add("v0002", made_here=False)
    root.point_at("v0002.h5")
    swapper = root.swapper()
    assert ("v0001", []) == (live(swapper), root.vetting.asked)
    assert Path("v0002.h5") == (root.registry.folder / "current.h5").readlink()
    swapper.run_once(0.0)
    assert ("v0002", ["v0002.h5"]) == (live(swapper), root.vetting.asked)


def test_where_all_need_vetting_the_chosen_one_is_vetted_before_the_start(root: Root) -> None:
    """So begins a root of before there were such lines in the ledger: once, with the version that answered last."""
    (root.registry.folder / "ledger.jsonl").unlink()
    root.add("v0002", made_here=False)
    root.point_at("v0002.h5")
    assert "v0002" == live(root.swapper())
    assert "v0002" == live(root.swapper())
    assert ["v0002.h5"] == root.vetting.asked


def test_an_interrupted_vetting_refuses_nothing(root: Root) -> None:
    """Neither a version nor a file in the place of current.h5: the next pass, or the next daemon, tries again."""
    swapper = root.swapper()
    root.add("v0002", made_here=False)
    root.vetting.end = VettingStopped("told to stop")
    root.point_at("v0002.h5")
    swapper.run_once(0.0)
    root.put_in_place()
    swapper.run_once(0.0)
    assert (0, "v0001") == (root.swaps("failed"), live(swapper))
    root.vetting.end = None
    swapper.run_once(0.0)
    swapper.run_once(0.0)
    assert "v0003" < live(swapper)


def test_what_hinders_a_vetting_is_said_once_and_given_time(root: Root) -> None:
    """Each try comes after twice the time, up to a minute; another choice is tried at once, and what is mended passes."""
    swapper = root.swapper()
    root.add("v0002", made_here=False)
    root.add("v0003", made_here=False)
    root.vetting.end = VettingHindered("[gate] canary: unknown key")
    root.point_at("v0002.h5")
    tries = []
    for second in range(200):
        before = len(root.vetting.asked)
        swapper.run_once(float(second))
        tries += [second] * (len(root.vetting.asked) - before)
    assert [0, 1, 3, 7, 15, 31, 63, 123, 183] == tries
    assert 1 == root.swaps("failed")
    root.point_at("v0003.h5")
    swapper.run_once(200.0)
    assert ("v0003.h5", 2) == (root.vetting.asked[-1], root.swaps("failed"))
    root.vetting.end = None
    swapper.run_once(201.0)
    assert "v0003" == live(swapper)


@pytest.mark.parametrize("changed", [LONG_AGO, 4e9])
def test_a_file_in_the_place_of_current_is_taken_in(root: Root, changed: float) -> None:
    """It becomes a version, current.h5 a link to it, and it answers; also one from where the clock is ahead. What answered
    before is what a rollback goes back to.
    """
    swapper = root.swapper()
    root.put_in_place(changed=changed)
    swapper.run_once(0.0)
    assert "v0002" == live(swapper)
    assert Path("v0002.h5") == (root.registry.folder / "current.h5").readlink()
    assert "v0001" == root.registry.roll_back()


def test_a_version_in_the_place_of_its_own_link_stays_that_version(root: Root) -> None:
    """As where a backup has followed links: nothing becomes live, and a rollback goes back to what it did before."""
    root.add("v0002")
    for name in ("v0001", "v0002"):
        root.registry.make_current(name, "test")
    swapper = root.swapper()
    link = root.registry.folder / "current.h5"
    link.unlink()
    link.write_bytes((root.registry.folder / "v0002.h5").read_bytes())
    os.utime(link, (LONG_AGO, LONG_AGO))
    swapper.run_once(0.0)
    assert (["v0001", "v0002"], []) == (root.registry.names(), root.vetting.asked)
    assert (Path("v0002.h5"), "v0002") == (link.readlink(), live(swapper))
    assert "v0001" == root.registry.roll_back()


def test_while_a_file_in_the_place_of_current_waits_the_version_before_answers(root: Root) -> None:
    """Also after a restart: the last one that was live, and not the one before that."""
    root.add("v0002")
    for name in ("v0001", "v0002"):
        root.registry.make_current(name, "test")
    root.swapper()
    root.put_in_place()
    assert "v0002" == live(root.swapper())


def test_a_file_in_the_place_of_current_waits_for_a_training_and_that_is_said(
    root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; afterwards it is taken in."""
    swapper = root.swapper()
    root.put_in_place()
    with making.training(root.registry), caplog.at_level(logging.INFO):
        for _ in range(2):
            swapper.run_once(0.0)
    assert 1 == caplog.text.count("somebody's own model; it is taken in once the training that runs has ended")
    swapper.run_once(0.0)
    assert "v0002" == live(swapper)


@pytest.mark.parametrize("end", [None, RegistryError("it does not read digits")])
def test_a_choice_while_a_file_is_vetted_holds(root: Root, end: Exception | None) -> None:
    """Whatever comes of the file, the version that a person has promoted meanwhile answers, and the file is kept."""
    swapper = root.swapper()
    root.add("v0002")
    root.put_in_place()
    own = (root.registry.folder / "current.h5").read_bytes()
    root.vetting.meanwhile, root.vetting.end = lambda: root.registry.make_current("v0002", "promoted by hand"), end
    swapper.run_once(0.0)
    swapper.run_once(0.0)
    assert "v0002" == live(swapper)
    assert [own] == [path.read_bytes() for path in root.registry.folder.glob("aside-*.h5")]


def test_a_file_that_does_not_pass_is_put_aside(root: Root) -> None:
    """The reason is on record, and what was live answers on."""
    swapper = root.swapper()
    root.vetting.end = RegistryError("it does not read digits")
    root.put_in_place()
    swapper.run_once(0.0)
    swapper.run_once(0.0)
    assert (1, "v0001") == (root.swaps("failed"), live(swapper))
    assert 1 == len(list(root.registry.folder.glob("refused-*.h5")))


def test_a_version_that_cannot_be_loaded_is_no_crash_loop(root: Root) -> None:
    """A daemon that starts begins with the next usable one, and says once what is wrong with the one that was chosen."""
    path = root.add("v0002")
    path.write_bytes(b"no model")
    manifest = json.loads((root.registry.folder / "v0002.json").read_bytes()) | {"sha256": file_sha256(path)}
    (root.registry.folder / "v0002.json").write_text(json.dumps(manifest))
    root.registry.ledger.record("made", "v0002", "a test", sha256=manifest["sha256"])
    root.point_at("v0002.h5")
    swapper = root.swapper()
    assert "v0001" == live(swapper)
    for _ in range(3):
        swapper.run_once(0.0)
    assert ("v0001", "v0001") == (live(swapper), root.registry.current().name)  # which trainings are judged against
    root.registry.make_current("v0001", "test")
    swapper.run_once(0.0)
    assert "v0001" == live(root.swapper())


def test_a_version_whose_files_were_mended_is_tried_again(root: Root) -> None:
    """What came late, or could not be read at first, becomes live without being named again; until then it is said once."""
    swapper = root.swapper()
    path = root.add("v0002")
    aside = path.rename(path.with_name("aside"))
    root.point_at("v0002.h5")
    for _ in range(3):
        swapper.run_once(0.0)
    assert ("v0001", 1) == (live(swapper), root.swaps("failed"))
    aside.rename(path)
    swapper.run_once(0.0)
    assert ("v0002", 1) == (live(swapper), root.swaps("failed"))


@pytest.mark.parametrize("target", ["../elsewhere/own.h5", f"{'x' * 300}.h5"])
def test_a_link_to_what_cannot_be_looked_at_is_no_crash_loop(
    root: Root, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As one into a home that is closed to the service: said once where a daemon runs, put right where it starts."""
    swapper = root.swapper()
    root.point_at(target)
    for _ in range(3):
        swapper.run_once(0.0)
    assert ("v0001", 1) == (live(swapper), root.swaps("failed"))
    assert f"Received: a link to {target}" in caplog.text
    assert "v0001" == live(root.swapper()) == root.registry.current_name()
    root.point_at(target)
    root.add("v0002")
    root.registry.make_current("v0002", "test", instead_of="v0001")
    swapper.run_once(0.0)
    assert ("v0002", 1) == (live(swapper), root.swaps("failed"))


@pytest.mark.parametrize("content", ['{"schema": 2}', "[]", "", '{"schema": 1, "sha256": 7}'])
def test_a_bad_manifest_is_no_crash_loop(root: Root, content: str) -> None:
    """It is refused in a sentence, once, by a daemon that runs and by one that starts."""
    swapper = root.swapper()
    root.add("v0002")
    (root.registry.folder / "v0002.json").write_text(content)
    root.point_at("v0002.h5")
    swapper.run_once(0.0)
    swapper.run_once(0.0)
    assert ("v0001", 1) == (live(swapper), root.swaps("failed"))
    assert "v0001" == live(root.swapper())


@pytest.mark.parametrize("what", ["h5", "json"])
def test_a_version_that_is_a_link_is_refused(root: Root, what: str, tmp_path: Path) -> None:
    """Nothing in models/ but current.h5 and previous.h5 is reached through a link."""
    swapper = root.swapper()
    path = root.add("v0002").with_suffix(f".{what}")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    root.point_at("v0002.h5")
    swapper.run_once(0.0)
    assert ("v0001", 1) == (live(swapper), root.swaps("failed"))


def test_without_any_usable_model_there_is_no_daemon(root: Root) -> None:
    """The reasons name each file."""
    (root.registry.folder / "v0001.h5").write_bytes(b"no model")
    with pytest.raises((RegistryError, ModelError), match=r"v0001\.h5: expected the file that its manifest describes"):
        root.swapper()


def test_a_candidate_that_was_refused_never_answers_unless_promoted(root: Root) -> None:
    """Not even where all that ever were current are damaged; what would make it answer is said."""
    root.registry.ledger.record("begun", "v0002", "a training")
    root.add("v0002")
    root.registry.ledger.record("refused", "v0002", "it is worse")
    (root.registry.folder / "v0001.h5").write_bytes(b"no model")
    with pytest.raises(RegistryError, match=r"v0002 was made here and never promoted; only `digitd promote v0002`"):
        root.swapper()
    root.registry.make_current("v0002", "forced by hand")
    assert "v0002" == live(root.swapper())


def test_a_start_whose_vetting_is_interrupted_ends_with_a_sentence(root: Root) -> None:
    """The next start tries again."""
    (root.registry.folder / "ledger.jsonl").unlink()
    root.vetting.end = VettingStopped("told to stop")
    with pytest.raises(RegistryError, match="no model to begin with: told to stop"):
        root.swapper()
    root.vetting.end = None
    assert "v0001" == live(root.swapper())
