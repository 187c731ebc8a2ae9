"""Windows, and which records changed in them."""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time, format_api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import (
    EVENTS,
    ChangeWindow,
    RecordChange,
    changes_in,
    check_changes,
    check_events,
    checked_change,
)
from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.errors import InvalidChange, InvalidTime, InvalidWindow
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import (
    adjoining_windows,
    api_text,
    changes,
    exact_values,
    milliseconds,
    recent,
    records,
    windows,
)

UTC = timezone.utc
NINE, TEN = datetime(2020, 5, 1, 9, tzinfo=UTC), datetime(2020, 5, 1, 10, tzinfo=UTC)
WINDOW = ChangeWindow(NINE, TEN)
INSIDE = "2020-05-01 09:30:00"
CONTACTS, EMAILS, INVOICES = (RECORD_TYPES[name] for name in ("Contacts", "Emails", "Invoice__c"))


def contact(created: object, updated: object = None, record_id: int = 7) -> dict:
    return {"CONTACT_ID": record_id, "DATE_CREATED_UTC": created, "DATE_UPDATED_UTC": updated}


def found(record: dict, window: ChangeWindow = WINDOW) -> list[tuple[str, str]]:
    return [(change["event"], change["changed_at"]) for change in changes_in(window, CONTACTS, [record])]


# --- windows -----------------------------------------------------------------------------------------------


def test_a_window_is_half_open():
    """Its start is in it, its end is not."""
    assert NINE in WINDOW
    assert TEN - timedelta(microseconds=1) in WINDOW
    assert TEN not in WINDOW
    assert NINE - timedelta(microseconds=1) not in WINDOW


def test_a_window_is_kept_in_utc():
    """Whatever time zones its ends are given in, they become the same instants in UTC."""
    paris = timezone(timedelta(hours=2))
    window = ChangeWindow(datetime(2020, 5, 1, 11, tzinfo=paris), TEN.astimezone(paris))
    assert window == WINDOW
    assert (window.start.tzinfo, window.end.tzinfo) == (UTC, UTC)
    assert hash(window) == hash(WINDOW)
    assert str(window) == "[2020-05-01T09:00:00Z, 2020-05-01T10:00:00Z)"
    assert window.as_dict() == {"start": "2020-05-01T09:00:00Z", "end": "2020-05-01T10:00:00Z"}


def test_an_empty_window_holds_nothing():
    """A window that ends where it starts is allowed, and empty."""
    assert ChangeWindow(NINE, NINE).is_empty
    assert NINE not in ChangeWindow(NINE, NINE)
    assert not WINDOW.is_empty


@pytest.mark.parametrize("end", ["start", "end"])
@pytest.mark.parametrize("value", [datetime(2020, 5, 1), NINE.date(), "2020-05-01T09:00:00Z", None, 0])  # noqa: DTZ001 — it is refused for that
def test_an_end_that_is_no_aware_time_is_refused(end, value):
    """Both ends must be times with a time zone; the error names the end."""
    with pytest.raises(InvalidWindow) as caught:
        ChangeWindow(**{"start": NINE, "end": TEN, end: value})
    assert caught.value.reason == f"its {end} must be a time with a time zone"


def test_a_window_that_ends_before_it_starts_is_refused():
    """The error names both ends."""
    with pytest.raises(InvalidWindow) as caught:
        ChangeWindow(TEN, NINE)
    assert caught.value.reason == (
        "it ends at 2020-05-01T09:00:00Z, before its start 2020-05-01T10:00:00Z: give the earlier time first"
    )


@given(adjoining_windows(), recent)
def test_an_instant_is_in_exactly_one_of_adjoining_windows(adjoining, instant):
    """From the first start to the last end, every instant is in one window; beyond them, in none."""
    within = adjoining[0].start <= instant < adjoining[-1].end
    assert sum(instant in window for window in adjoining) == within


@given(adjoining_windows())
def test_bounds_of_adjoining_windows_are_in_one_of_them(adjoining):
    """A bound belongs to the window that starts there."""
    for bound in {window.start for window in adjoining} - {adjoining[-1].end}:
        assert sum(bound in window for window in adjoining) == 1


