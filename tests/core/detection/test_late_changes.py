"""A change that becomes visible late is reported once, with its own time. Changes known earlier are not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.core.dates import api_time, format_api_time
from airflow_insightly_hooks.core.detection.changes import EVENTS, ChangeWindow
from airflow_insightly_hooks.core.detection.late_changes import LateChanges, SameChanges, check_lookback
from airflow_insightly_hooks.core.detection.seen_changes import SeenChanges
from airflow_insightly_hooks.core.records import RECORD_TYPES

CONTACTS = RECORD_TYPES["Contacts"]
START = datetime(2026, 3, 29, 12, tzinfo=timezone.utc)
LOOKBACK = timedelta(seconds=900)
SETTLE = 5


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def window(start: float, end: float) -> ChangeWindow:
    return ChangeWindow(at(start), at(end))


def record(record_id: int, created: float, updated: float | None = None) -> dict:
    return {
        "CONTACT_ID": record_id,
        "DATE_CREATED_UTC": format_api_time(at(created)),
        "DATE_UPDATED_UTC": format_api_time(at(created if updated is None else updated)),
    }


def late(
    of: ChangeWindow,
    before: SeenChanges | None,
    events=EVENTS,
    lookback=LOOKBACK,
    settled_until: datetime | None = None,
) -> LateChanges:
    return LateChanges(of, CONTACTS, events, lookback, before, settled_until or of.end)


def summary(changes) -> list[tuple[int, str, float]]:
    return [
        (c["record_id"], c["event"], (api_time(c["changed_at"]) - START).total_seconds()) for c in changes
    ]


def seen(of: ChangeWindow, *records: dict, events=EVENTS) -> SeenChanges:
    """Return what is remembered after the window's records were read for the first time."""
    reading = late(of, None, events)
    list(reading.changes(records))
    return reading.after


@pytest.mark.parametrize("seconds", [-1, 86_401, float("nan")])
def test_a_lookback_has_bounds(seconds: float):
    """It is nothing at all, or up to a day; the error names the argument."""
    with pytest.raises(ValueError, match=r"^lookback must"):
        check_lookback(seconds)
    assert [check_lookback(fine) for fine in (0, 86_400)] == [0, 86_400]


def test_a_late_record_is_told_once_with_its_own_time():
    """A record that appears after its time was read comes in the next window, and in no other."""
    before = seen(window(0, 60), record(1, 30))
    second = late(window(60, 120), before)
    records = [record(1, 30), record(2, 31), record(3, 90), record(4, 60)]
    assert summary(second.changes(records)) == [(2, "added", 31), (3, "added", 90), (4, "added", 60)]
    assert second.late == 1
    assert not second.has_given_up
    assert summary(late(window(120, 180), second.after).changes(records)) == []


@pytest.mark.parametrize(
    "times",
    [
        {"DATE_CREATED_UTC": "soon", "DATE_UPDATED_UTC": "later"},
        {"DATE_CREATED_UTC": format_api_time(at(-9_000)), "DATE_UPDATED_UTC": "later"},
        {"DATE_CREATED_UTC": "soon", "DATE_UPDATED_UTC": format_api_time(at(30))},
        {"DATE_CREATED_UTC": "soon"},
    ],
)
@pytest.mark.parametrize("events", [EVENTS, ("added",), ("updated",)])
def test_a_record_whose_times_cannot_be_read_is_told_once(times: dict, events: tuple):
    """It is reported once, although each run reads it again for as long as the lookback lasts."""
    before, counts = None, []
    for number in range(10):
        reading = late(window(60 * number, 60 * number + 60), before, events)
        counts.append(len(list(reading.changes([{"CONTACT_ID": 1, **times}]))))
        before = reading.after
    assert counts == [1] + 9 * [0]


def test_a_late_update_is_told_as_one():
    """A late update is reported as an update, of a known record and of an old one."""
    before = seen(window(0, 60), record(1, 30), record(2, -9_000, 20))
    reading = late(window(60, 120), before)
    records = [record(1, 30, 40), record(2, -9_000, 41), record(3, -9_000, 42)]
    assert summary(reading.changes(records)) == [(1, "updated", 40), (2, "updated", 41), (3, "updated", 42)]


def test_a_late_record_that_was_updated_meanwhile_is_one_change():
    """It counts as added, as within a window. An update after the window's end belongs to the next window."""
    before = seen(window(0, 60))
    reading = late(window(60, 120), before)
    records = [record(1, 30, 100), record(2, 31, 130)]
    assert summary(reading.changes(records)) == [(1, "added", 30), (2, "added", 31)]
    assert summary(late(window(120, 180), reading.after).changes(records)) == [(2, "updated", 130)]


