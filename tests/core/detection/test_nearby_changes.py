"""What a scan keeps of the time before or after its window, for the runs that read the windows there."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection import nearby_changes as module
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in
from airflow_insightly_hooks.core.detection.nearby_changes import (
    Chunk,
    NearbyChanges,
    Slice,
    WindowRead,
    read_window,
)
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.exact_json import dumps, loads
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import api_text, records

UTC = timezone.utc
START = datetime(2024, 5, 1, tzinfo=UTC)
CONTACTS, EMAILS, INVOICES = (RECORD_TYPES[name] for name in ("Contacts", "Emails", "Invoice__c"))

# Few instants, so that many changes share one and many records change again; some before the scan's start.
moments = st.integers(-4, 30).map(lambda halves: START + timedelta(milliseconds=500 * halves))


def contact(record_id: int, created: datetime | None, updated: datetime | None) -> dict[str, Any]:
    return {
        "CONTACT_ID": record_id,
        "DATE_CREATED_UTC": api_text(created) if created else None,
        "DATE_UPDATED_UTC": api_text(updated) if updated else None,
    }


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


WINDOW = ChangeWindow(at(-1), START)
"""The window that is read. The scan keeps changes from before or after it."""


def after(end: float = 20, limit: int = 100) -> NearbyChanges:
    return NearbyChanges(WINDOW, ChangeWindow(START, at(end)), limit)


def before(start: float, limit: int = 100) -> NearbyChanges:
    """Collect changes from before a window that starts at 14."""
    return NearbyChanges(ChangeWindow(at(14), at(15)), ChangeWindow(at(start), at(14)), limit)


def scan(nearby: NearbyChanges, found: list[dict[str, Any]]) -> tuple[Chunk, list[str]]:
    """Return what a run that has seen these records keeps, after a way through JSON."""
    for record in found:
        nearby.see(record)
    slices = list(nearby.slices())
    index = [[iso_time(part.start), part.updated_again] for part in slices]
    chunk = Chunk(iso_time(nearby.start), iso_time(nearby.end), "run", [], iso_time(START), index)
    return Chunk.of(json.loads(json.dumps(chunk.as_dict()))), [part.text for part in slices]


def from_chunk(chunk: Chunk, texts: list[str], window: ChangeWindow, kind=CONTACTS, **events) -> WindowRead:
    slices = [chunk.slice(number, texts[number]) for number in chunk.slices_of(window)]
    return read_window(window, kind, slices, events.get("events", ("added", "updated")))


def by_itself(found: list[dict[str, Any]], window: ChangeWindow, kind=CONTACTS, **events) -> WindowRead:
    """Return what a run finds by asking the API itself: all records updated since the window's start."""
    nearby = NearbyChanges(window)
    for record in found:
        nearby.see(record)
    return WindowRead(list(changes_in(window, kind, found, **events)), nearby.updated_again)


