"""kill -9, at every system call of the walk that changes a file, and at random moments."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from tests.faults.harness import (
    FULL,
    Daemon,
    Drops,
    Nursery,
    Reader,
    Violation,
    chances,
    check_all_done,
    check_nothing_lost,
    is_settled,
    lay_out,
    names_in,
    needs_root,
    parent_of,
    threads_of,
    traced,
    until,
)

pytestmark = [needs_root, pytest.mark.timeout(3600 if FULL else 300)]
RANDOM_KILLS = 100 if FULL else 3
MOST_OF_A_KIND = 6  # of the calls of one kind in one thread: a mixture has 17 files, which meet the same lines
Call = TypeVar("Call", tuple[int, str, int], tuple[str, int])
CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
SEED = int(os.environ.get("FAULTS_SEED", "1"))


def calls_by_thread(log: Path) -> dict[int, list[tuple[str, int]]]:
    """The file-changing calls of every traced thread: each one's kind, and its number among all calls of that kind.

    Those that change no file, such as a write into a pipe, are counted and left out: strace counts them, too.
    """
    calls: dict[int, list[tuple[str, int]]] = {}
    counts: Counter[tuple[int, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if not (match := CALL.match(line)):
            continue
        thread, kind, rest = int(match[1]), match[2], match[3]
        counts[thread, kind] += 1
        if kind.startswith("open") and "O_CREAT" not in rest:
            continue
        if kind == "write" and re.match(r"\d+<(pipe|socket|anon_inode|/dev/|/tmp/digitd-[^/]*\.log|UNIX|TCP)", rest):
            continue
        calls.setdefault(thread, []).append((kind, counts[thread, kind]))
    return calls


def rehearse(daemon: Daemon, drops: Drops, log: Path) -> tuple[list[tuple[int, str, int]], list[tuple[str, int]]]:
    """Every file-changing call on the walk of a mixture: of the main process as (thread, kind, number), of the decoders."""
    threads = threads_of(daemon.pid)
    with traced([*threads, *daemon.workers], log=log):
        drops.drop_mixture()
        daemon.settle()
    calls = calls_by_thread(log)
    mine = [
        (threads.index(thread), *call) for thread in sorted(calls) if thread in threads for call in sorted(calls[thread])
    ]
    theirs = sorted({call for thread, kinds in calls.items() if thread not in threads for call in kinds})
    return mine, theirs


def spread(calls: list[Call]) -> list[Call]:
    """Of each kind at most so many, the first and the last among them; a call's last element is its number."""
    kinds: dict[tuple[int | str, ...], list[Call]] = {}
    for call in calls:
        kinds.setdefault(call[:-1], []).append(call)
    places = [place / (MOST_OF_A_KIND - 1) for place in range(MOST_OF_A_KIND)]
    return [call for group in kinds.values() for call in dict.fromkeys(group[round(at * (len(group) - 1))] for at in places)]


