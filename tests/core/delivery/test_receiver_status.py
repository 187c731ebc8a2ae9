"""What runs tell each other about a receiver."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.delivery.receiver_status import ReceiverStatus, is_down
from airflow_insightly_hooks.core.delivery.report import Failure
from tests.strategies import instants

NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@given(st.builds(ReceiverStatus, instants, instants, st.text(), st.booleans(), st.text(max_size=300)))
def test_a_status_comes_back_from_json(status):
    """A task reads exactly what another task has stored."""
    assert ReceiverStatus.of(json.loads(json.dumps(status.as_dict()))) == status


def test_a_status_of_a_newer_release():
    """It may mean something else, so it is not used, on pages neither."""
    status = ReceiverStatus(NOON, NOON + HOUR, "dag/run", True, "503").as_dict()
    assert ReceiverStatus.of({**status, "version": 1}) is not None
    assert ReceiverStatus.of({**status, "version": 2}) is None


def test_a_long_error_is_cut():
    """A status stays small."""
    status = ReceiverStatus(NOON, NOON + HOUR, "dag/run", True, "x" * 301)
    assert ReceiverStatus.of(status.as_dict()) == status._replace(error="x" * 300)


@pytest.mark.parametrize("value", [None, 3, [], {}, {"failing_since": "noon"}, "down"])
def test_what_is_no_status_is_none(value):
    """A value that is not a status is ignored, so a task continues without it."""
    assert ReceiverStatus.of(value) is None


def test_who_waits():
    """A status counts if a task of another run wrote it, and only until that task's next try."""
    status = ReceiverStatus(NOON, NOON + HOUR, "dag/run", True, "503")
    assert status.others_wait("dag/other", NOON + HOUR - timedelta(seconds=1))
    assert not status.others_wait("dag/other", NOON + HOUR)
    assert not status.others_wait("dag/run", NOON)
    assert status.others_wait("dag/other", NOON - 23 * HOUR)
    assert not status.others_wait("dag/other", NOON - 24 * HOUR)  # the clock of its writer is wrong


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ((HOUR, "dag/other", True), (HOUR, "dag/other")),
        ((HOUR, "dag/run", True), (MINUTE, "dag/run")),  # its own status, of an earlier try
        ((HOUR, "dag/other", False), (MINUTE, "dag/run")),  # the receiver was reachable meanwhile
        ((MINUTE / 2, "dag/other", True), (MINUTE, "dag/run")),
        ((MINUTE, "dag/other", True), (MINUTE, "dag/run")),
        ((-MINUTE, "dag/other", True), (MINUTE, "dag/run")),
        ((25 * HOUR, "dag/other", True), (MINUTE, "dag/run")),  # written by a clock that is wrong
    ],
)
def test_the_longest_wait_that_was_asked_for_counts(before, expected):
    """A try that wasn't asked to wait doesn't shorten the wait of others.

    The time since when the receiver is down stays.
    """
    wait, waiting, down = before
    earlier = ReceiverStatus(NOON - HOUR, NOON + wait, waiting, down, "503")
    after = ReceiverStatus(NOON, NOON + MINUTE, "dag/run", True, "502").after(earlier, NOON)
    assert (after.retry_at - NOON, after.waiting) == expected
    assert after.failing_since == (NOON - HOUR if down else NOON)
    assert after.error == "502"
    refused = ReceiverStatus(NOON, NOON + MINUTE, "dag/run", False, "422")
    assert refused.after(earlier, NOON) == refused


@pytest.mark.parametrize(
    ("acknowledged", "statuses", "asked", "expected"),
    [
        (0, [503], False, True),
        (0, [500, 422], False, True),
        (0, [None], False, True),  # no answer
        (0, [429], False, True),
        (0, [408], False, True),
        (0, [422], False, False),  # this message alone
        (0, [401], False, False),
        (0, [422], True, True),
        (1, [503, None], True, False),
        (0, [], False, False),
    ],
)
def test_a_receiver_that_is_down(acknowledged, statuses, asked, expected):
    """It took nothing, and its answers, or their absence, concern the receiver and not a single message."""
    failures = [Failure(status, "x") for status in statuses]
    assert is_down(acknowledged, failures, was_asked_to_wait=asked) is expected
