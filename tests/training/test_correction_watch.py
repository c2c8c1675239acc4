"""correction_watch.py: new corrections are noticed once, and compared with the answers that were given."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pytest

from daemon.config import Settings, load_settings
from daemon.drops import with_ending
from daemon.index.schema import INSERT, INSERT_LABEL, Record, open_to_read, open_to_write, put_state
from daemon.index.writer import Index
from daemon.telemetry.metrics import Metrics
from daemon.training import correction_watch, corrections
from daemon.training.correction_watch import CorrectionWatch
from daemon.training.corrections import list_usable
from daemon.training.dataset import NO_DIGIT
from daemon.training.given_answers import Answer, find_answers
from daemon.training.labels import Labels, read_learnt
from daemon.training.seen import read_labels
from tests.conftest import Digits, as_ordinary_user, make_root
from tests.index.answers import record
from tests.training.test_corrections import put

NOW = 1_700_000_000.0  # any time


def answer(results: Path, name: str, content: bytes, digit: int, review_reason: str | None = None) -> None:
    """Write the result that the daemon would have written."""
    path = results / with_ending(name, "", ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "digit": digit, "model": {"version": "v0001"}}
    held["review_reason"] = review_reason
    path.write_text(json.dumps(held))


def watch_of(settings: Settings, index: Index | None = None) -> CorrectionWatch:
    """One whose metrics nobody looks at."""
    metrics = Metrics()
    return CorrectionWatch(settings, metrics, index or Index(settings.index, metrics))


def passes(watch: CorrectionWatch, count: int) -> list[int]:
    """Make passes that are far enough apart; how many new corrections each noticed."""
    return [watch.run_once(NOW, watch._due + 1) for _ in range(count)]


def test_a_correction_is_compared_with_the_answer_that_its_bytes_were_given(settings: Settings, digits: Digits) -> None:
    """Right, wrong and unknown answers are counted once each, across restarts; the live accuracy is their share."""
    for number, (digit, answered) in enumerate([(7, 7), (2, 3), (1, None)]):
        put(settings.folder("corrections"), digit, f"{number}.png", digits.png(number))
        if answered is not None:
            answer(settings.folder("results"), f"batch/{number}.png", digits.png(number), answered)
    metrics = Metrics()
    watch = CorrectionWatch(settings, metrics, Index(settings.index, metrics))
    assert passes(watch, 3) == [0, 3, 0], "a file that was not seen twice may still be being written"
    counted = {
        agrees: metrics.registry.get_sample_value("digitd_corrections_total", {"agrees": agrees})
        for agrees in ("yes", "no", "unknown")
    }
    assert counted == {"yes": 1, "no": 1, "unknown": 1}
    assert metrics.registry.get_sample_value("digitd_live_accuracy_ratio") == 0.5
    assert metrics.registry.get_sample_value("digitd_live_accuracy_images") == 2
    again = watch_of(settings)
    assert passes(again, 2) == [0, 0]
    assert again.labels == watch.labels
    assert len(watch.labels) == 3


def test_who_says_that_it_is_no_digit_agrees_with_an_answer_that_doubted_it(settings: Settings, digits: Digits) -> None:
    """Held back as no digit or as several is right, all else wrong; also after a restart, and in the index."""
    for number, reason in enumerate(("not_a_digit", "several_digits", "low_confidence", None)):
        put(settings.folder("corrections"), "none", f"{number}.png", digits.png(number))
        answer(settings.folder("results"), f"{number}.png", digits.png(number), 7, reason)
    put(settings.folder("corrections"), "none", "unanswered.png", digits.png(9))
    metrics = Metrics()
    index = Index(settings.index, metrics)
    watch = CorrectionWatch(settings, metrics, index)
    assert passes(watch, 2) == [0, 5]
    counted = [metrics.registry.get_sample_value("digitd_corrections_total", {"agrees": agrees}) for agrees in ("yes", "no")]
    assert counted == [2, 2]
    index.close()
    with closing(open_to_read(settings.index)) as connection:
        assert {None} == {digit for (digit,) in connection.execute("SELECT digit FROM labels")}
    metrics = Metrics()
    again = CorrectionWatch(settings, metrics, Index(settings.index, metrics))
    assert passes(again, 2) == [0, 0]
    assert metrics.registry.get_sample_value("digitd_live_accuracy_ratio") == 0.5
    assert metrics.registry.get_sample_value("digitd_live_accuracy_images") == 4


def test_a_journal_that_somebody_wrote_into_keeps_no_daemon_from_starting(settings: Settings, digits: Digits) -> None:
    """Lines of another form tell nothing."""
    sha256 = hashlib.sha256(digits.png(0)).hexdigest()
    lines = [json.dumps({"sha256": sha256, "digit": digit, "predicted": 7}) for digit in (7, 300, -1, "8", 2.5)]
    (settings.folder("logs") / "corrections.jsonl").write_text("\n".join(['{"at": 1}\n[1]\nnonsense', *lines]))
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    (settings.folder("logs") / "learnt.txt").write_text(f"7\n\nnonsense\n7 abc\n7 {'x' * 64}\n7 {'0' * 64}\n")
    assert passes(watch_of(settings), 2) == [0, 0]
    assert read_learnt(settings) == {(7, "0" * 64)}


def test_what_the_disk_did_not_take_is_noticed_once_it_does(settings: Settings, digits: Digits) -> None:
    """The files are not read again meanwhile, and yet they count; and nothing counts twice."""
    watch, journal = watch_of(settings), settings.folder("logs") / "corrections.jsonl"
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    assert passes(watch, 1) == [0]
    journal.mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            passes(watch, 1)
    journal.rmdir()
    assert passes(watch, 2) == [1, 0]
    assert len(journal.read_text().splitlines()) == 1


def test_a_journal_whose_folder_was_taken_away_is_made_anew(settings: Settings, digits: Digits) -> None:
    """Somebody clears logs/ out: labels count on."""
    watch = watch_of(settings)
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    shutil.rmtree(settings.folder("logs"))
    assert passes(watch, 2) == [0, 1]


def test_passes_are_rescan_seconds_apart(settings: Settings, digits: Digits) -> None:
    """Asked more often, it does nothing."""
    watch = watch_of(settings)
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    assert [watch.run_once(NOW, steady) for steady in (0.0, 4.9, 5.0, 9.9)] == [0, 0, 1, 0]


def test_an_answer_to_other_bytes_of_the_same_name_is_not_the_answer(tmp_path: Path, digits: Digits) -> None:
    """The prediction is found by content: the same name with other bytes is somebody else's."""
    answer(tmp_path, "a.png", digits.png(0), 7)
    labelled = {
        f"2/{name}": (2, hashlib.sha256(digits.png(number)).hexdigest())
        for name, number in (("a.png", 1), ("a~12345678.png", 0), ("below/a.png", 0))
    }
    found = find_answers(tmp_path / "no index", False, tmp_path, labelled, Event())
    assert found == {"2/below/a.png": Answer(7, "v0001")}


