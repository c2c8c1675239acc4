"""registry.py: versions on disk, each with its manifest."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from daemon.files import file_sha256, replace_symlink
from daemon.models import making
from daemon.models.ledger import ROTATED_BYTES
from daemon.models.making import TrainingUnderWay
from daemon.models.manifest import Holdout, Manifest
from daemon.models.registry import ChampionChanged, Registry, RegistryError
from daemon.models.removal import remove_old
from daemon.models.version import Version
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


def estrange(registry: Registry, name: str) -> None:
    """Give a version another manifest than the shipped one."""
    other = registry.manifest(name).model_copy(update={"parameters": 1})
    (registry.folder / f"{name}.json").write_bytes(other.to_json())


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


def test_a_rollback_that_is_cut_short_can_be_done_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two links is replaced first: the version before is current, or still the one before."""
    add(registry, "v0002")
    registry.make_current("v0001", "a test")
    registry.make_current("v0002", "a test")
    replaced = []

    def replace_first_one(link: Path, target: str) -> None:
        if replaced:
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced.append(link)
        replace_symlink(link, target)

    monkeypatch.setattr("daemon.models.registry.replace_symlink", replace_first_one)
    with pytest.raises(OSError, match="No space"):
        registry.roll_back()
    assert "v0001" in (registry.current_name(), registry.previous_name())


def test_a_promotion_that_was_cut_short_leaves_a_version_to_go_back_to(registry: Registry) -> None:
    """Of the two links the one to the version before was replaced: which one had been before that, the ledger knows."""
    for name in ("v0002", "v0003"):
        add(registry, name)
    for name in ("v0001", "v0002"):
        registry.make_current(name, "a test")
    replace_symlink(registry.folder / "previous.h5", "v0002.h5")  # as far as a promotion of v0003 came
    assert "v0001" == registry.roll_back()
    assert ("v0001", "v0002") == (registry.current_name(), registry.previous_name())


def test_what_went_live_is_a_choice_although_a_kill_kept_it_from_being_noted(registry: Registry) -> None:
    """The link was replaced, and the ledger has no line of it: once others are gone, it may answer again."""
    add(registry, "v0002")
    registry.ledger.record("begun", "v0002", "a test")
    registry.ledger.record("live", "v0002", "swapped")
    (registry.folder / "v0001.h5").unlink()
    assert ["v0002"] == [version.name for version in registry.usable()]


def test_names_are_in_the_order_of_their_numbers(registry: Registry) -> None:
    """v10000 comes after v9999; what has no manifest or another name is no version."""
    for name in ("v9999", "v10000", "v0002"):
        add(registry, name)
    (registry.folder / "v0003.h5").touch()
    (registry.folder / "vacation.json").touch()
    assert ["v0001", "v0002", "v9999", "v10000"] == registry.names()


def test_the_next_name_is_taken_by_nobody(registry: Registry) -> None:
    """Not even by a file without a manifest, such as a crash leaves."""
    assert making.next_name(registry) == "v0002"
    (registry.folder / "v0007.tmp.h5").touch()
    assert making.next_name(registry) == "v0008"


def test_the_first_name_is_v0001(tmp_path: Path) -> None:
    """An empty folder begins at 1."""
    assert making.next_name(Registry(tmp_path)) == "v0001"


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


def test_a_first_choice_can_be_undone(registry: Registry) -> None:
    """Where nobody had chosen, the one before is the one that a daemon would have answered with."""
    add(registry, "v0002")
    registry.make_current("v0002", "by hand")
    assert registry.roll_back() == "v0001"


def test_a_file_of_somebodys_own_in_the_place_of_current_is_not_replaced(registry: Registry) -> None:
    """What a person copied over current.h5 stays, until it was looked at."""
    (registry.folder / "current.h5").write_bytes(b"somebody's own model")
    registry.settle(registry.current())
    assert (registry.folder / "current.h5").read_bytes() == b"somebody's own model"


def test_a_choice_puts_a_file_of_somebodys_own_aside(registry: Registry) -> None:
    """What waits in the place of current.h5 while a training runs is nobody's to lose: it has another name afterwards."""
    (registry.folder / "current.h5").write_bytes(b"somebody's own model")
    registry.make_current("v0001", "promoted")
    (aside,) = registry.folder.glob("aside-*.h5")
    assert aside.read_bytes() == b"somebody's own model"
    assert registry.current_name() == "v0001"


def test_choices_at_the_same_time_come_one_after_the_other(registry: Registry) -> None:
    """Candidates, promotions and rollbacks of many threads: each replaces what it says, and no challenge is stale."""
    names = ["v0001", "v0002", "v0003"]
    for name in names[1:]:
        add(registry, name)
    registry.make_current("v0001", "test")
    registry.make_current("v0002", "test")

    def choose(number: int) -> None:
        for turn in range(10):
            name = names[(number + turn) % 3]
            with suppress(RegistryError):
                match number % 3:
                    case 0:
                        registry.make_current(name, f"instead of {names[turn % 3]}", instead_of=names[turn % 3])
                    case 1:
                        registry.make_current(name, "by hand")
                    case 2:
                        registry.roll_back()

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(choose, number) for number in range(6)]:
            done.result()
    lines = list(registry.ledger.lines())
    assert len(lines) > 10
    for before, line in pairwise(lines):
        assert line["before"] == before["version"]
        assert line["reason"] in ("by hand", "rolled back", "test", f"instead of {before['version']}")
    assert (registry.previous_name(), registry.current_name()) == (lines[-1]["before"], lines[-1]["version"])


