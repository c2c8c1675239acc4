"""registry.py: versions on disk, each with its manifest."""

import json
import shutil
import time
from pathlib import Path

import pytest

from daemon.files import file_sha256
from daemon.models.registry import Registry, RegistryError
from tests.conftest import REPOSITORY

SHIPPED = REPOSITORY / "models"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """models/ with v0001."""
    folder = tmp_path / "models"
    shutil.copytree(SHIPPED, folder, ignore=lambda _, names: [name for name in names if not name.startswith("v0001.")])
    return Registry(folder)


def add(registry: Registry, name: str) -> None:
    """Another version, of the same model."""
    shutil.copy(registry.folder / "v0001.h5", registry.folder / f"{name}.h5")
    shutil.copy(registry.folder / "v0001.json", registry.folder / f"{name}.json")


def test_the_shipped_version_is_what_its_manifest_says(registry: Registry) -> None:
    """Name, path and digest agree with the files, and the digest with the content."""
    version = registry.version("v0001")
    assert ("v0001", registry.folder / "v0001.h5") == (version.name, version.path)
    assert file_sha256(version.path) == version.manifest.sha256


def test_a_version_describes_itself(registry: Registry) -> None:
    """One line with accuracy, size and date."""
    version = registry.version("v0001")
    assert f"{version.manifest.holdout.accuracy:.2%} right on 10000 test images" in version.describe()


def test_the_folder_is_made_when_missing(tmp_path: Path) -> None:
    """An empty registry has no versions."""
    assert [] == Registry(tmp_path / "deep" / "models").names()


def test_names_are_in_the_order_of_their_numbers(registry: Registry) -> None:
    """v10000 comes after v9999; what has no manifest or another name is no version."""
    for name in ("v9999", "v10000", "v0002"):
        add(registry, name)
    (registry.folder / "v0003.h5").touch()
    (registry.folder / "vacation.json").touch()
    assert ["v0001", "v0002", "v9999", "v10000"] == registry.names()


def test_the_next_name_is_taken_by_nobody(registry: Registry) -> None:
    """Not even by a file without a manifest, such as a crash leaves."""
    assert registry.next_name() == "v0002"
    (registry.folder / "v0007.tmp.h5").touch()
    assert registry.next_name() == "v0008"


def test_the_first_name_is_v0001(tmp_path: Path) -> None:
    """An empty folder begins at 1."""
    assert Registry(tmp_path).next_name() == "v0001"


def test_an_unknown_version_is_refused(registry: Registry) -> None:
    """The message lists the versions that there are."""
    with pytest.raises(RegistryError, match="Versions here: v0001"):
        registry.version("v0009")


def test_a_version_without_its_h5_is_refused(registry: Registry) -> None:
    """A manifest alone is no version."""
    (registry.folder / "v0001.h5").unlink()
    with pytest.raises(RegistryError, match=r"v0001\.h5: expected the file that v0001\.json describes"):
        registry.version("v0001")


def test_another_h5_than_the_manifests_is_refused(registry: Registry) -> None:
    """One changed byte is noticed before anything opens the file."""
    path = registry.folder / "v0001.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"that its manifest describes, sha256 \w{64}\. Received: \w{64}"):
        registry.version("v0001")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "{}", "\xff"])
def test_a_damaged_manifest_is_refused(registry: Registry, content: str) -> None:
    """It is named, and nothing is loaded."""
    (registry.folder / "v0001.json").write_text(content, encoding="latin-1")
    with pytest.raises(RegistryError, match=r"v0001\.json: expected a readable manifest"):
        registry.version("v0001")


def test_without_a_choice_the_oldest_is_current(registry: Registry) -> None:
    """What was never live, such as a candidate whose gate a power cut prevented, does not become live by itself."""
    add(registry, "v0002")
    assert registry.current().name == "v0001"
    registry.settle(registry.current())
    assert Path("v0001.h5") == (registry.folder / "current.h5").readlink()


def test_the_chosen_version_is_current(registry: Registry) -> None:
    """A newer version changes nothing until it is chosen; the ledger then has both choices with their reasons."""
    registry.make_current("v0001", "one")
    add(registry, "v0002")
    assert registry.current().name == "v0001"
    registry.make_current("v0002", "two")
    assert registry.current().name == "v0002"
    assert [(line["version"], line["reason"]) for line in registry.ledger.lines()] == [("v0001", "one"), ("v0002", "two")]


def test_going_back_twice_is_where_one_was(registry: Registry) -> None:
    """A rollback makes the previous version current, and the current one previous."""
    add(registry, "v0002")
    registry.make_current("v0001", "test")
    registry.make_current("v0002", "test")
    assert registry.roll_back() == "v0001"
    assert registry.previous_name() == "v0002"
    assert registry.roll_back() == "v0002"


def test_a_file_of_somebodys_own_in_the_place_of_current_is_not_replaced(registry: Registry) -> None:
    """What a person copied over current.h5 stays, until it was looked at."""
    (registry.folder / "current.h5").write_bytes(b"somebody's own model")
    registry.settle(registry.current())
    assert (registry.folder / "current.h5").read_bytes() == b"somebody's own model"


def test_a_registry_can_be_moved(registry: Registry, tmp_path: Path) -> None:
    """The links are relative, so that a copy of the folder works."""
    registry.make_current("v0001", "test")
    shutil.move(registry.folder, tmp_path / "elsewhere")
    assert tmp_path / "elsewhere" / "v0001.h5" == Registry(tmp_path / "elsewhere").current().path


def test_an_empty_registry_has_no_current_version(tmp_path: Path) -> None:
    """The message says what to do."""
    with pytest.raises(RegistryError, match="expected at least one model version"):
        Registry(tmp_path).current()


def test_a_choice_that_cannot_be_used_falls_back(registry: Registry) -> None:
    """Damaged or gone, the current version gives way to the previous, so that a daemon comes up with one that loads."""
    add(registry, "v0002")
    registry.make_current("v0001", "test")
    registry.make_current("v0002", "test")
    (registry.folder / "v0002.h5").write_bytes(b"damaged")
    assert registry.current().name == "v0001"
    (registry.folder / "v0001.h5").unlink()
    with pytest.raises(RegistryError, match=r"(?s)v0002.*v0001"):
        registry.current()


def test_the_ledger_tells_what_was_live_when(registry: Registry) -> None:
    """The last version that a daemon began to answer with before the moment; a torn line at the end is passed over."""
    registry.ledger.record("live", "v0001", "the daemon started")
    between = time.time()
    registry.ledger.record("live", "v0002", "swapped")
    with (registry.folder / "ledger.jsonl").open("a") as file:
        file.write('{"event": "live", "vers')
    registry.ledger.record("current", "v0003", "after the power cut")
    assert registry.ledger.live_at(between) == "v0001"
    assert registry.ledger.live_at(time.time()) == "v0002"
    assert registry.ledger.live_at(0.0) is None
    assert [line["version"] for line in registry.ledger.lines()] == ["v0001", "v0002", "v0003"]


def test_the_shipped_manifest_is_complete() -> None:
    """It tells of what, how and how well the version was trained."""
    manifest = json.loads((SHIPPED / "v0001.json").read_bytes())
    assert {"schema", "version", "sha256", "created_at", "keras", "layers", "training", "holdout"} <= set(manifest)
