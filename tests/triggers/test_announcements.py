"""What a watch does with the changes that webhooks have announced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans
from airflow_insightly_hooks.hooks.assets import ANNOUNCED
from airflow_insightly_hooks.triggers import announcements as module
from airflow_insightly_hooks.triggers.announcements import Announcement, Announcements
from tests.conftest import Logged
from tests.triggers.conftest import AssetState

EIGHT = datetime(2031, 3, 10, 8, tzinfo=timezone.utc)
SETTLE = timedelta(seconds=5)


def at(seconds: float) -> datetime:
    return EIGHT + timedelta(seconds=seconds)


class Clock:
    """The monotonic clock. Insightly's clock shows EIGHT when it shows 0."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return the metric's count."""
    calls: list[Any] = []
    monkeypatch.setattr(module, "count_unannounced", lambda *arguments: calls.append(arguments))
    return calls  # type: ignore[return-value]


@pytest.fixture
def announcements(state: AssetState, clock: Clock, counted: list[Any]) -> Announcements:
    made = Announcements(state, "insightly_default", "Contacts")  # type: ignore[arg-type]
    made.set_clock(EIGHT)
    return made


def announce(state: AssetState, *starts: float) -> None:
    """Write into the state what the endpoint would write."""
    for start in starts:
        span = ChangeWindow(at(start), at(start + 2))
        known = AnnouncedSpans.of(state.values.get(ANNOUNCED)) or AnnouncedSpans.from_now_on(span)
        known.add(span)
        state.values[ANNOUNCED] = known.as_value()


def look(announcements: Announcements, place: float = 0) -> bool:
    """Return whether there are new changes."""
    before = announcements.latest
    asyncio.run(announcements.look(at(place), SETTLE))
    return announcements.latest != before


def test_nothing_is_announced(announcements: Announcements, logged: Logged) -> None:
    """No webhook has come yet."""
    assert not look(announcements)
    assert announcements.latest is None
    assert "WARNING" not in logged.text


def test_more_and_more_is_announced(announcements: Announcements, state: AssetState) -> None:
    """Each event begins where the one before ended, or at the place up to which polls have looked."""
    announce(state, 10)
    assert look(announcements)
    assert announcements.latest == Announcement(at(0), at(12))
    assert not look(announcements)
    announce(state, 30, 20)
    assert look(announcements)
    assert announcements.latest == Announcement(at(12), at(32))
    announce(state, 1000)
    assert look(announcements, place=900)
    assert announcements.latest == Announcement(at(900), at(1002))


def test_what_was_announced_before_a_watch_began(announcements: Announcements, state: AssetState) -> None:
    """DAGs may still be behind. A DAG that has read nothing yet begins where the watch does."""
    announce(state, 10)
    assert look(announcements, place=60)
    assert announcements.latest == Announcement(at(60), at(12))
    announce(state, 59)
    assert look(announcements, place=60)
    assert announcements.latest == Announcement(at(60), at(61))


def test_a_webhook_that_comes_late(announcements: Announcements, state: AssetState, clock: Clock) -> None:
    """A run may have skipped its change, so another run must read up to now."""
    announce(state, 100)
    assert look(announcements)
    clock.now = 130.5
    announce(state, 50)
    assert look(announcements)
    assert announcements.latest == Announcement(at(0), at(126))
    clock.now = 990
    announce(state, 60)
    assert look(announcements, place=900)
    assert announcements.latest == Announcement(at(900), at(986))


@pytest.mark.parametrize(
    "value",
    ["x", {"since": 1}, {"since": "x", "spans": []}, {"since": 1, "spans": [[10**30, 2]]}, [1], 5],
    ids=str,
)
def test_a_value_that_cannot_be_read(
    announcements: Announcements, state: AssetState, logged: Logged, value: Any
) -> None:
    """It counts as empty, and is reported once, without the value."""
    state.values[ANNOUNCED] = value
    for _ in range(3):
        assert not look(announcements)
    assert logged.text.count("can't be read") == 1
    assert announcements.unannounced([at(10)]) == [at(10)]
    state.values.clear()
    announce(state, 10)
    assert look(announcements)
    assert announcements.unannounced([at(10)]) == []


def test_a_state_that_fails(
    announcements: Announcements,
    state: AssetState,
    clock: Clock,
    logged: Logged,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All changes then count as new, and no missed webhook is reported."""
    announce(state, 10)
    look(announcements)

    async def no_answer(*_of: Any) -> Any:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(state, "aget", no_answer)
        assert not look(announcements)
        assert announcements.unannounced([at(10), at(20)]) == [at(10), at(20)]
        clock.now = 900
        announcements.warn_of_missed()
    assert "can't be read: RuntimeError" in logged.text
    assert "secret" not in logged.text
    assert not look(announcements)
    announcements.warn_of_missed()
    assert "polling only" not in logged.text