def test_what_was_copied_here_by_hand_is_not_removed_as_old(registry: Registry) -> None:
    """It may be a person's only copy, also once it was vetted; what was made here goes, but never what answers."""
    add(registry, "v0002")
    estrange(registry, "v0002")
    registry.ledger.record("vetted", "v0002", "a test", sha256=registry.manifest("v0002").sha256)
    made = [make(registry, bytes([number])).name for number in range(4)]
    assert remove_old(registry, 2) == made[:2]
    assert registry.names() == ["v0001", "v0002", *made[2:]]


def test_what_somebody_chooses_is_not_removed_as_old(registry: Registry) -> None:
    """Nor is it chosen once it was removed: one comes after the other."""
    made = [make(registry, bytes([number])).name for number in range(4)]
    with ThreadPoolExecutor(1) as threads:
        with registry.choosing():
            done = threads.submit(remove_old, registry, 2)
            wait([done], timeout=1)  # it comes to its end now only where it looks at no choice
            registry._choose(made[0], "by hand", None)
        assert ["v0001", made[1]] == done.result()
    assert registry.current().name == made[0]
    with pytest.raises(RegistryError, match=f"{made[1]}.json: expected a model version"):
        registry.make_current(made[1], "by hand")


def test_what_a_person_wrote_into_the_ledger_is_passed_over(registry: Registry) -> None:
    """A line without event, version or time, or with facts that are none, says nothing, and hinders nothing."""
    path = registry.folder / "ledger.jsonl"
    lines = ['{"event": "current"}', '{"event": "promoted", "version": "v0001"}', '{"version": 3}', "notes", "[" * 100_000]
    for moment in ('"yesterday"', "1" * 400, "-1e300", "NaN"):
        lines.append(f'{{"event": "promoted", "version": "v0001", "time": 1, "began": {moment}}}')
        lines.append(f'{{"event": "promoted", "version": "v0001", "time": {moment}}}')
    facts = '"best_accuracy": "99 %"', '"holdout_accuracy": NaN', '"holdout_sha256": ["a"]', '"dataset_sha256": {}'
    lines += [f'{{"event": "promoted", "version": "v0001", "time": 1, {fact}}}' for fact in facts]
    path.write_text("\n".join(lines))
    assert registry.current().name == "v0001"
    assert list(registry.ledger.lines()) == []


def test_a_number_that_nobody_gives_is_none_of_a_version(registry: Registry) -> None:
    """Python makes none of so many digits: the next version could not be named, nor the ledger put aside."""
    registry.ledger.record("begun", f"v{'1' * 5000}", "somebody's own")
    registry.ledger.record("begun", f"v{'9' * 18}", "somebody's own")  # behind which no version has a name
    assert "v0002" == making.next_name(registry)
    with (registry.folder / "ledger.jsonl").open("a") as file:
        file.write("\n" * ROTATED_BYTES)
    assert registry.ledger.rotate(registry.names()) is not None


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


def test_the_shipped_version_is_proven(registry: Registry) -> None:
    """Its manifest is the one that came with digitd, under whatever name; with another one it is a stranger's."""
    add(registry, "v0002")
    assert registry.is_proven(registry.version("v0001"))
    assert registry.is_proven(registry.version("v0002"))
    path = registry.folder / "v0002.json"
    path.write_text(path.read_text().replace('"temperature": ', '"temperature": 9'))
    assert not registry.is_proven(registry.version("v0002"))


def test_a_version_that_was_made_here_is_proven(registry: Registry) -> None:
    """By the line with its digest that finishing it leaves."""
    made = make(registry, b"a model")
    assert registry.is_proven(made)
    assert [("begun", "v0002"), ("made", "v0002")] == [(x["event"], x["version"]) for x in registry.ledger.lines()]
    made.path.write_bytes(b"another")
    planted = made.manifest.model_copy(update={"sha256": file_sha256(made.path)})
    (registry.folder / "v0002.json").write_bytes(planted.to_json())
    assert not registry.is_proven(registry.version("v0002"))


def make(registry: Registry, content: bytes) -> Version:
    """A version as a training makes one, of whatever content."""
    name = making.begin(registry, "a test")
    making.unfinished(registry, name).write_bytes(content)
    digest = file_sha256(making.unfinished(registry, name))
    making.finish(
        registry, Manifest(version=name, sha256=digest, created_at="", parameters=0, holdout=Holdout(images=0, accuracy=0))
    )
    return registry.version(name)