def test_only_the_events_that_are_asked_for():
    """Other events are remembered, too. If they are asked for later, none from before is reported."""
    before = seen(window(0, 60), record(1, 30))
    records = [record(1, 30, 40), record(2, 35), record(3, -9_000, 36), record(4, 37, 38)]
    assert summary(late(window(60, 120), before, ("added",)).changes(records)) == [
        (2, "added", 35),
        (4, "added", 37),
    ]
    updated = late(window(60, 120), before, ("updated",))
    assert summary(updated.changes(records)) == [(1, "updated", 40), (3, "updated", 36), (4, "updated", 38)]
    assert summary(late(window(120, 180), updated.after).changes(records)) == []


def test_what_is_there_at_the_beginning_is_only_remembered():
    """A run without a memory reports only its window. Changes that appear after that are late."""
    first = late(window(0, 0), None)
    assert first.search_from == at(-902)
    assert summary(first.changes([record(1, -30), record(2, -9_000, -10)])) == []
    second = late(window(0, 60), first.after)
    records = [record(1, -30), record(2, -9_000, -10), record(3, -20), record(4, -9_000, -5)]
    assert summary(second.changes(records)) == [(3, "added", -20), (4, "updated", -5)]


def test_beyond_the_lookback_nothing_is_told():
    """A change that shows up more than the lookback after its time is lost, as documented."""
    before = seen(window(-3_600, 0), record(1, -900))
    reading = late(window(0, 60), before)
    assert reading.search_from == at(-902)
    assert summary(reading.changes([record(2, -901), record(3, -900)])) == [(3, "added", -900)]
    assert reading.after.since == at(60 - 900)


def test_a_longer_lookback_tells_nothing_from_before_what_is_remembered():
    """After the lookback was lengthened, changes from before the memory begins are not reported."""
    before = late(window(0, 60), None, lookback=timedelta(seconds=30)).after
    longer = late(window(60, 120), before)
    assert longer.search_from == at(28)
    assert summary(longer.changes([record(1, 29), record(2, 30)])) == [(2, "added", 30)]


def test_a_window_long_past_waits_for_nothing():
    """If everything was visible long before it was read, nothing is remembered, and no window grows."""
    reading = late(window(0, 60), None, settled_until=at(7_200))
    assert summary(reading.changes([record(1, 30)])) == [(1, "added", 30)]
    assert len(reading.after) == 0
    assert late(window(60, 120), reading.after, settled_until=at(7_200)).search_from == at(58)


def test_a_cursor_that_was_set_back_repeats_its_window_and_no_more():
    """Changes in the window are reported again. Known changes from before it are not."""
    known = [record(1, 30), record(2, 90), record(3, 20, 91), record(5, 60)]
    reading = late(window(60, 180), seen(window(0, 120), *known))
    assert summary(reading.changes([*known, record(4, 31)])) == [
        (2, "added", 90),
        (3, "updated", 91),
        (5, "added", 60),
        (4, "added", 31),
    ]


def test_a_gap_is_remembered_and_not_told():
    """If a cursor was set forward, the changes that it skipped are not reported.

    Late ones from before are.
    """
    before = seen(window(0, 60), record(1, 30))
    reading = late(window(120, 180), before)
    records = [record(1, 30), record(2, 31), record(3, 90), record(4, 20, 91), record(5, 130)]
    assert summary(reading.changes(records)) == [(2, "added", 31), (4, "added", 20), (5, "added", 130)]
    assert summary(late(window(180, 240), reading.after).changes(records)) == []


def test_an_earlier_state_that_shows_again_is_not_told():
    """A server that shows an earlier state of a record reports nothing new."""
    before = seen(window(0, 60), record(1, 10, 50))
    assert summary(late(window(60, 120), before).changes([record(1, 10, 40)])) == []


def test_a_record_without_a_usable_id_counts_in_its_window_alone():
    """It can't be remembered, so it is reported as without a lookback."""
    before = seen(window(0, 60))
    records = [{**record(1, 30), "CONTACT_ID": -1}, {**record(1, 90), "CONTACT_ID": -2}]
    changes = list(late(window(60, 120), before).changes(records))
    assert [(change["record_id"], change["undeliverable"]) for change in changes] == [
        (0, "1 record has no usable CONTACT_ID")
    ]
    updated = {**record(1, -9_000, 90), "CONTACT_ID": -1}
    assert summary(late(window(60, 120), before, ("added",)).changes([updated])) == []


def test_a_record_that_cannot_be_sent_is_told_of_each_change():
    """Its times can be read: one that shows up late is told, too."""
    first = late(window(60, 120), seen(window(0, 60)))
    (change,) = first.changes([{**record(1, 70), "A": float("nan")}])
    assert "undeliverable" in change
    second = late(window(120, 180), first.after)
    assert summary(second.changes([record(1, 70, 110)])) == [(1, "updated", 110)]


