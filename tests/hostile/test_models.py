"""Hostile model files: the model that is live answers on, the reason is on record, and nothing in a file is executed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.faults.harness import FULL, REPOSITORY, Daemon, Drops, Nursery, fill, lay_out, mounted, needs_root, until

pytestmark = pytest.mark.timeout(900 if FULL else 300)
NOTICE_SECONDS = 60.0  # within which a daemon on a busy machine has looked at current.h5, also by loading it in a child
Damage = Callable[[Path], None]


def shipped() -> bytes:
    """The model of this repository."""
    return (REPOSITORY / "models/v0001.h5").read_bytes()


def of_somebody(path: Path) -> None:
    """A good model that is no version's file."""
    path.write_bytes(shipped())
    with h5py.File(path, "r+") as file:
        file.attrs["by"] = "somebody"


def truncated(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(shipped()[: len(shipped()) // 2])


def empty(path: Path) -> None:
    """Nothing."""
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """A file of nothing but zeros."""
    path.write_bytes(bytes(len(shipped())))


def zeroed_stretch(path: Path) -> None:
    """A model that loads without a word, with zeros where the disk has lost some of its weights."""
    import h5py

    path.write_bytes(shipped())
    stretches = []

    def find(_name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            stretches.append((item.id.get_offset(), item.nbytes))

    with h5py.File(path) as file:
        file["model_weights"].visititems(find)
    with path.open("r+b") as file:
        for offset, size in stretches[1:4]:
            file.seek(offset)
            file.write(bytes(size))


def no_model(path: Path) -> None:
    """An HDF5 file without a model in it."""
    import h5py

    with h5py.File(path, "w") as file:
        file["numbers"] = [1, 2, 3]


def not_finite(path: Path) -> None:
    """A model in whose weights a NaN is hidden."""
    import h5py

    path.write_bytes(shipped())

    def poison(_name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.ndim == 4:
            item[0, 0, 0, 0] = float("nan")
            return True
        return None

    with h5py.File(path, "r+") as file:
        assert file["model_weights"].visititems(poison)


def misreading(path: Path) -> None:
    """A sound model that reads each 1 as a 3 and each 3 as a 1."""
    import h5py

    path.write_bytes(shipped())

    def exchange(_name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape[-1:] == (10,):
            weights = item[...]
            weights[..., [1, 3]] = weights[..., [3, 1]]
            item[...] = weights

    with h5py.File(path, "r+") as file:
        file["model_weights"].visititems(exchange)


def mutated(path: Path) -> None:
    """A model with single bits turned over."""
    data = bytearray(shipped())
    for at in range(1000, len(data), 7919):
        data[at] ^= 0x10
    path.write_bytes(data)


def oversized(path: Path) -> None:
    """A file of 100 GB, nearly all of it holes: nobody could read it in time."""
    with path.open("wb") as file:
        file.write(shipped())
        file.truncate(100 << 30)


@pytest.fixture(scope="session")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that code hidden in a model would make."""
    return tmp_path_factory.mktemp("lambda") / "executed"


@pytest.fixture(scope="session")
def with_code(nursery: Nursery, mark: Path) -> Damage:
    """A model with a Lambda layer, whose code leaves a mark wherever it is run."""
    model = mark.with_name("model.h5")
    assert nursery.ask(make_model=str(model), mark=str(mark)) == {"status": 0}
    mark.unlink()  # building it ran it

    def carrying_code(path: Path) -> None:
        shutil.copy(model, path)

    return carrying_code


@pytest.fixture
def damage(request: pytest.FixtureRequest, with_code: Damage) -> Damage:
    """The damage that a test is parametrized with; its name where it is made by a fixture."""
    return with_code if request.param == "with_code" else request.param


@pytest.fixture(scope="module")
def daemon(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that answers with the shipped model."""
    root = lay_out(tmp_path_factory.mktemp("models") / "root")
    (root / "datasets").symlink_to(REPOSITORY / "datasets")  # a foreign model must read the hold-out
    with Daemon(nursery, root, log=root / "log") as daemon:
        daemon.drops = Drops(root / "inbox")
        yield daemon


def version(root: Path, name: str, make: Damage, digest: str | None = None) -> None:
    """Lay a file into models/ as a version, with a manifest that names its digest or another."""
    path = root / "models" / f"{name}.h5"
    make(path)
    manifest = json.loads((root / "models/v0001.json").read_bytes())
    manifest |= {"version": name, "sha256": digest or hashlib.sha256(path.read_bytes()).hexdigest()}
    (root / "models" / f"{name}.json").write_text(json.dumps(manifest))


def make_current(root: Path, target: str) -> None:
    """Point current.h5 at a file, in one step."""
    link = root / "models/.current"
    link.symlink_to(target)
    link.replace(root / "models/current.h5")


def refused(daemon: Daemon) -> float:
    """How many swaps the daemon has refused."""
    return daemon.metric("digitd_model_swaps_total", result="failed")


def serves_on(daemon: Daemon) -> None:
    """It is ready, and the shipped model answers."""
    name = daemon.drops.drop_digits(1)[0]
    result = daemon.root / "results" / f"{name}.json"
    until(result.exists, what=f"{name} is answered")
    assert json.loads(result.read_bytes())["model"]["version"] == "v0001"
    assert daemon.ready


def ledger(root: Path) -> list[dict[str, Any]]:
    """Its lines, oldest first."""
    return [json.loads(line) for line in (root / "models/ledger.jsonl").read_text().splitlines()]


def reason_on_record(daemon: Daemon, words: str) -> None:
    """The ledger says why, in a line that has these words, and so does the log."""
    last = until(lambda: [line for line in ledger(daemon.root)[-1:] if line["event"] == "swap_failed"])[0]
    assert words in last["reason"], last
    assert last["reason"] in daemon.log.read_text()


def versions(root: Path) -> list[str]:
    """The versions that are there, whole or not, and what current.h5 names."""
    return [*sorted(path.name for path in (root / "models").glob("v*")), str((root / "models/current.h5").readlink())]


DAMAGES = (
    [truncated, empty, zeroed, zeroed_stretch, not_finite, mutated] if FULL else [zeroed_stretch]
)  # one digest is wrong


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__, indirect=True)
def test_a_file_that_its_manifest_does_not_describe_is_never_opened(daemon: Daemon, damage: Damage) -> None:
    """A version whose digest is wrong is refused for that, and the live model answers on."""
    before = refused(daemon)
    name = f"v01{hashlib.sha256(damage.__name__.encode()).digest()[0]:03d}"
    version(daemon.root, name, damage, hashlib.sha256(shipped()).hexdigest())
    make_current(daemon.root, f"{name}.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    reason_on_record(daemon, "sha256")
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


in_full = pytest.mark.skipif(not FULL, reason="in the full run; in short it is in tests/training")


@pytest.mark.parametrize(
    "damage",
    [*(pytest.param(damage, marks=in_full) for damage in (empty, no_model, truncated, not_finite)), misreading],
    ids=lambda damage: damage.__name__,
    indirect=True,
)
def test_a_version_that_was_not_made_here_is_vetted(daemon: Daemon, damage: Damage) -> None:
    """A file that somebody laid there, with a manifest that describes it, is vetted; the live model answers on."""
    name = f"v02{hashlib.sha256(damage.__name__.encode()).digest()[0]:03d}"
    before = refused(daemon)
    version(daemon.root, name, damage)
    make_current(daemon.root, f"{name}.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    reason_on_record(daemon, {not_finite: "finite", misreading: "right on the hold-out"}.get(damage, "expected"))
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


def test_code_in_a_version_is_not_run(daemon: Daemon, with_code: Damage, mark: Path) -> None:
    """A version with a Lambda layer is refused, and its code does not run."""
    before = refused(daemon)
    version(daemon.root, "v0300", with_code)
    make_current(daemon.root, "v0300.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    assert not mark.exists()
    reason_on_record(daemon, "ambda")
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


def test_a_version_without_manifest_is_refused(daemon: Daemon) -> None:
    """A file that nobody has described is no version."""
    before = refused(daemon)
    (daemon.root / "models/v0400.h5").write_bytes(shipped())
    make_current(daemon.root, "v0400.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    reason_on_record(daemon, "manifest")
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


# Damages of a file that nobody has described, and what the reason then says. All but the oversized one are found out in a
# child that imports TensorFlow.
FOREIGN: dict[str, tuple[Damage | str, str]] = {
    "truncated": (truncated, "expected a Keras model"),
    "empty": (empty, "expected a Keras model"),
    "zeroed": (zeroed, "expected a Keras model"),
    "zeroed stretch": (zeroed_stretch, "right on the hold-out"),
    "no model": (no_model, "expected a Keras model"),
    "NaN": (not_finite, "expected finite weights"),
    "mutated": (mutated, "expected"),
    "Lambda": ("with_code", "ambda"),
    "oversized": (oversized, "expected at most 67108864 bytes"),
}
in_every_form = pytest.mark.parametrize(
    ("damage", "words"),
    list(FOREIGN.values()) if FULL else [FOREIGN["oversized"]],
    ids=list(FOREIGN) if FULL else ["oversized"],
    indirect=["damage"],
)


@in_every_form
def test_a_foreign_file_is_vetted_and_refused(daemon: Daemon, damage: Damage, words: str, mark: Path) -> None:
    """A damaged file put in the place of current.h5 is set aside with a reason, and the live model answers on."""
    before = refused(daemon)
    put_in_place(daemon.root, damage)
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the file is refused")
    serves_on(daemon)
    until(lambda: daemon.get("/livez")[0] == 200, what="/livez says yes")
    reason_on_record(daemon, words)
    (aside,) = until(lambda: list((daemon.root / "models").glob("refused-*")), NOTICE_SECONDS, "the file is set aside")
    assert not list((daemon.root / "models").glob("*.tmp.h5"))
    assert not mark.exists()
    aside.unlink()
    make_current(daemon.root, "v0001.h5")


@in_every_form
def test_a_foreign_file_is_not_promoted(daemon: Daemon, damage: Damage, words: str, mark: Path, tmp_path: Path) -> None:
    """`digitd promote` of a damaged file says why not, changes nothing, and runs nothing."""
    make_current(daemon.root, "v0001.h5")
    damage(tmp_path / "own.h5")
    not_promoted(daemon, str(tmp_path / "own.h5"), words)
    assert not mark.exists()


@pytest.mark.parametrize("words", ["manifest", "sha256"], ids=["missing manifest", "wrong digest"])
def test_a_damaged_version_is_not_promoted(daemon: Daemon, words: str) -> None:
    """`digitd promote` of a version without manifest or of another digest says why not and changes nothing."""
    make_current(daemon.root, "v0001.h5")
    name = {"manifest": "v0401", "sha256": "v0402"}[words]
    if words == "manifest":
        (daemon.root / "models" / f"{name}.h5").write_bytes(shipped())
    else:
        version(daemon.root, name, truncated, hashlib.sha256(shipped()).hexdigest())
    not_promoted(daemon, name, words)
    for path in (daemon.root / "models").glob(f"{name}.*"):
        path.unlink()


def not_promoted(daemon: Daemon, model: str, words: str) -> None:
    """Promoting it fails with these words, and leaves everything as it was."""
    before, record = versions(daemon.root), ledger(daemon.root)
    done = promote(daemon.root, model)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert versions(daemon.root) == before
    assert [line for line in ledger(daemon.root)[len(record) :] if line["event"] == "current"] == []
    serves_on(daemon)


def promote(root: Path, model: str) -> subprocess.CompletedProcess[str]:
    """Run `digitd promote`."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", "promote", model, "-c", str(root / "config.toml")],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def put_in_place(root: Path, damage: Damage, then: Callable[[], object] = lambda: None) -> None:
    """Replace current.h5 by a file of one's own, as a person with a copy command would."""
    made = root / "models/mine"
    damage(made)
    then()
    made.replace(root / "models/current.h5")


@pytest.mark.parametrize(
    "damage", [truncated, zeroed, mutated] if FULL else [mutated], ids=lambda damage: damage.__name__, indirect=True
)
def test_with_no_usable_model_it_does_not_start(nursery: Nursery, tmp_path: Path, damage: Damage) -> None:
    """Without any usable version the daemon ends at once, with exit code 1, and says which file is wrong and how."""
    root = lay_out(tmp_path / "root")
    damage(root / "models/v0001.h5")
    daemon = Daemon(nursery, root, log=tmp_path / "log").start(ready=False)
    until(lambda: not daemon.alive, what="it ends")
    assert daemon.stop_code() == 1
    said = (tmp_path / "log").read_text()
    assert "v0001.h5: expected the file that its manifest describes" in said
    assert "Traceback" not in said


@needs_root
def test_a_full_disk_while_a_model_is_saved_leaves_the_old_one(nursery: Nursery, tmp_path: Path) -> None:
    """Promoting a file onto a full disk fails with a reason, leaves nothing half-written, and the old model answers on."""
    with mounted("tmpfs", "size=3m") as point:
        root = lay_out(point / "root")
        with Daemon(nursery, root) as daemon:
            daemon.drops = Drops(root / "inbox")
            fill(point / "filler")
            own = tmp_path / "own.h5"
            of_somebody(own)
            done = promote(root, str(own))
            assert done.returncode == 1
            assert "Traceback" not in done.stderr, done.stderr
            assert "No space left" in done.stderr
            (point / "filler").unlink()
            assert sorted(path.name for path in (root / "models").glob("v*")) == ["v0001.h5", "v0001.json"]
            until(lambda: daemon.ready, what="/readyz says yes")
            serves_on(daemon)


@needs_root
def test_a_full_disk_while_a_model_is_taken_in_is_not_its_end(nursery: Nursery) -> None:
    """A good model put in the place of current.h5 on a full disk is said to wait, and is taken in once there is room."""
    with mounted("tmpfs", "size=8m") as point:
        root = lay_out(point / "root")
        (root / "datasets").symlink_to(REPOSITORY / "datasets")
        with Daemon(nursery, root) as daemon:
            daemon.drops = Drops(root / "inbox")
            put_in_place(root, of_somebody, lambda: fill(point / "filler"))
            until(lambda: refused(daemon) > 0, NOTICE_SECONDS, "it says that it cannot")
            assert "No space left" in daemon.log.read_text()
            assert not list((root / "models").glob("refused-*"))
            assert not list((root / "models").glob("v0002*"))
            (point / "filler").unlink()
            serves_on(daemon)
            assert refused(daemon) == 1
            failures = until(
                lambda: [line for line in ledger(root) if line["event"] == "swap_failed"], what="it is on record"
            )
            assert "No space left" in failures[0]["reason"]
            if FULL:  # a child imports TensorFlow
                until((root / "models/current.h5").is_symlink, NOTICE_SECONDS, "it is taken in")
                assert versions(root)[-1] != "v0001.h5"