def test_missed_webhooks_are_counted(
    announcements: Announcements, state: AssetState, clock: Clock, counted: list[Any], logged: Logged
) -> None:
    """After a minute, once: how many changes were missed, and of which times.

    Announced changes don't count.
    """
    announce(state, 1)
    look(announcements)
    clock.now = 100
    assert announcements.unannounced([at(1), at(20), at(70), at(90)]) == [at(20), at(70), at(90)]
    announcements.warn_of_missed()
    assert counted == [(1, "insightly_default", "Contacts")]
    clock.now = 140
    announce(state, 90)
    look(announcements)
    announcements.warn_of_missed()
    clock.now = 900
    announcements.warn_of_missed()
    assert counted == [(1, "insightly_default", "Contacts")] * 2
    (first, second) = (line for line in logged.text.splitlines() if "polling only" in line)
    assert "1 change of Contacts (connection 'insightly_default')" in first
    assert "between 2031-03-10T08:00:20Z and 2031-03-10T08:00:20Z was seen" in first
    assert "Insightly's webhooks should have announced them" in first
    assert "2031-03-10T08:01:10Z" in second


def test_what_a_poll_has_found_is_to_be_read(announcements: Announcements, state: AssetState) -> None:
    """A change right after an announced span may not have been announced."""
    announce(state, 10)
    look(announcements)
    assert announcements.unannounced([at(11)]) == []
    assert announcements.latest == Announcement(at(0), at(12))
    assert announcements.unannounced([at(11), at(12), at(13)]) == [at(13)]
    assert announcements.latest == Announcement(at(11), at(13))


def test_the_first_webhook_is_waited_for(
    announcements: Announcements, clock: Clock, counted: list[Any], logged: Logged
) -> None:
    """Without any webhook, the text says what to set up. Changes from before the watch don't count."""
    look(announcements)
    announcements.unannounced([at(-30), at(20), at(30)])
    clock.now = 900
    announcements.warn_of_missed()
    assert counted == [(2, "insightly_default", "Contacts")]
    assert "No webhook has announced a change yet" in logged.text
    assert "/insightly/hooks/{connection}" in logged.text


def test_changes_from_before_the_first_webhook_do_not_count(
    announcements: Announcements, state: AssetState, clock: Clock, counted: list[Any]
) -> None:
    """The webhook may just have been set up."""
    look(announcements)
    announcements.unannounced([at(20), at(30)])
    announce(state, 25)
    clock.now = 900
    look(announcements)
    announcements.warn_of_missed()
    assert counted == [(1, "insightly_default", "Contacts")]


def test_the_metric_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tags say which records it is about."""
    from airflow.observability import stats

    from airflow_insightly_hooks.triggers import metrics

    calls: list[Any] = []
    monkeypatch.setattr(stats, "incr", lambda *arguments, **tags: calls.append((*arguments, tags)))
    metrics.count_unannounced(3, "insightly_default", "Contacts")
    tags = {"insightly_conn_id": "insightly_default", "record_type": "Contacts"}
    assert calls == [("insightly_webhook.unannounced", 3, {"tags": tags})]