@pytest.mark.parametrize("place", ["", "deep/"])
def test_no_link_in_the_results_is_followed(tmp_path: Path, digits: Digits, place: str) -> None:
    """Wherever it may lead; nor is a pipe waited for, by which whoever may write there kept all labels from counting."""
    results = tmp_path / "results"
    answer(tmp_path, "elsewhere.png", digits.png(0), 3)
    (results / place).mkdir(parents=True)
    (results / f"{place}a.png.json").symlink_to(tmp_path / "elsewhere.png.json")
    labelled = {"7/a.png": (7, hashlib.sha256(digits.png(0)).hexdigest())}
    assert {} == find_answers(tmp_path / "no index", False, results, labelled, Event())


def test_the_results_are_walked_once_for_all_that_nobody_answered(settings: Settings, digits: Digits) -> None:
    """However many corrections have no answer, the kernel is asked for the names in results/ once a pass."""
    results = settings.folder("results")
    answer(results, "batch/elsewhere.png", digits.png(0), 7)
    for number in range(40):
        put(settings.folder("corrections"), 7, f"{number}.png", digits.png(number))
    watch = watch_of(settings)
    passes(watch, 1)
    with scans_of(results) as scans:
        assert passes(watch, 1) == [40]
    assert sorted(scans) == [str(results), str(results / "batch")]


