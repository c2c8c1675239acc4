"""Hostile model files: the model that is live answers on, the reason is on record, and nothing in a file is executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import FULL, REPOSITORY, Daemon, Drops, Nursery, fill, lay_out, mounted, until, why_no_root

pytestmark = pytest.mark.timeout(900 if FULL else 300)
NOTICE_SECONDS = 60.0  # within which a daemon on a busy machine has looked at current.h5, also by loading it in a child
MARK = "executed"  # a file that code hidden in a model would make
Damage = Callable[[Path], None]

LAMBDA = """
import sys, keras
mark, target = sys.argv[1:]
run = keras.layers.Lambda(lambda x, mark=mark: (open(mark, "w").close(), x)[1])
model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax"), run])
model.save(target)
"""


def shipped() -> bytes:
    """The model of this repository."""
    return (REPOSITORY / "models/v0001.h5").read_bytes()


def truncated(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(shipped()[: len(shipped()) // 2])


def empty(path: Path) -> None:
    """Nothing."""
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """A file of nothing but zeros."""
    path.write_bytes(bytes(len(shipped())))


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


def mutated(path: Path) -> None:
    """A model with single bits turned over."""
    data = bytearray(shipped())
    for at in range(1000, len(data), 7919):
        data[at] ^= 0x10
    path.write_bytes(data)


def oversized(path: Path) -> None:
    """A file larger than any model here has to be."""
    with path.open("wb") as file:
        file.write(shipped())
        file.truncate(100 << 20)


@pytest.fixture(scope="session")
def with_code(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    """A model with a Lambda layer, whose code leaves a mark wherever it is run."""
    folder = tmp_path_factory.mktemp("lambda")
    command = [sys.executable, "-c", LAMBDA, str(folder / MARK), str(folder / "model.h5")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / MARK).unlink()  # building it ran it

    def carrying_code(path: Path) -> None:
        shutil.copy(folder / "model.h5", path)

    carrying_code.mark = folder / MARK  # type: ignore[attr-defined]
    return carrying_code


@pytest.fixture(scope="module")
def daemon(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that answers with the shipped model."""
    root = lay_out(tmp_path_factory.mktemp("models") / "root")
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


def reason_on_record(daemon: Daemon, word: str) -> None:
    """The ledger says why, in a line that has this word."""
    lines = (daemon.root / "models/ledger.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["event"] == "swap_failed"
    assert word in last["reason"], last


@pytest.mark.parametrize("damage", [truncated, empty, zeroed, not_finite, mutated], ids=lambda damage: damage.__name__)
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


@pytest.mark.parametrize("damage", [truncated, empty, no_model, not_finite], ids=lambda damage: damage.__name__)
def test_a_version_that_is_no_model_is_refused(daemon: Daemon, damage: Damage) -> None:
    """A file that its manifest describes and that is no usable model is refused, and the live model answers on."""
    name = f"v02{hashlib.sha256(damage.__name__.encode()).digest()[0]:03d}"
    before = refused(daemon)
    version(daemon.root, name, damage)
    make_current(daemon.root, f"{name}.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    reason_on_record(daemon, "finite" if damage is not_finite else "expected")
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


def test_code_in_a_version_is_not_run(daemon: Daemon, with_code: Damage) -> None:
    """A version with a Lambda layer is refused, and its code does not run."""
    before = refused(daemon)
    version(daemon.root, "v0300", with_code)
    make_current(daemon.root, "v0300.h5")
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the swap is refused")
    assert not with_code.mark.exists()  # type: ignore[attr-defined]
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


FOREIGN: list[Damage] = [oversized, truncated, zeroed, no_model, not_finite, mutated]


@pytest.mark.parametrize("damage", FOREIGN if FULL else [oversized], ids=lambda damage: damage.__name__)
def test_a_foreign_file_is_vetted_and_refused(daemon: Daemon, damage: Damage) -> None:
    """A damaged file put in the place of current.h5 is set aside with a reason, and the live model answers on."""
    before = refused(daemon)
    put_in_place(daemon.root, damage)
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the file is refused")
    serves_on(daemon)
    until(lambda: daemon.get("/livez")[0] == 200, what="/livez says yes")
    until(lambda: list((daemon.root / "models").glob("refused-*")), NOTICE_SECONDS, "the file is set aside")
    assert not list((daemon.root / "models").glob("*.tmp.h5"))
    for path in (daemon.root / "models").glob("refused-*"):
        path.unlink()
    make_current(daemon.root, "v0001.h5")


@pytest.mark.skipif(not FULL, reason="in the full run: the child that vets it imports TensorFlow")
def test_code_in_a_foreign_file_is_not_run(daemon: Daemon, with_code: Damage) -> None:
    """A Lambda layer in a file put in the place of current.h5 is refused in the limited child, and does not run there."""
    before = refused(daemon)
    put_in_place(daemon.root, with_code)
    until(lambda: refused(daemon) > before, NOTICE_SECONDS, "the file is refused")
    assert not with_code.mark.exists()  # type: ignore[attr-defined]
    serves_on(daemon)
    make_current(daemon.root, "v0001.h5")


def put_in_place(root: Path, damage: Damage) -> None:
    """Replace current.h5 by a file of one's own, as a person with a copy command would."""
    made = root / "models/mine"
    damage(made)
    made.replace(root / "models/current.h5")


@pytest.mark.parametrize("damage", [truncated, zeroed, mutated], ids=lambda damage: damage.__name__)
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


@pytest.mark.skipif(bool(why_no_root()), reason=why_no_root() or "-")
def test_a_full_disk_while_a_model_is_saved_leaves_the_old_one(nursery: Nursery, tmp_path: Path) -> None:
    """Promoting a file onto a full disk fails with a reason, leaves nothing half-written, and the old model answers on."""
    with mounted("tmpfs", "size=3m") as point:
        root = lay_out(point / "root")
        with Daemon(nursery, root) as daemon:
            daemon.drops = Drops(root / "inbox")
            fill(point / "filler")
            own = tmp_path / "own.h5"
            own.write_bytes(shipped())
            done = subprocess.run(
                [sys.executable, "-m", "daemon", "promote", str(own), "-c", str(root / "config.toml")],
                check=False,
                capture_output=True,
                text=True,
                cwd=REPOSITORY,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )
            assert done.returncode == 1
            assert "Traceback" not in done.stderr, done.stderr
            assert "No space left" in done.stderr
            (point / "filler").unlink()
            assert sorted(path.name for path in (root / "models").glob("v*")) == ["v0001.h5", "v0001.json"]
            until(lambda: daemon.ready, what="/readyz says yes")
            serves_on(daemon)
    with contextlib.suppress(FileNotFoundError):
        own.unlink()
