"""clock.py: a moment that is written and read again is the same moment."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from daemon.clock import timestamps, to_microsecond


def test_a_moment_is_read_as_it_was_rounded() -> None:
    """Whatever is read from a timestamp equals what `to_microsecond` gave, of any of 100,000 moments."""
    moments = np.random.default_rng(1).uniform(1.7e9, 1.9e9, 100_000).tolist()
    read = [datetime.fromisoformat(text).timestamp() for text in timestamps(moments)]
    assert [to_microsecond(moment) for moment in moments] == read