def test_where_the_index_is_whole_it_alone_is_asked(settings: Settings, digits: Digits) -> None:
    """The newest answer counts, also one that is in an archive by now; nobody walks through results/."""
    with closing(open_to_write(settings.index, 1.0)) as index:
        for number, (digit, version) in enumerate([(3, "v0001"), (7, "v0002")]):
            sha256 = hashlib.sha256(digits.png(0)).digest()
            index.execute(INSERT, Record(number, None, "a.png", sha256, "accepted", None, digit, 0.9, version, 1))
        put_state(index, since=None, clean=1)
    put(settings.folder("corrections"), 7, "mine.png", digits.png(0))
    put(settings.folder("corrections"), 7, "unanswered.png", digits.png(1))
    index = Index(settings.index, Metrics())
    index.run_once(100.0)
    index.run_once(102.0)
    watch = watch_of(settings, index)
    passes(watch, 1)
    with scans_of(settings.folder("results")) as scans:
        assert passes(watch, 1) == [2]
    assert scans == []
    journal = [json.loads(line) for line in (settings.folder("logs") / "corrections.jsonl").read_text().splitlines()]
    assert [(line["predicted"], line["model"]) for line in journal] == [(7, "v0002"), (None, None)]
    index.close()
    with closing(open_to_read(settings.index)) as connection:
        assert ["7/mine.png", "7/unanswered.png"] == sorted(
            file for (file,) in connection.execute("SELECT file FROM labels")
        )


def test_an_index_that_may_lack_the_answer_is_not_believed(settings: Settings, digits: Digits) -> None:
    """While it is to be filled, or cannot be written, results/ is looked through for what it does not know."""
    with closing(open_to_write(settings.index, 1.0)) as made:
        put_state(made, since=None, clean=1)
    answer(settings.folder("results"), "batch/a.png", digits.png(0), 3)
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    index = Index(settings.index, Metrics())
    index.run_once(100.0)
    index.add([record("waits.png")])
    passes(watch_of(settings, index), 2)
    assert 3 == json.loads((settings.folder("logs") / "corrections.jsonl").read_text())["predicted"]
    index.close()


