"""The API server's clock, if some answers are wrong or come from several servers."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from airflow_insightly_hooks.hooks.api.server_clock import ServerClock

START = datetime(2026, 3, 1, 8, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)


def clock(*ahead: float, took: float = 0.0) -> ServerClock:
    """Return a clock that got these times, one answer a second, from 0 on."""
    server = ServerClock()
    for at, seconds in enumerate(ahead):
        date = (START + timedelta(seconds=at + seconds)).replace(microsecond=0)
        server.answered(date, at - took, at)
    return server


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ([0], 0),
        ([0, 50], 0),
        ([50, 0], 0),
        ([50, 0, 0, 0], 0),
        ([0, 3600], 0),
        ([-50, 0], -50),
        ([-3600, 0, 0], 0),
        ([0, 0, -3600, 50], 0),
        ([3600, 0, 3600], 0),
        ([3600, 3600, 3600], 3600),
        ([0.2, 0.9, 0.4], 0),
    ],
)
def test_the_slowest_clock_counts(ahead: list[float], expected: float) -> None:
    """The slowest clock counts, unless it is far behind most of them and behind our own."""
    time = clock(*ahead).time(len(ahead) - 1, START)
    assert time == START + timedelta(seconds=expected + len(ahead) - 1)


def test_a_slow_answer_puts_the_clock_back_no_more_than_others_allow() -> None:
    """A slow answer says little about the time, and a quick one says more."""
    server = ServerClock()
    server.answered(START, 0, 20)
    assert server.time(20, START) == START
    server.answered(START + 20 * SECOND, 20, 20.1)
    assert server.time(20.1, START) == START + 20 * SECOND


def test_it_is_carried_on_for_five_minutes() -> None:
    """It is carried on by the monotonic clock. Before an answer, and after five minutes, no time is known."""
    assert ServerClock().time(0, START) is None
    assert clock(0).time(299.5, START) == START + timedelta(seconds=299.5)
    assert clock(0).time(301, START) is None


@pytest.mark.parametrize(("ahead", "wanted"), [([0], 0), ([1], 0), ([50], 2), ([50, 50], 1), ([50] * 3, 0)])
def test_one_answer_ahead_of_our_own_clock_is_not_believed(ahead: list[float], wanted: int) -> None:
    """Three such answers are believed, so more are asked for, once."""
    server, at = clock(*ahead), len(ahead) - 1
    own = START + at * SECOND
    assert server.answers_wanted(at, own) == wanted
    assert server.answers_wanted(at, own) == 0


class Reading(RuleBasedStateMachine):
    """Runs that read up to the server's time less what has to settle, each in a process of its own.

    Servers answer in turn; of three answers in a row, one has the right time at least. A worker's clock is
    right to a second. A change's time is the right one, and it is visible within ``SETTLE`` of it.
    """

    SETTLE = 5.0

    @initialize(ahead=st.lists(st.sampled_from([-59, -8, 0, 3, 20, 50, 59, 4000]), max_size=2))
    def begin(self, ahead: list[float]) -> None:
        self.now = 0.0
        self.servers = [0.0, *ahead]
        self.answers = 0
        self.cursor = START
        self.unread: dict[datetime, float] = {}
        self.lost: list[datetime] = []

    @rule(seconds=st.floats(0.1, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(after=st.floats(0, 3))
    def change(self, after: float) -> None:
        stamp = (START + timedelta(seconds=self.now)).replace(microsecond=0)
        self.unread[stamp] = max(self.unread.get(stamp, 0.0), self.now + after)

    @rule(own_ahead=st.floats(-1, 1), took=st.floats(0.01, 2), answers=st.integers(1, 4))
    def run(self, own_ahead: float, took: float, answers: int) -> None:
        server = ServerClock()
        for _ in range(answers):
            self._answer(server, took)
        own = START + timedelta(seconds=self.now + own_ahead)
        for _ in range(server.answers_wanted(self.now, own)):
            self._answer(server, took)
        time = server.time(self.now, own)
        assert time is not None
        until = (time - timedelta(seconds=self.SETTLE)).replace(microsecond=0)
        if until <= self.cursor:
            return
        for stamp, visible_at in list(self.unread.items()):
            if self.cursor <= stamp < until and visible_at <= self.now:
                del self.unread[stamp]
        self.cursor = until

    def _answer(self, server: ServerClock, took: float) -> None:
        ahead = self.servers[self.answers % len(self.servers)]
        self.answers += 1
        sent_at, self.now = self.now, self.now + took
        right = START + timedelta(seconds=sent_at + took / 2 + ahead)
        server.answered(right.replace(microsecond=0), sent_at, self.now)

    @invariant()
    def nothing_unread_is_behind_the_cursor(self) -> None:
        if hasattr(self, "cursor"):
            assert not [stamp for stamp in self.unread if stamp < self.cursor]


Reading.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestReading = Reading.TestCase