@given(windows())
def test_the_api_is_asked_from_before_the_start(window):
    """The API takes whole seconds and an exclusive bound, so it is asked from a little earlier."""
    assert api_time(format_api_time(window.search_from)) < window.start.replace(microsecond=0)
    assert window.start - window.search_from <= timedelta(seconds=2)


def test_a_window_can_start_with_time_itself():
    """The margin before a window's start ends at the first instant there is."""
    assert ChangeWindow.of(("0001-01-01", TEN)).search_from == datetime(1, 1, 1, tzinfo=UTC)


@given(windows())
def test_a_window_survives_json(window):
    """What as_dict gives is JSON, and is read as the same window."""
    assert ChangeWindow.of(json.loads(json.dumps(window.as_dict()))) == window


@pytest.mark.parametrize(
    "value",
    [
        WINDOW,
        (NINE, TEN),
        [NINE, "2020-05-01 10:00:00"],
        {"start": "2020-05-01T09:00:00Z", "end": "2020-05-01T12:00:00+02:00"},
        {"end": TEN, "start": "2020-05-01 09:00"},
    ],
)
def test_how_a_window_can_be_written(value):
    """A window, a pair or a mapping, of aware times or texts, is read."""
    assert ChangeWindow.of(value) == WINDOW


@pytest.mark.parametrize(
    "value",
    [
        None,
        "2020-05-01",
        b"ab",
        5,
        [],
        [NINE],
        [NINE, TEN, TEN],
        {},
        {"start": NINE},
        {"start": 1, "end": 2, "x": 3},
    ],
)
def test_what_is_no_window_is_refused(value):
    """Anything else raises InvalidWindow, which says what is needed."""
    with pytest.raises(InvalidWindow) as caught:
        ChangeWindow.of(value)
    needed = "it must be a pair of times, or a mapping with 'start' and 'end'"
    if value == b"ab":  # a pair, of numbers
        needed = "its start must be a time with a time zone"
    assert caught.value.reason == needed


def test_an_end_of_a_window_that_is_no_time_is_refused():
    """A text that is no time raises InvalidTime, which says which end."""
    with pytest.raises(InvalidTime) as caught:
        ChangeWindow.of({"start": "2020-05-01", "end": "tomorrow"})
    assert caught.value.where == "window end"
    with pytest.raises(InvalidTime) as caught:
        ChangeWindow.of(("yesterday", "2020-05-01"))
    assert caught.value.where == "window start"


# --- changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created", "updated", "changes"),
    [
        ("2020-05-01 09:00:00", "2020-05-01 09:00:00", [("added", "2020-05-01T09:00:00Z")]),
        ("2020-05-01 09:30:00", "2020-05-01 09:45:00", [("added", "2020-05-01T09:30:00Z")]),
        ("2020-05-01 09:59:59.999", "2020-05-01 10:00:00", [("added", "2020-05-01T09:59:59.999000Z")]),
        ("2019-01-01 00:00:00", "2020-05-01 09:45:00", [("updated", "2020-05-01T09:45:00Z")]),
        ("2019-01-01 00:00:00", "2020-05-01 10:00:00", []),
        ("2019-01-01 00:00:00", "2020-05-01 08:59:59.999", []),
        ("2020-05-01 10:00:00", "2020-05-01 10:00:00", []),
        (None, "2020-05-01 09:45:00", [("updated", "2020-05-01T09:45:00Z")]),
        ("", "", []),
        (None, None, []),
    ],
)
def test_how_a_record_is_classed(created, updated, changes):
    """A record created in the window was added. If it was only updated there, it was updated.

    Others didn't change.
    """
    assert found(contact(created, updated)) == changes


def test_a_change_in_full():
    """A change tells record type, id, event and time, and holds the record itself."""
    record = contact("2020-05-01 09:30:00")
    assert list(changes_in(WINDOW, CONTACTS, [record])) == [
        {
            "record_type": "Contacts",
            "record_id": 7,
            "event": "added",
            "changed_at": "2020-05-01T09:30:00Z",
            "record": record,
        }
    ]


def test_a_record_without_an_update_time_can_only_be_added():
    """An e-mail has a creation time only."""
    email = {"EMAIL_ID": 1, "DATE_CREATED_UTC": "2020-05-01 09:30:00"}
    assert [change["event"] for change in changes_in(WINDOW, EMAILS, [email])] == ["added"]
    assert not list(changes_in(ChangeWindow(TEN, TEN + timedelta(days=1)), EMAILS, [email]))