@pytest.mark.slow
@given(
    st.lists(
        records("Contacts", moments),
        max_size=25,
        unique_by=lambda r: r["CONTACT_ID"],
    ),
    st.lists(moments, min_size=2, max_size=12),
    st.integers(1, 40),
    st.integers(1, 8),
    st.sampled_from([("added",), ("updated",), ("added", "updated")]),
    st.sampled_from([after, before]),
)
def test_windows_read_from_a_chunk_as_by_themselves(found, bounds, limit, slice_changes, events, beside):
    """Whatever the sizes are, a window read from a chunk has the same changes, order and count."""
    nearby = after(14, limit) if beside is after else before(0, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_CHANGES", slice_changes)
        chunk, texts = scan(nearby, found)
    windows = [ChangeWindow(*ends) for ends in pairwise(sorted({START, *bounds}))]
    for window in windows:
        if chunk.covers(window):
            assert from_chunk(chunk, texts, window, events=events) == by_itself(found, window, events=events)
    if len(found) * 2 <= limit:
        assert chunk.covers(ChangeWindow(START, at(14)))


@pytest.mark.slow
@given(st.sampled_from(["Emails", "Invoice__c", "Tasks"]), st.data())
def test_record_types_with_other_times(name, data):
    """A type without update times, and one that has them among its custom fields, are read as directly."""
    kind = RECORD_TYPES[name]
    found = data.draw(st.lists(records(name, moments), max_size=10, unique_by=lambda r: r[kind.id_field]))
    chunk, texts = scan(after(14), found)
    for window in (ChangeWindow(at(a), at(b)) for a, b in ((0, 14), (0, 3), (3, 3.5), (3.5, 14))):
        assert from_chunk(chunk, texts, window, kind) == by_itself(found, window, kind)


def test_a_record_that_was_created_and_updated_counts_in_both_windows():
    """Created in one window and updated in a later one, it was added in one and updated in the other."""
    chunk, texts = scan(after(), [contact(7, at(1), at(11))])
    seen = [
        [change["event"] for change in from_chunk(chunk, texts, ChangeWindow(at(a), at(b))).changes]
        for a, b in ((0, 10), (10, 20))
    ]
    assert seen == [["added"], ["updated"]]


def test_the_earliest_are_kept_and_the_end_says_up_to_when():
    """Beyond the limit the latest changes are dropped.

    If one of an instant is dropped, the whole instant is.
    """
    found = [contact(i, None, at(second)) for i, second in enumerate([9, 2, 5, 5, 1, 7], 1)]
    chunk, texts = scan(after(limit=3), found)
    assert api_time(chunk.end) == at(5)
    assert chunk.covers(ChangeWindow(at(0), at(5)))
    assert not chunk.covers(ChangeWindow(at(0), at(5.5)))
    assert not chunk.covers(ChangeWindow(at(-1), at(5)))
    read = from_chunk(chunk, texts, ChangeWindow(at(0), at(5)))
    assert [change["record_id"] for change in read.changes] == [2, 5]


def test_what_is_nearest_before_is_kept():
    """Of the changes before a window, the earliest are dropped. From right after them on, all are kept."""
    found = [contact(i, None, at(second)) for i, second in enumerate([9, 2, 5, 5, 1, 13], 1)]
    nearby = before(0, 3)
    assert nearby.search_from == at(-2)
    chunk, texts = scan(nearby, found)
    assert api_time(chunk.start) == at(5) + timedelta(microseconds=1)
    assert api_time(chunk.end) == at(14)
    read = from_chunk(chunk, texts, ChangeWindow(at(6), at(14)))
    assert [change["record_id"] for change in read.changes] == [1, 6]


def test_a_scan_that_keeps_what_is_after_begins_with_its_window():
    """It asks for nothing earlier than the window needs."""
    assert after().search_from == WINDOW.search_from


def test_memory_is_bounded_by_bytes(monkeypatch):
    """Records with much text are kept up to a number of bytes."""
    monkeypatch.setattr(module, "MOST_BYTES", 1_000)
    found = [{**contact(i, None, at(i)), "BACKGROUND": "x" * 200} for i in range(1, 11)]
    chunk, texts = scan(after(), found)
    assert 3 <= len(from_chunk(chunk, texts, ChangeWindow(START, api_time(chunk.end))).changes) <= 4


def test_a_slice_is_bounded_by_changes_and_bytes(monkeypatch):
    """A slice has at most so many changes or bytes, and changes of one instant stay together."""
    found = [contact(i, None, at(1 + i // 4)) for i in range(12)]
    monkeypatch.setattr(module, "SLICE_CHANGES", 3)
    chunk, _ = scan(after(), found)
    assert [api_time(start) for start, _ in chunk.slices] == [START, at(2), at(3)]
    assert chunk.slices_of(ChangeWindow(at(1), at(2))) == range(1)
    assert chunk.slices_of(ChangeWindow(at(2), at(3))) == range(1, 2)
    assert chunk.slices_of(ChangeWindow(at(2), at(4))) == range(1, 3)
    monkeypatch.setattr(module, "SLICE_CHANGES", 500)
    monkeypatch.setattr(module, "SLICE_BYTES", 1)
    assert len(scan(after(), found)[0].slices) == 3


def test_the_index_of_a_chunk_is_small():
    """The index of the largest chunk fits well into an entry of a state store, and holds no record."""
    canary = "a customer's name"
    nearby = after(1_000_000, 20_000)
    for i in range(25_000):
        nearby.see({**contact(i, None, at(i)), "FIRST_NAME": canary})
    chunk, texts = scan(nearby, [])
    assert len(texts) == 40
    assert len(json.dumps(chunk.as_dict())) < 3_000
    assert canary not in json.dumps(chunk.as_dict())


def test_records_updated_again_are_counted():
    """Records that existed by a window's end and were updated at that time or later count once each."""
    found = [
        contact(1, at(-9), at(4)),  # counts up to 4
        contact(2, at(2), at(9)),  # from after 2 up to 9
        contact(3, at(2), at(2)),  # never
        contact(4, None, at(6)),
        contact(5, at(1), None),
    ]
    nearby = after()
    chunk, texts = scan(nearby, found)
    assert nearby.updated_again == 2
    counts = [
        from_chunk(chunk, texts, ChangeWindow(START, at(end))).updated_again
        for end in (2, 2.5, 4, 4.5, 9, 10)
    ]
    assert counts == [2, 3, 3, 2, 1, 0]


def test_records_updated_again_are_counted_for_earlier_windows():
    """A scan that keeps changes from before its window counts for each window there as a scan of it would."""
    found = [
        contact(1, at(-9), at(4)),  # counts up to 4
        contact(2, at(2), at(13)),  # from after 2 up to 13
        contact(3, at(-9), at(14)),  # counts always
        contact(4, at(3), at(20)),  # from after 3 on
        contact(5, at(14), at(20)),  # never, like those of the window itself
        contact(6, None, at(14)),
    ]
    chunk, texts = scan(before(0), found)
    windows = [ChangeWindow(START, at(end)) for end in (2, 2.5, 3.5, 4.5, 13, 14)]
    counts = [from_chunk(chunk, texts, window).updated_again for window in windows]
    assert counts == [3, 4, 5, 4, 4, 3]
    assert counts == [by_itself(found, window).updated_again for window in windows]


def test_an_empty_window_keeps_what_is_after():
    """Such a window starts and ends where the kept changes begin."""
    nearby = NearbyChanges(ChangeWindow(START, START), ChangeWindow(START, at(20)), 1)
    chunk, _ = scan(nearby, [contact(1, None, at(2)), contact(2, None, at(9))])
    assert (api_time(chunk.start), api_time(chunk.end)) == (START, at(9))


def test_at_the_bounds_of_what_is_kept():
    """The span is half-open: its start is in it, its end is not."""
    chunk, texts = scan(after(5), [contact(1, None, at(0)), contact(2, None, at(5)), contact(3, None, at(6))])
    assert (api_time(chunk.start), api_time(chunk.end)) == (START, at(5))
    (change,) = from_chunk(chunk, texts, ChangeWindow(START, at(5))).changes
    assert change["record_id"] == 1
    full, _ = scan(after(5, 1), [contact(1, None, at(0)), contact(2, None, at(5))])
    assert api_time(full.end) == at(5)
    full, _ = scan(before(0, 1), [contact(1, None, at(13)), contact(2, None, at(14))])
    assert api_time(full.start) == START


def test_nothing_is_kept_without_an_end():
    """A run that shares nothing counts these records as well."""
    nearby = NearbyChanges(WINDOW)
    nearby.see(contact(1, at(-1), at(3)))
    assert (nearby.start, nearby.end, nearby.updated_again) == (START, START, 1)
    (only,) = nearby.slices()
    assert read_window(ChangeWindow(START, at(1)), CONTACTS, [only], ("added", "updated")).changes == []


def test_a_time_that_is_none_ends_the_keeping():
    """Windows from there on are read from the API, so that no record is silently passed over."""
    nearby = after()
    nearby.see(contact(1, None, at(3)))
    nearby.see({"CONTACT_ID": 2, "DATE_UPDATED_UTC": "yesterday"})
    nearby.see(contact(3, None, at(4)))
    assert nearby.start == nearby.end


@pytest.mark.parametrize("text", ["", "no base 64!", "bm8gemxpYg==", "eJwDAAAAAAE=", "eJyr!rgUAAXUA+Q=="])
def test_a_damaged_slice_is_refused(text):
    """A text that is no slice is a ValueError, never an empty window."""
    with pytest.raises(ValueError, match="a slice of changes"):
        read_window(ChangeWindow(START, at(1)), CONTACTS, [Slice(START, 0, text)], ("added",))


@pytest.mark.parametrize(
    "change", [{"start": "soon"}, {"surplus": 2}, {"slices": [["now", 2]]}, {"slices": 7}]
)
def test_what_is_no_chunk_is_refused(change):
    """An index that another version wrote is an error. It is never read in part."""
    chunk, _ = scan(after(), [])
    with pytest.raises((TypeError, InvalidTime)):
        Chunk.of({**chunk.as_dict(), **change})
    with pytest.raises(TypeError):
        Chunk.of(None)


def test_numbers_are_kept_as_they_are_written() -> None:
    """A run that reads a slice gets the numbers exactly as the API wrote them."""
    number = loads("1234567890123456.78")
    chunk, slices = scan(after(), [{**contact(1, at(1), at(1)), "A": number}])
    (change,) = from_chunk(chunk, slices, ChangeWindow(at(0), at(2))).changes
    assert dumps(change["record"]["A"]) == "1234567890123456.78"


def test_what_nests_too_deep_is_not_kept() -> None:
    """A run that needs such a record reads it from the API."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    nearby = after()
    nearby.see({**contact(1, at(1), at(1)), "A": deep})
    assert nearby.start == nearby.end
