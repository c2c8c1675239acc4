"""Walks: coroutines that go on, step by step, in the thread that runs them, and meanwhile wait for others to do their part.

Not asyncio: its loop runs until it is done, and a pass of the pipeline is to be one that a test can make by hand.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Step = Callable[[], None]
Then = Callable[[Future[Any]], None]  # goes on with what has ended; any thread may call it, once


@dataclass(frozen=True)
class Elsewhere(Generic[Result]):
    """What another thread or process does, or time: a walk awaits it, and gets its result or error.

    Attributes:
        begin: begins it, and is told what to call with its future once that has ended.

    """

    begin: Callable[[Callable[[Future[Result]], None]], None]

    def __await__(self) -> Generator[Elsewhere[Any], Future[Result], Result]:
        future = yield self
        return future.result()


Walk = Coroutine[Elsewhere[Any], Future[Any], None]


class Walks:
    """All walks of one thread.

    Args:
        steps: what the thread is to do next; any thread may add to it.

    """

    def __init__(self, steps: queue.SimpleQueue[Step]) -> None:
        self._steps = steps
        self._later: deque[tuple[float, Then]] = deque()

    def begin(self, walk: Walk) -> None:
        """Let a walk go on until it awaits something; from then on it comes as steps."""
        self._go_on(walk, None)

    async def pause(self, seconds: float) -> None:
        """Let time pass; always the same."""
        await Elsewhere(lambda then: self._later.append((time.monotonic() + seconds, then)))

    def run_once(self, longest: float) -> None:
        """Take the steps that are there, or wait for one for at most `longest` seconds."""
        if self._later:
            longest = min(longest, max(0.0, self._later[0][0] - time.monotonic()))
        try:
            step = self._steps.get(timeout=longest)
        except queue.Empty:
            pass
        else:
            step()
            for _ in range(self._steps.qsize()):  # what has come by now, before more is begun
                self._steps.get_nowait()()
        while self._later and self._later[0][0] <= time.monotonic():
            self._later.popleft()[1](ended(None))

    def _go_on(self, walk: Walk, outcome: Future[Any] | None) -> None:
        try:
            awaited = walk.send(outcome)  # type: ignore[arg-type]  # None to begin with
        except StopIteration:
            return

        def then(outcome: Future[Any]) -> None:
            self._steps.put(partial(self._go_on, walk, outcome))

        try:
            awaited.begin(then)
        except OSError as error:
            then(ended(error))


def ended(outcome: object) -> Future[Any]:
    """A future that has this result, or this error."""
    future: Future[Any] = Future()
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future
