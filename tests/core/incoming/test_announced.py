"""Which changes count as announced. Spans of time are compared with a plain set of seconds."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import EPOCH
from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.announced import (
    CLOCK_TOLERANCE,
    MOST_SPANS,
    OLDEST,
    SPAN,
    AnnouncedSpans,
    span_of,
)
from airflow_insightly_hooks.runs.windows import LONGEST_WAIT_FOR_EVENT

NOW = datetime(2026, 1, 31, 8, 0, 0, 250_000, tzinfo=timezone.utc)
START = 1_769_846_400


def moment(second: float) -> datetime:
    return EPOCH + timedelta(seconds=START + second)


def span(start: int, end: int) -> ChangeWindow:
    return ChangeWindow(moment(start), moment(end))


spans = st.tuples(st.integers(0, 120), st.integers(1, 15)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans, min_size=1, max_size=30), st.booleans())
def test_model(added: list[tuple[int, int]], is_stored: bool) -> None:
    """A moment was announced if a span contains it, even after the spans were stored and read."""
    announced, seconds = AnnouncedSpans.from_now_on(span(*added[0])), set[int]()
    for start, end in added:
        announced.add(span(start, end))
        seconds.update(range(start, end))
        if is_stored:
            read = AnnouncedSpans.of(json.loads(json.dumps(announced.as_value())))
            assert read is not None
            announced = read
    for second in range(-2, 150):
        for fraction in (0, 0.999):
            assert (moment(second + fraction) in announced) == (second in seconds)
    assert announced.until == moment(max(seconds) + 1)
    assert announced.since == moment(added[0][0])


@given(st.lists(spans, min_size=1, max_size=30))
def test_few_spans(added: list[tuple[int, int]]) -> None:
    """Spans that meet are merged, so the value has only as many spans as there are gaps."""
    announced, seconds = AnnouncedSpans.from_now_on(span(*added[0])), set[int]()
    for start, end in added:
        announced.add(span(start, end))
        seconds.update(range(start, end))
    runs = sum(second - 1 not in seconds for second in seconds)
    stored = announced.as_value()["spans"]
    assert len(stored) == runs
    assert stored == sorted(stored)


def test_bounded() -> None:
    """The oldest spans are dropped, together with what they say of their time.

    The value fits a state store.
    """
    announced = AnnouncedSpans.from_now_on(span(0, 2))
    for number in range(MOST_SPANS + 10):
        announced.add(span(4_000 * number, 4_000 * number + 3_000))
    assert len(announced.as_value()["spans"]) == MOST_SPANS
    assert len(json.dumps(announced.as_value())) < 65_535
    assert announced.since == moment(4_000 * 9 + 3_000)
    assert moment(4_000 * 9) not in announced
    assert moment(4_000 * 10) in announced


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], "", 5, {}, {"since": 1}, {"spans": []}, {"since": 1, "spans": 5}),
        *({"since": 1, "spans": [[1]]}, {"since": 1, "spans": [["x", 2]]}, {"since": None, "spans": []}),
        *({"since": float("inf"), "spans": []}, {"since": float("nan"), "spans": []}),
        *({"since": 10**20, "spans": []}, {"since": -(10**12), "spans": []}),
        *({"since": 1, "spans": [[10**20, 2]]}, {"since": 1, "spans": [[1, 10**12]]}),
        {"version": 2, "since": 1, "spans": [[1, 2]]},  # of a newer release
    ],
)  # fmt: skip
def test_foreign_value(value: object) -> None:
    """A value that something else has written counts as empty."""
    assert AnnouncedSpans.of(value) is None


def test_nothing() -> None:
    announced = AnnouncedSpans.from_now_on(span(0, 2))
    assert announced.until is None
    assert moment(0) not in announced


@given(st.floats(-OLDEST.total_seconds(), CLOCK_TOLERANCE.total_seconds()))
def test_span_of_a_change(age: float) -> None:
    """The span begins with the second of the change, and includes the next one."""
    changed_at = NOW + timedelta(seconds=age)
    found = span_of(changed_at, NOW)
    assert found.start <= changed_at < found.start + timedelta(seconds=1)
    assert found.end - found.start == SPAN
    assert found.start.microsecond == 0


@pytest.mark.parametrize("minutes", [-9, -1, 1, 9])
def test_span_by_a_clock_that_is_wrong(minutes: int) -> None:
    """If a clock is minutes off, the span still contains the change, and a run waits for its end."""
    found = span_of(NOW, NOW + timedelta(minutes=minutes))
    assert NOW in found
    assert found.end <= NOW + LONGEST_WAIT_FOR_EVENT


@given(
    st.none()
    | st.datetimes(timezones=st.just(timezone.utc)).filter(
        lambda at: at < NOW - OLDEST or at > NOW + CLOCK_TOLERANCE
    )
)
def test_no_time_of_a_change(changed_at: datetime | None) -> None:
    """A time that is missing, or can't belong to a recent change, is replaced by the present."""
    assert span_of(changed_at, NOW) == span_of(NOW, NOW)
