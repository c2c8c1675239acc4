"""waiting.py: what cannot be taken is left alone for a while, a shut folder as one."""

from daemon.intake.waiting import MOST_DUE, PAUSE_EACH, Waiting


def test_a_shut_folder_stands_for_all_that_it_holds() -> None:
    """However many that are: it is due once, and nothing of it before."""
    waiting = Waiting()
    waiting.add("shut/", 100.0, 5.0)
    assert [True, True, False, False] == [waiting.holds(name) for name in ("shut/a", "shut/b", "shut/sub/a", "a")]
    assert (5.0, set()) == (waiting.due_in(100.0), waiting.due(104.9))
    assert {"shut/"} == waiting.due(105.0)
    assert not waiting.holds("shut/a")
    assert float("inf") == waiting.due_in(105.0)


def test_what_is_being_written_is_tried_as_soon_as_an_event_tells_of_it() -> None:
    """Other names wait for their moment."""
    waiting = Waiting()
    waiting.add("a", 100.0, 1.0, being_written=True)
    waiting.add("b", 100.0, 1.0)
    assert [False, True] == [waiting.holds(name) for name in ("a", "b")]
    waiting.forget({"a"})
    waiting.add("a", 100.0, 1.0)
    assert waiting.holds("a")


def test_many_names_are_tried_less_often_and_not_at_once() -> None:
    """All their tries together take a tenth of the time."""
    waiting = Waiting()
    for number in range(2 * MOST_DUE):
        waiting.add(str(number), 100.0, 1.0)
    assert MOST_DUE == len(waiting.due(1e9))
    assert MOST_DUE == len(waiting.names)
    waiting.add("late", 100.0, 1.0)
    assert "late" not in waiting.due(100.0 + PAUSE_EACH * MOST_DUE - 0.1)