def test_records_come_in_parts():
    """Pages may be handed over one by one; a record that comes twice counts once."""
    reading = late(window(60, 120), seen(window(0, 60)))
    assert summary(reading.changes([record(1, 30), record(2, 90)])) == [(1, "added", 30), (2, "added", 90)]
    assert summary(reading.changes([record(2, 90, 91), record(3, 31)])) == [(3, "added", 31)]


# --- the same again --------------------------------------------------------------------------------------


def again(reading: LateChanges, events=EVENTS) -> SameChanges:
    return SameChanges(CONTACTS, events, reading.plain, reading.told)


def test_a_retry_tells_the_same():
    """The late changes come again. Changes that have appeared since belong to another run."""
    reading = late(window(60, 120), seen(window(0, 60), record(1, 30)))
    records = [record(1, 30), record(2, 31), record(3, -9_000, 40), record(4, 90), record(5, 32, 91)]
    first = summary(reading.changes(records))
    repeated = again(reading)
    assert repeated.search_from <= at(29)
    assert summary(repeated.changes([*records, record(6, 33), record(7, 92), *records])) == first
    assert len(first) == 4


def test_a_retry_tells_only_the_events_asked_for():
    """This holds with late changes, which are remembered one by one, and without them."""
    records = [record(1, 70), record(2, -9_000, 80), record(3, 31)]
    for some, late_changes in ((records[:2], 0), (records, 1)):
        reading = late(window(60, 120), seen(window(0, 60)), ("added",), settled_until=at(2_000))
        first = summary(reading.changes(some))
        assert first == [(1, "added", 70), (3, "added", 31)][: 1 + late_changes]
        assert len(reading.told) == late_changes
        assert summary(again(reading, ("added",)).changes(some)) == first


def test_a_retry_tells_a_record_whose_times_cannot_be_read():
    """It belongs to the window, not to the lookback. The retry reports it, also if there is nothing else."""
    unreadable = {"CONTACT_ID": 1, "DATE_CREATED_UTC": "soon", "DATE_UPDATED_UTC": "later"}
    reading = late(window(60, 120), seen(window(0, 60)))
    assert summary(reading.changes([unreadable])) == [(1, "updated", 60)]
    repeated = again(reading)
    assert not repeated.is_empty
    assert [change["record_id"] for change in repeated.changes([unreadable])] == [1]


def test_what_a_result_depends_on():
    """Nothing but an earlier try's result, if one is repeated; else window and events, in any order."""
    reading = late(window(60, 120), seen(window(0, 60)))
    assert again(reading).basis is None
    of = [
        SameChanges(CONTACTS, events, span).basis
        for events in (EVENTS, tuple(reversed(EVENTS)), ("added",))
        for span in (window(0, 60), window(0, 61))
    ]
    assert None not in of
    assert of[:2] == of[2:4]
    assert len(set(of)) == 4


def test_a_retry_of_a_long_window_tells_all_of_its_older_part():
    """No other run reports changes older than the lookback, so the retry needs no memory of them."""
    reading = late(window(0, 7_200), seen(window(-60, 0)))
    records = [record(1, 100), record(2, 7_100), record(3, -5), record(6, 6_300)]
    first = summary(reading.changes(records))
    assert first == [(1, "added", 100), (2, "added", 7_100), (3, "added", -5), (6, "added", 6_300)]
    assert len(reading.told) == 3
    assert summary(again(reading).changes([*records, record(4, 101), record(5, 7_101)])) == [
        *first,
        (4, "added", 101),
    ]


def test_a_retry_repeats_too_much_rather_than_too_little(monkeypatch):
    """If not all late changes could be remembered, the retry reports all older changes again."""
    monkeypatch.setattr("airflow_insightly_hooks.core.detection.seen_changes.MOST_RECORDS", 5)
    reading = late(window(60, 120), seen(window(0, 60), record(50, 20)))
    records = [*(record(n, 30) for n in range(1, 9)), record(20, 40), record(21, 90), record(50, 20)]
    first = summary(reading.changes(records))
    reading.told.blocks()
    assert reading.has_given_up
    assert set(first) <= set(summary(again(reading).changes(records)))


@pytest.mark.parametrize("events", [("added",), ("updated",), EVENTS])
def test_a_retry_has_the_same_events(events):
    """Whichever events are asked for, each change comes again with the same event."""
    reading = late(window(60, 120), seen(window(0, 60), record(1, 30)), events)
    records = [record(1, 30, 40), record(2, 31), record(3, 32, 41), record(4, 90, 91), record(5, 50, 92)]
    first = summary(reading.changes(records))
    assert first
    assert summary(again(reading, events).changes(records)) == first
