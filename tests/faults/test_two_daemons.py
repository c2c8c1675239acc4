"""Two daemons, as on two hosts: what others see is shared, from inbox/ to models/; each has its own root and work/."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.files import file_sha256, replace_symlink
from daemon.models.registry import Registry
from tests.faults.harness import (
    FULL,
    OURS,
    Daemon,
    Drops,
    Nursery,
    Reader,
    chances,
    check_all_done,
    is_settled,
    lay_out,
    png,
    until,
)
from tests.faults.test_kills import SEED, pause_at_most

pytestmark = pytest.mark.timeout(3600 if FULL else 300)
SHARED = ("inbox", "results", "processed", "rejected", "corrections", "models")
KILLS = 40 if FULL else 4


@pytest.fixture
def pair(nursery: Nursery, tmp_path: Path) -> tuple[Daemon, Daemon]:
    """Both, not yet started."""
    return two_daemons(nursery, tmp_path)


def two_daemons(nursery: Nursery, folder: Path) -> tuple[Daemon, Daemon]:
    """Two on roots below a folder; what they share are the first one's own folders, and only the first one trains."""
    one, two = (lay_out(folder / name, nursery.model) for name in ("one", "two"))
    for name in SHARED:
        shutil.rmtree(two / name, ignore_errors=True)
    elsewhere = {f"DIGITD_PATHS__{name.upper()}": str(one / name) for name in SHARED}
    never = {"DIGITD_RETRAIN__CRON": "", "DIGITD_RETRAIN__AFTER_CORRECTIONS": "0"}
    return Daemon(nursery, one), Daemon(nursery, two, elsewhere | never)


def test_killed_at_random_moments_two_daemons_lose_and_double_nothing(pair: tuple[Daemon, Daemon]) -> None:
    """Whichever is killed in mid-work, the other goes on; what the first had claimed it does itself when it is back."""
    one, _ = pair
    chance = chances(SEED)
    drops = Drops(one.root / "inbox")
    with Reader(one.root), ExitStack() as stack:
        for daemon in pair:
            stack.enter_context(daemon)
        for _ in range(KILLS):
            drops.drop_digits(150)
            for _ in range(5):  # a name that comes again and again, while the one or the other still has it
                drops.drop("same.png", png(drops.count))
                drops.drop("new/same.txt", b"no image, %d" % drops.count)
            drops.drop_mixture()
            victim = chance.choice(pair)
            pause_at_most(chance, 0.3)
            victim.kill()
            victim.start()
        until(lambda: is_settled(one.root) and all(map(is_tidy, pair)), 120, "all to be done")
        done = [daemon.metric("digitd_images_total") for daemon in pair]
    check_all_done(one.root, drops, killed=True)
    print(f"\ntwo daemons: {drops.count} files, {KILLS} kills; since their last starts they answered {done}")


def is_tidy(daemon: Daemon) -> bool:
    """Whether its work/ has nothing of others, and no folder, which the sweep after the last file removes."""
    return {path.name for path in (daemon.root / "work").iterdir()} <= OURS


def test_two_daemons_take_one_swap_and_notice_one_correction(pair: tuple[Daemon, Daemon]) -> None:
    """Each swaps to what current.h5 names, each line of the ledger is whole, and each finds the answer, whoever gave it."""
    one, two = pair
    models = one.root / "models"
    with one, two:
        content = png(1)
        Drops(one.root / "inbox").drop("a.png", content)
        until((one.root / "processed" / "a.png").exists, what="the answer")
        label = one.root / "corrections" / "1" / "a.png"
        label.parent.mkdir(exist_ok=True)
        label.write_bytes(content)
        make_version(Registry(models), "v0002")
        replace_symlink(models / "current.h5", "v0002.h5")
        for daemon in pair:
            until(lambda daemon=daemon: daemon.metric("digitd_model_info", version="v0002"), what="the swap")
            until(lambda daemon=daemon: known_corrections(daemon), what="the correction, with its answer")
    lines = [json.loads(line) for line in (models / "ledger.jsonl").read_text().splitlines()]
    assert 2 == sum(line["event"] == "live" and line["version"] == "v0002" for line in lines)


def make_version(registry: Registry, name: str) -> None:
    """Another version, which differs in nothing but its name."""
    shutil.copy(registry.folder / "v0001.h5", registry.folder / f"{name}.h5")
    manifest = json.loads((registry.folder / "v0001.json").read_bytes())
    (registry.folder / f"{name}.json").write_text(json.dumps(manifest | {"version": name}))
    registry.ledger.record("made", name, "for a test", sha256=file_sha256(registry.folder / f"{name}.h5"))


def known_corrections(daemon: Daemon) -> float:
    """How many corrections it compared with an answer."""
    return sum(daemon.metric("digitd_corrections_total", agrees=agrees) for agrees in ("yes", "no"))