def test_what_was_neither_made_nor_vetted_does_not_answer(registry: Registry) -> None:
    """It is passed over, with a sentence where there is nothing else; and current.h5 goes on naming it."""
    add(registry, "v9999")
    estrange(registry, "v9999")
    (registry.folder / "current.h5").symlink_to("v9999.h5")
    version = registry.current()
    assert "v0001" == version.name
    registry.settle(version)
    assert Path("v9999.h5") == (registry.folder / "current.h5").readlink()
    (registry.folder / "v0001.json").unlink()
    with pytest.raises(RegistryError, match=r"Received: v9999\. Have one tried with `digitd promote v9999`"):
        registry.current()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gives_nothing_away_through_a_link(registry: Registry, tmp_path: Path) -> None:
    """The folder's owner may swap an unfinished version for one, for instance while it is vetted."""
    os.chown(registry.folder, 12345, 23456)
    (tmp_path / "roots").touch()
    name = making.begin(registry, "a test")
    making.unfinished(registry, name).symlink_to(tmp_path / "roots")
    manifest = Manifest(version=name, sha256="0" * 64, created_at="", parameters=0, holdout=Holdout(images=0, accuracy=0))
    with pytest.raises(OSError, match="symbolic links"):
        making.finish(registry, manifest)
    assert 0 == (tmp_path / "roots").stat().st_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_version_that_root_makes_is_its_folders_owners(registry: Registry) -> None:
    """After a `sudo digitd retrain`, whatever the umask, the service can read it."""
    os.chown(registry.folder, 12345, 23456)
    made = make(registry, b"a model")
    for ending in (".h5", ".json"):
        status = made.path.with_suffix(ending).stat()
        assert (12345, 23456) == (status.st_uid, status.st_gid)


def test_only_what_was_begun_here_is_removed_as_unfinished(registry: Registry) -> None:
    """Half a model, and a whole one without a manifest; what somebody else put there stays, also under such a name."""
    making.unfinished(registry, making.begin(registry, "a training that is killed")).write_bytes(b"half")
    whole = make(registry, b"a model")
    (registry.folder / f"{whole.name}.json").unlink()
    theirs = make(registry, b"another model")
    (registry.folder / f"{theirs.name}.json").unlink()
    theirs.path.write_bytes(b"somebody's own")
    for name in ("v0050.h5", "v0051.tmp.h5", "v0002.h5"):
        (registry.folder / name).write_bytes(b"somebody's own")
    linked = make(registry, b"a third model")
    (registry.folder / f"{linked.name}.json").unlink()
    linked.path.rename(registry.folder / "elsewhere")
    linked.path.symlink_to("elsewhere")
    with making.training(registry):
        left = {path.name for path in registry.folder.glob("v*.h5")}
    assert {"v0001.h5", "v0002.h5", "v0004.h5", "v0050.h5", "v0051.tmp.h5", linked.path.name} == left


def test_a_candidate_replaces_only_the_champion_that_it_was_judged_against(registry: Registry) -> None:
    """After a rollback or a promotion meanwhile it is refused, and nothing changes."""
    add(registry, "v0002")
    add(registry, "v0003")
    registry.make_current("v0002", "promoted", instead_of="v0001")  # nobody had chosen yet: v0001 would have answered
    assert "v0001" == registry.previous_name()
    registry.roll_back()
    with pytest.raises(ChampionChanged, match=r"v0003: expected v0002 to be the champion still\. Received: v0001\."):
        registry.make_current("v0003", "promoted", instead_of="v0002")
    assert ("v0001", "v0002") == (registry.current_name(), registry.previous_name())


@pytest.mark.parametrize("name", ["v0001.json", "v0001.h5"])
def test_a_pipe_is_no_version(registry: Registry, name: str) -> None:
    """Nobody waits for its other end."""
    (registry.folder / name).unlink()
    os.mkfifo(registry.folder / name)
    with pytest.raises(RegistryError, match=r"v0001\.(json|h5): expected"):
        registry.version("v0001")


def test_only_its_owner_can_hold_the_right_to_train(registry: Registry) -> None:
    """Who can read a lock can keep it from others; and one that an earlier version left is no hindrance."""
    lock = registry.folder / ".training.lock"
    lock.touch(0o644)
    with making.training(registry):
        assert 0o600 == lock.stat().st_mode & 0o777
        with pytest.raises(TrainingUnderWay), making.training(registry):
            pass


def test_a_link_to_elsewhere_names_no_version_of_this_folder(registry: Registry, tmp_path: Path) -> None:
    """A model of somebody's own may be called like one of ours; one of ours may be named by its whole path."""
    add(registry, "v0002")
    mine = tmp_path / "mine" / "v0002.h5"
    mine.parent.mkdir()
    mine.write_bytes(b"my own")
    current = registry.folder / "current.h5"
    current.symlink_to(mine)
    assert registry.current_name() is None
    assert registry.foreign() is not None
    replace_symlink(current, str(registry.folder / "v0002.h5"))
    assert "v0002" == registry.current_name()