def test_a_custom_objects_times_may_be_custom_fields():
    """Where the times stand among the custom fields, they are found there."""
    record = {
        "RECORD_ID": 3,
        "CUSTOMFIELDS": [
            {"FIELD_NAME": "DATE_CREATED_UTC", "FIELD_VALUE": "2019-01-01 00:00:00"},
            {"FIELD_NAME": "DATE_UPDATED_UTC", "FIELD_VALUE": "2020-05-01 09:30:00"},
        ],
    }
    (change,) = changes_in(WINDOW, INVOICES, [record])
    assert (change["record_id"], change["event"]) == (3, "updated")


@pytest.mark.parametrize("events", [("added",), ["updated"], {"added", "updated"}, EVENTS])
def test_only_the_events_asked_for_are_yielded(events):
    """Of an added and an updated record, only the changes whose events are asked for come."""
    both = [contact("2020-05-01 09:30:00"), contact("2019-01-01", "2020-05-01 09:30:00", record_id=8)]
    assert [change["event"] for change in changes_in(WINDOW, CONTACTS, both, events)] == [
        event for event in EVENTS if event in events
    ]


def test_an_update_in_the_window_of_the_creation():
    """Where only updates are asked for, one that follows the creation counts; the creation itself doesn't."""
    created = contact("2020-05-01 09:30:00", "2020-05-01 09:30:00")
    updated = contact("2020-05-01 09:30:00", "2020-05-01 09:45:00", record_id=8)
    (change,) = changes_in(WINDOW, CONTACTS, [created, updated], ("updated",))
    assert (change["record_id"], change["event"], change["changed_at"]) == (
        8,
        "updated",
        "2020-05-01T09:45:00Z",
    )


def test_a_record_that_two_pages_deliver_counts_once():
    """The first delivery counts, and the order is that of the records."""
    first, second = contact("2020-05-01 09:30:00"), contact("2020-05-01 09:30:00", record_id=8)
    again = contact("2020-05-01 09:30:00", "2020-05-01 09:50:00")
    assert [change["record"] for change in changes_in(WINDOW, CONTACTS, [first, second, again])] == [
        first,
        second,
    ]


def test_records_are_read_one_by_one():
    """A change is yielded before the next record is asked for."""

    def endless():
        yield contact("2020-05-01 09:30:00")
        pytest.fail("read ahead")

    assert next(changes_in(WINDOW, CONTACTS, endless()))["record_id"] == 7


@pytest.mark.parametrize("field", ["DATE_CREATED_UTC", "DATE_UPDATED_UTC"])
@pytest.mark.parametrize("value", ["soon", 20200501, True, ["2020-05-01"]])
def test_a_record_whose_times_cannot_be_read_is_undeliverable(field, value):
    """It belongs to no window. Passing it over would lose a change silently. Other records are found."""
    record = {**contact("2019-01-01 00:00:00", "2019-01-01 00:00:00"), field: value}
    good = contact(INSIDE, record_id=8)
    bad, found = changes_in(WINDOW, CONTACTS, [record, good])
    assert bad == {
        "record_type": "Contacts",
        "record_id": record["CONTACT_ID"],
        "event": "updated",
        "changed_at": iso_time(WINDOW.start),
        "record": {},
        "undeliverable": f"Contacts.{field} is not a time such as '2017-03-10 08:00:00' or "
        "'2017-03-10T08:00:00Z'",
    }
    assert found["record"] is good
    assert next(changes_in(WINDOW, CONTACTS, [record], ["added"]))["event"] == "added"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"CUSTOMFIELDS": [None]}, "CUSTOMFIELDS[0]: it must be an object, not null"),
        ({"CUSTOMFIELDS": ["Zoë"]}, "CUSTOMFIELDS[0]: it must be an object, not text"),
        ({"CUSTOMFIELDS": {"FIELD_NAME": "Zoë"}}, "CUSTOMFIELDS: it must be a list, not object"),
        (
            {"CUSTOMFIELDS": [{"FIELD_NAME": {}}]},
            "CUSTOMFIELDS[0].FIELD_NAME: it must be text, not object",
        ),
        ({"DATES": [None]}, "DATES[0]: it must be an object, not null"),
        ({"TITLE": float("nan")}, "TITLE: a number that is not finite cannot be sent as JSON"),
        ({"TITLE": loads("[" * 950 + "]" * 950)}, "TITLE: its values nest deeper than 100 levels"),
    ],
)
def test_a_record_that_no_body_can_be_built_of_is_undeliverable(fields, reason):
    """It keeps its id, event and time, shows nothing of its contents, and doesn't stop other records."""
    bad, found = changes_in(WINDOW, CONTACTS, [{**contact(INSIDE), **fields}, contact(INSIDE, record_id=8)])
    whole = next(changes_in(WINDOW, CONTACTS, [contact(INSIDE)]))
    assert bad == {**whole, "record": {}, "undeliverable": reason}
    assert found["record_id"] == 8
    assert checked_change({**whole, "record": {**whole["record"], **fields}}) == bad
    assert checked_change(bad) is bad
    assert checked_change(whole) is whole
    outside = {**contact("2019-01-01 00:00:00"), **fields}
    assert list(changes_in(WINDOW, CONTACTS, [outside])) == []