def test_what_is_too_much_for_one_pass_comes_at_once(
    settings: Settings, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next pass does not wait, so that thousands are noticed within seconds."""
    monkeypatch.setattr(correction_watch, "NOTICED_PER_PASS", 2)
    for number in range(5):
        put(settings.folder("corrections"), 7, f"{number}.png", digits.png(number))
    watch = watch_of(settings)
    assert [watch.run_once(NOW, steady) for steady in (0.0, 5.0, 5.1, 5.2, 5.3)] == [0, 2, 2, 1, 0]


def test_of_more_files_than_memory_holds_the_rest_is_left_out(
    settings: Settings, digits: Digits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may label can make millions, as hard links; other labels count as ever, and it is said once."""
    monkeypatch.setattr(corrections, "MOST_LISTED", 4)
    folder = settings.folder("corrections")
    for number in range(6):
        put(folder, 7, f"{number}.png", digits.png(number))
        put(folder, 7, f"deep/{number}.png", digits.png(6 + number))
    put(folder, 8, "a.png", digits.png(20))
    watch = watch_of(settings)
    passes(watch, 3)
    assert {7, 8} == {label for label, _ in watch.labels}
    assert {4, 5} >= {len(watch.labels), len(read_labels(settings, NOW)), len(list_usable(folder, lambda _: None))}
    assert 1 == caplog.text.count("7: expected at most 4 files and folders. Received: more; the rest is left out")


@contextmanager
def scans_of(folder: Path) -> Iterator[list[str]]:
    """The folders below this one that are looked through meanwhile."""
    scans: list[str] = []
    is_on = True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if is_on and event == "os.scandir":
            of = arguments[0]
            place = Path(f"/proc/self/fd/{of}").readlink() if isinstance(of, int) else Path(str(of))
            if place.is_relative_to(folder):
                scans.append(str(place))

    sys.addaudithook(hear)
    try:
        yield scans
    finally:
        is_on = False


def test_a_stop_ends_the_search(tmp_path: Path, digits: Digits) -> None:
    """Told to stop, it does not look through all of results/."""
    answer(tmp_path, "batch/a.png", digits.png(0), 7)
    stop = Event()
    stop.set()
    labelled = {"7/a.png": (7, hashlib.sha256(digits.png(0)).hexdigest())}
    assert find_answers(tmp_path / "no index", False, tmp_path, labelled, stop) == {}


def test_a_label_that_moved_counts_once(settings: Settings, digits: Digits) -> None:
    """The live accuracy goes by the latest label of an image, and a label that moved is a new one to learn."""
    corrections = settings.folder("corrections")
    answer(settings.folder("results"), "a.png", digits.png(0), 7)
    first = put(corrections, 7, "a.png", digits.png(0))
    metrics = Metrics()
    watch = CorrectionWatch(settings, metrics, Index(settings.index, metrics))
    assert passes(watch, 2) == [0, 1]
    before = watch.labels
    assert metrics.registry.get_sample_value("digitd_live_accuracy_ratio") == 1.0
    first.rename(put(corrections, 2, "a.png", b""))
    assert passes(watch, 2) == [0, 1]
    assert metrics.registry.get_sample_value("digitd_live_accuracy_ratio") == 0.0
    assert metrics.registry.get_sample_value("digitd_live_accuracy_images") == 1
    assert len(watch.labels) == len(watch.labels - before) == 1


def test_labels_that_conflict_are_counted_once_across_restarts(settings: Settings, digits: Digits) -> None:
    """Neither is new again when the daemon is, until the later one has gone."""
    put(settings.folder("corrections"), 3, "a.png", digits.png(0))
    assert passes(watch_of(settings), 2) == [0, 1]
    later = put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    assert [passes(watch_of(settings), 3) for _ in range(3)] == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    later.unlink()
    assert passes(watch_of(settings), 3) == [0, 1, 0]


def test_what_cannot_be_read_is_told_once_and_the_rest_is_noticed(
    settings: Settings, open_path: Path, digits: Digits, caplog: pytest.LogCaptureFixture
) -> None:
    """A file and folders that this user has no right to hold nothing up, also when each file is looked at."""
    paths = {name: str(open_path / name) for name in ("corrections", "results", "logs")}
    settings = settings.model_copy(update={"paths": settings.paths.model_copy(update=paths)}).read_from(settings.file)
    for path in map(Path, paths.values()):
        path.mkdir()
        path.chmod(0o777)
    corrections = settings.folder("corrections")
    put(corrections, 3, "secret.png", digits.png(1)).chmod(0)
    put(corrections, 4, "a.png", digits.png(2)).parent.chmod(0)
    put(corrections, 5, "listed.png", digits.png(3)).parent.chmod(0o444)
    put(corrections, 7, "good.png", digits.png(0))
    watch = watch_of(settings)
    with as_ordinary_user():
        assert passes(watch, 4) == [0, 1, 0, 0]
        assert 1 == len(read_labels(settings, time.time()))
    told = sorted(record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert told == [
        "correction 3/secret.png: Permission denied",
        "correction 4: expected a folder that can be looked into. Received: Permission denied",
        "correction 5/listed.png: Permission denied",
    ]


def test_where_nothing_came_or_went_nobody_looks_again(settings: Settings, digits: Digits) -> None:
    """Until a hundred times as long as the last look took is over; a name that comes is noticed at the next pass."""
    corrections = settings.folder("corrections")
    for number in range(3):
        put(corrections, 7, f"sub/{number}.png", digits.png(number))
    later = NOW + 10**9  # all folders changed long ago
    watch = watch_of(settings)
    watch.run_once(later, 0.0)
    assert 3 == watch.run_once(later, watch._due)
    places = watch._places
    watch._thorough_due = float("inf")
    assert 0 == watch.run_once(later, watch._due)
    assert [*map(id, places.values())] == [*map(id, watch._places.values())]
    put(corrections, 7, "sub/new.png", digits.png(4))
    assert [0, 1] == [watch.run_once(later, watch._due) for _ in range(2)]
    assert 4 == len(watch.labels)


def test_what_is_done_rarely_holds_no_label_up(settings: Settings, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first look, and after one at each file, the next at names comes soon, however long those took."""
    monkeypatch.setattr(correction_watch, "LOOKING_SHARE", 1e-9)
    put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    watch = watch_of(settings)
    pauses = []
    for thorough_due in (0.0, 0.0, float("inf")):
        watch._thorough_due, steady = thorough_due, max(watch._due, 1.0)
        watch.run_once(NOW, steady)
        pauses.append(watch._due - steady)
    soon = settings.inbox.rescan_seconds
    assert [soon, soon] == pytest.approx(pauses[:2])
    assert pauses[2] > 100 * soon


def test_what_was_noticed_is_not_read_again_after_a_restart(settings: Settings, digits: Digits) -> None:
    """The index knows its label, unless it changed since."""
    corrections = settings.folder("corrections")
    for number in range(3):
        put(corrections, 7, f"{number}.png", digits.png(number))
    metrics = Metrics()
    index = Index(settings.index, metrics)
    watch = CorrectionWatch(settings, metrics, index)
    later = time.time() + 60
    assert [0, 3] == [watch.run_once(later, watch._due) for _ in range(2)]
    index.close()
    again = watch_of(settings)
    for _ in range(2):  # the names, and each file
        again.run_once(later, again._due)
        assert again.labels == watch.labels
        assert again.is_complete
    with closing(open_to_write(settings.index, 1)) as connection:
        connection.execute("UPDATE labels SET noticed_at = 0")
    changed = watch_of(settings)
    complete = []
    for _ in range(3):
        assert 0 == changed.run_once(later, changed._due)
        complete.append(changed.is_complete)
    assert [True, False, True] == complete
    assert changed.labels == watch.labels


def test_what_a_clock_in_the_future_noticed_is_read_again_after_a_restart(settings: Settings, digits: Digits) -> None:
    """When that was tells nothing: the file may have been written over while no daemon ran."""
    path = put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    metrics = Metrics()
    index = Index(settings.index, metrics)
    watch = CorrectionWatch(settings, metrics, index)
    assert [0, 1] == [watch.run_once(time.time() + 10**9, watch._due) for _ in range(2)]
    index.close()
    path.write_bytes(digits.png(1))
    new = (7, hashlib.sha256(digits.png(1)).hexdigest())
    assert {new} == read_labels(settings, time.time())
    again = watch_of(settings)
    assert [0, 1] == [again.run_once(time.time(), again._due) for _ in range(2)]
    assert {new} == again.labels


def test_a_training_by_hand_reads_only_what_the_index_does_not_know(open_path: Path, digits: Digits) -> None:
    """What was noticed and did not change since is not opened, and nothing is kept by what cannot be."""
    settings = load_settings(make_root(open_path / "root") / "config.toml")
    corrections = settings.folder("corrections")
    put(corrections, 7, "known.png", digits.png(0)).chmod(0)
    put(corrections, 7, "changed.png", digits.png(1))
    put(corrections, "none", "batch/new.png", digits.png(2))
    put(corrections, 3, "secret.png", digits.png(3)).chmod(0)
    known, later = hashlib.sha256(digits.png(0)).digest(), time.time()
    with closing(open_to_write(settings.index, 1)) as connection:
        rows = [(known, 7, "7/known.png", later), (b"2" * 32, 7, "7/changed.png", 1.0), (b"3" * 32, 3, "7/known.png", later)]
        connection.executemany(INSERT_LABEL, rows)
    with as_ordinary_user():
        labels = read_labels(settings, time.time())
    new, changed = (hashlib.sha256(digits.png(number)).hexdigest() for number in (2, 1))
    assert {(7, known.hex()), (7, changed), (NO_DIGIT, new)} == labels


def test_a_file_that_is_replaced_or_written_over_is_read_again(settings: Settings, digits: Digits) -> None:
    """Replaced by another one as soon as its folder is looked into; written over as soon as each file is looked at."""
    path = put(settings.folder("corrections"), 7, "a.png", digits.png(0))
    watch = watch_of(settings)
    watch._due, later = 1.0, NOW + 10**9
    assert [0, 1] == [watch.run_once(later, watch._due) for _ in range(2)]
    watch._thorough_due = float("inf")
    put(settings.folder("corrections"), 7, "b.png", digits.png(1)).rename(path)
    assert [0, 1] == [watch.run_once(later, watch._due) for _ in range(2)]
    path.write_bytes(digits.png(2) + b"longer")
    assert [0] == [watch.run_once(later, watch._due)]
    watch._thorough_due = 0.0
    assert [0, 1] == [watch.run_once(later, watch._due) for _ in range(2)]
    assert {(7, hashlib.sha256(digits.png(2) + b"longer").hexdigest())} == watch.labels


def test_labels_are_a_set_whatever_their_digests_end_in() -> None:
    """Zeros at the end, which NumPy leaves out, come back."""
    some = {(0, "0" * 64), (7, "ab" * 31 + "00"), (10, "cd" * 32)}
    labels = Labels(some)
    assert some == labels
    assert sorted(some) == sorted(labels)
    assert (0, "0" * 64) in labels
    assert (1, "0" * 64) not in labels
    assert {(7, "ab" * 31 + "00")} == labels - (labels - {(7, "ab" * 31 + "00")})
    assert some | {(3, "00" * 32)} == labels | {(3, "00" * 32)}
    assert 0 == len(Labels())