def sample(calls: list[tuple[int, str, int]]) -> list[tuple[int, str, int]]:
    """Some of each kind and thread in the full run; in the short one, one of each kind, early enough to be met again.

    Without the writes, whose number depends on what is logged meanwhile: there is a test for them alone.
    """
    if FULL:
        return spread(calls)
    by_kind: dict[str, list[tuple[int, str, int]]] = {}
    for call in calls:
        by_kind.setdefault(call[1], []).append(call)
    return [group[(len(group) - 1) // 2] for kind, group in by_kind.items() if kind != "write"]


def test_killed_at_any_file_changing_call_it_loses_nothing(nursery: Nursery, place: Path, tmp_path: Path) -> None:
    """Killed at any system call that changes a file, the daemon has lost nothing, and the next one finishes the work."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        drops.drop_mixture()
        daemon.settle()
        plan, _ = rehearse(daemon, drops, tmp_path / "calls")
    check_all_done(root, drops)
    kinds = {kind for _, kind, _ in plan}
    assert {"renameat", "write", "syncfs", "mkdirat"} <= kinds, f"the rehearsal saw only {kinds}"
    hits: Counter[str] = Counter()
    plan = sample(plan)
    for thread, kind, number in plan:
        with Daemon(nursery, root) as daemon:
            daemon.settle()
            check_all_done(root, drops, killed=True)
            family = daemon.family
            with traced([threads_of(daemon.pid)[thread]], f"{kind}:signal=KILL:when={number}"):
                drops.drop_mixture()
                with contextlib.suppress(Violation):
                    until(lambda: not daemon.alive or is_settled(root), 20.0)
            if not daemon.alive:
                daemon.wait_dead(family)
                hits[kind] += 1
                check_nothing_lost(root, drops)
    with Daemon(nursery, root) as daemon:
        daemon.settle()
    check_all_done(root, drops, killed=True)
    print(f"\nkill -9 at file-changing calls: {hits.total()} of {len(plan)} took place: {dict(hits)}")
    assert hits.total() >= len(plan) * 0.6


def test_killed_as_it_writes_a_result_it_leaves_no_half_one(nursery: Nursery, place: Path, tmp_path: Path) -> None:
    """Killed at the very write of a result, the daemon leaves none that others could read, and the next one writes it."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    with Daemon(nursery, root) as daemon:
        threads = threads_of(daemon.pid)
        with traced(threads, trace="write", log=tmp_path / "calls"):
            drops.drop_digits(1)
            daemon.settle()
        calls = re.findall(r"^(\d+) +write\(\d+<.*/results/", (tmp_path / "calls").read_text(), re.MULTILINE)
        writer = threads.index(int(calls[0]))
    with Daemon(nursery, root) as daemon:
        family = daemon.family
        with traced([threads_of(daemon.pid)[writer]], "write:signal=KILL:when=1", trace="write", log=tmp_path / "killed"):
            drops.drop_digits(1)
            until(lambda: not daemon.alive)
        daemon.wait_dead(family)
    assert "/results/" in (tmp_path / "killed").read_text().splitlines()[0]
    check_nothing_lost(root, drops)
    with Daemon(nursery, root) as daemon:
        daemon.settle()
    check_all_done(root, drops, killed=True)


def test_a_decoder_killed_at_any_call_is_replaced(nursery: Nursery, place: Path, tmp_path: Path) -> None:
    """Whichever system call a decoder process dies at, it is replaced, and its files come to their own end."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    hits = 0
    with Reader(root), Daemon(nursery, root) as daemon:
        drops.drop_mixture()
        drops.drop_digits(600 if FULL else 100)
        daemon.settle()
        _, plan = rehearse(daemon, drops, tmp_path / "calls")
        plan = spread(plan) + [("read", number) for number in range(1, 6)] + [("futex", number) for number in range(1, 4)]
        chances(SEED).shuffle(plan)
        plan = plan if FULL else plan[:4]
        for kind, number in plan:
            until(lambda: len(daemon.workers) == 2, what="both decoders are there again")
            before = daemon.workers
            with traced(before, f"{kind}:signal=KILL:when={number}", trace=kind):
                drops.drop_mixture()
                drops.drop_digits(40)
                daemon.settle(90)
            hits += daemon.workers != before
        check_all_done(root, drops, killed=True)
        assert daemon.metric("digitd_rejections_total", reason="decoder_crashed") == 0
    print(f"\ndecoders killed at system calls: {hits} of {len(plan)} took place")
    assert hits > 0


def test_decoders_killed_at_random_moments_are_replaced(nursery: Nursery, place: Path) -> None:
    """However often and whenever decoders and the process that forks them are killed, every file comes to its own end."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    chance = chances(SEED)
    with Reader(root), Daemon(nursery, root) as daemon:
        drops.drop_digits(50)
        daemon.settle()
        for _ in range(50 if FULL else 2):
            drops.drop_digits(300 if FULL else 150)
            pause_at_most(chance, 0.1)
            victims = [pid for pid in (*daemon.workers, *map(parent_of, daemon.workers)) if pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims or [0]) or daemon.pid, signal.SIGKILL if victims else 0)
        daemon.settle(180)
        check_all_done(root, drops, killed=True)
        assert daemon.metric("digitd_images_total") == drops.count


def test_killed_at_random_moments_it_loses_nothing(nursery: Nursery, place: Path) -> None:
    """Killed again and again in the middle of thousands of files, the daemon loses none and answers each once."""
    root = lay_out(place / "root", nursery.model)
    drops = Drops(root / "inbox")
    chance = chances(SEED)
    middle = 0
    with Reader(root) as reader:
        for round_ in range(RANDOM_KILLS):
            drops.drop_digits(max(0, (5000 if FULL else 400) - len(names_in(root / "inbox")) if round_ % 10 == 0 else 0))
            drops.drop_mixture()
            with Daemon(nursery, root) as daemon:
                pause_at_most(chance, 0.4)
                daemon.kill()
            middle += not is_settled(root)
            if round_ % 10 == 9 or not FULL:
                check_nothing_lost(root, drops)
        with Daemon(nursery, root) as daemon:
            daemon.settle(300)
    check_all_done(root, drops, killed=True)
    print(
        f"\nrandom kills: {RANDOM_KILLS}, {middle} of them in mid-work, {drops.count} files, {reader.read} read as they came"
    )
    assert middle > 0


def pause_at_most(chance: Random, seconds: float) -> None:
    """Let a random time pass: the moment of the fault, not a wait for anything."""
    time.sleep(chance.uniform(0, seconds))
