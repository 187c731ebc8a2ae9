"""Which changes polls have found without a webhook in time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans
from airflow_insightly_hooks.core.incoming.unannounced_changes import UnannouncedChanges, is_announced

EIGHT = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)


def at(seconds: float) -> datetime:
    return EIGHT + timedelta(seconds=seconds)


def announced(*starts: float) -> AnnouncedSpans:
    spans = AnnouncedSpans.from_now_on(ChangeWindow(EIGHT, EIGHT))
    for start in starts:
        spans.add(ChangeWindow(at(start), at(start + 2)))
    return spans


@pytest.mark.parametrize(
    ("seconds", "expected"), [(8.9, False), (9, True), (10, True), (11.9, True), (12, True), (13, False)]
)
def test_a_change_that_was_told_of(seconds: float, expected: bool) -> None:
    """A webhook's time for the change may differ by a second, in either direction."""
    assert is_announced(at(seconds), announced(10)) is expected
    assert not is_announced(at(seconds), None)


def test_a_webhook_gets_a_minute() -> None:
    """After a minute without a webhook, a change counts as missed, once.

    A webhook within the minute prevents it.
    """
    changes = UnannouncedChanges()
    changes.add([at(10), at(40), at(0)])
    assert changes.take_overdue(None, at(59), LONG_AGO) == []
    assert changes.take_overdue(announced(0), at(80), LONG_AGO) == [at(10)]
    assert changes.take_overdue(announced(0), at(99), LONG_AGO) == []
    assert changes.take_overdue(announced(0), at(100), LONG_AGO) == [at(40)]


def test_changes_from_before_webhooks_came() -> None:
    """No webhook could have announced them."""
    changes = UnannouncedChanges()
    changes.add([at(10), at(20), at(20)])
    assert changes.take_overdue(announced(15), at(900), at(15)) == [at(20), at(20)]
    assert changes.take_overdue(None, at(900), LONG_AGO) == []