@pytest.mark.parametrize("record_id", [None, "7", 7.5, True, 0, -7, [7], {"a": 1}, 2**63])
def test_records_without_a_usable_id_are_undeliverable(record_id):
    """They are reported together: one by one, they couldn't be told apart."""
    without = {**contact(INSIDE), "CONTACT_ID": record_id}
    outside = {**contact("2019-01-01 00:00:00"), "CONTACT_ID": record_id}
    found, bad = changes_in(WINDOW, CONTACTS, [without, contact(INSIDE, record_id=8), {}, {}, outside])
    assert found["record_id"] == 8
    assert (bad["record_id"], bad["record"]) == (0, {})
    assert bad["undeliverable"] == "3 records have no usable CONTACT_ID"
    assert bad["changed_at"] == iso_time(WINDOW.start)


@given(
    st.lists(st.dictionaries(st.sampled_from(list(CONTACTS.fields)), exact_values), max_size=3),
    st.sampled_from([("added",), ("updated",), EVENTS]),
)
def test_any_json_in_a_record_stops_only_itself(odd, events):
    """Whatever JSON is in some records, no error is raised, and each valid record is found once."""
    good = [contact(INSIDE, "2020-05-01 09:31:00", record_id=number) for number in (10**6, 10**6 + 1)]
    changes = list(changes_in(WINDOW, CONTACTS, [good[0], *odd, good[1]], events))
    assert [c["record"] for c in changes if c["record_id"] >= 10**6 and "undeliverable" not in c] == good
    assert check_changes([storable(change) for change in changes])
    for change in changes:
        if "undeliverable" not in change:
            build_body(change["record"], record_type="Contacts")


@given(windows(), st.lists(records("Contacts"), max_size=5), st.sets(st.sampled_from(EVENTS)))
def test_changes_are_within_the_window(window, delivered, events):
    """Each change lies in the window, and its event was asked for. Its record is as the API delivered it."""
    before = copy.deepcopy(delivered)
    for change in changes_in(window, CONTACTS, delivered, events):
        assert api_time(change["changed_at"]) in window
        assert change["event"] in events
        assert any(change["record"] is record for record in delivered)
    assert delivered == before


@given(adjoining_windows(), st.data())
def test_a_record_changes_once_a_window_and_added_beats_updated(adjoining, data):
    """Over adjoining windows, an addition and an update come once each, and never both from one window."""
    times = st.sampled_from([window.start for window in adjoining]).map(
        lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    )
    record = data.draw(records("Contacts", times=times | milliseconds))
    created, updated = api_time(record["DATE_CREATED_UTC"]), api_time(record["DATE_UPDATED_UTC"])
    for window in adjoining:
        events = [change["event"] for change in changes_in(window, CONTACTS, [record])]
        expected = ["added"] if created in window else ["updated"] if updated in window else []
        assert events == expected
    seen = [event for window in adjoining for event, _ in found(record, window)]
    assert seen.count("added") == sum(created in window for window in adjoining) <= 1
    assert seen.count("updated") <= 1


@given(adjoining_windows(), st.lists(st.tuples(milliseconds, milliseconds), max_size=6))
def test_adjoining_windows_find_what_one_window_would(adjoining, times):
    """Split into windows, no addition is lost, and none is found twice."""
    delivered = [contact(api_text(a), api_text(b), record_id=i) for i, (a, b) in enumerate(times, 1)]
    whole = ChangeWindow(adjoining[0].start, adjoining[-1].end)
    added = [
        change["record_id"]
        for window in adjoining
        for change in changes_in(window, CONTACTS, delivered, ("added",))
    ]
    assert sorted(added) == [
        change["record_id"] for change in changes_in(whole, CONTACTS, delivered, ("added",))
    ]


# --- checks of what users and XCom bring -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "checked"),
    [
        ("added", ("added",)),
        (["updated", "added", "updated"], ("updated", "added")),
        (iter(["added"]), ("added",)),
        (EVENTS, EVENTS),
    ],
)
def test_events_are_checked(events, checked):
    """One or several events come out as a tuple without repetition."""
    assert check_events(CONTACTS, events) == checked


@pytest.mark.parametrize("events", [[], "", "deleted", ["added", "deleted"], [None]])
def test_events_that_are_none_are_refused(events):
    """An unknown event, or none at all, raises ValueError."""
    with pytest.raises(ValueError, match="events must be one or both of"):
        check_events(CONTACTS, events)


def test_updates_alone_are_refused_where_the_api_tells_none():
    """E-mails have no update times, so watching them for updates alone would never find one."""
    with pytest.raises(ValueError, match="only 'added' can be watched"):
        check_events(EMAILS, ["updated"])
    assert check_events(EMAILS, EVENTS) == EVENTS
    assert check_events(INVOICES, ["updated"]) == ("updated",)


@given(st.lists(changes(), max_size=3))
def test_changes_are_passed_on(listed):
    """A list of changes comes out equal, as a new list."""
    assert check_changes(listed) == listed
    assert check_changes(tuple(listed)) == listed
    assert check_changes(listed) is not listed


CHANGE: RecordChange = {
    "record_type": "Contacts",
    "record_id": 7,
    "event": "added",
    "changed_at": "2020-05-01T09:30:00Z",
    "record": {"CONTACT_ID": 7, "FIRST_NAME": "Zoë"},
}


@pytest.mark.parametrize("value", [None, "text", 5, {"record": {}}])
def test_what_is_no_list_of_changes_is_refused(value):
    """InvalidChange names the type of what came instead."""
    with pytest.raises(InvalidChange) as caught:
        check_changes(value)
    assert caught.value.index == 0
    assert caught.value.reason == f"a list of changes is needed, not {type(value).__name__}"


def test_the_address_of_an_xcom_is_no_list_of_changes():
    """If an XCom's file is missing, Airflow's object storage backend gives its address: the error says so."""
    with pytest.raises(InvalidChange, match=r"address of its file.*clear the task"):
        check_changes("s3://aws@bucket/dag/run/detect/1.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("text", "a change is needed, not str"),
        ({}, "it lacks 'record_type', 'record_id', 'event', 'changed_at', 'record'"),
        ({**CHANGE, "record_type": "Contact"}, "its record_type must be a record type of Insightly's API"),
        ({**CHANGE, "record_type": ["Contacts"]}, "its record_type must be a record type of Insightly's API"),
        ({**CHANGE, "event": "deleted"}, "its event must be one of ['added', 'updated']"),
        ({**CHANGE, "record_id": "Zoë"}, "its record_id must be a number, and its changed_at a text"),
        ({**CHANGE, "changed_at": 5}, "its record_id must be a number, and its changed_at a text"),
        ({**CHANGE, "record": [{"FIRST_NAME": "Zoë"}]}, "its record must be an object"),
        ({**CHANGE, "undeliverable": ["Zoë"]}, "its undeliverable must be a text"),
    ],
)
def test_what_is_no_change_is_refused(change, reason):
    """InvalidChange says which one it is and what is wrong, without what the record holds."""
    with pytest.raises(InvalidChange) as caught:
        check_changes([CHANGE, change])
    assert (caught.value.index, caught.value.reason) == (1, reason)
    assert "Zoë" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(RecordChange.__required_keys__))
def test_a_change_that_lacks_a_key_is_refused(key):
    """Every key of a change is needed; the missing one is named."""
    with pytest.raises(InvalidChange) as caught:
        check_changes([{name: value for name, value in CHANGE.items() if name != key}])
    assert caught.value.reason == f"it lacks {key!r}"
