"""A webhook in the store becomes the same change that the sensor would find."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time, format_ms_date, iso_time
from airflow_insightly_hooks.core.delivery.message_id import message_id_of
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in, check_changes
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.core.incoming.kept_entity import InvalidKeptEntity, KeptEntity, KeptName
from airflow_insightly_hooks.core.incoming.received_change import (
    ReceivedChange,
    latest_changes,
    received_change,
    record_as_of_api,
    unreadable_change,
)
from airflow_insightly_hooks.core.incoming.received_entity import read_entity
from airflow_insightly_hooks.core.payload import build_body, build_payload, check_payloads
from airflow_insightly_hooks.core.records import CREATED, RECORD_TYPES, UPDATED, custom_fields_in
from tests.strategies import RECORD_TYPE_NAMES, api_text, records

EIGHT = datetime(2017, 3, 10, 8, tzinfo=timezone.utc)
RECEIVED = EIGHT + timedelta(seconds=2, microseconds=5)
CONTACTS = RECORD_TYPES["Contacts"]
FRACTION = r"(?<=\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+$"


def kept_name(record_id: int = 7, received_at: datetime = RECEIVED, message: str = "m") -> KeptName:
    return KeptName.of_message(received_at, record_id, message)


def change_of(record: dict[str, Any], record_type: str = "Contacts", **name: Any) -> ReceivedChange:
    """Return the change for a record as a webhook brings it."""
    kind = RECORD_TYPES[record_type]
    named = kept_name(record[kind.id_field], **name)
    return received_change(named, KeptEntity(named.received_at, kind.name, named.record_id, record), kind)


def contact(created: datetime | None, updated: datetime | None, **fields: Any) -> dict[str, Any]:
    def date(moment: datetime | None) -> str | None:
        return None if moment is None else format_ms_date(moment)

    times = {"DATE_CREATED_UTC": date(created), "DATE_UPDATED_UTC": date(updated)}
    return {"CONTACT_ID": 7, "FIRST_NAME": "Zoé", **times, **fields}


def is_time(value: object) -> bool:
    try:
        api_time(value)
    except InvalidTime:
        return False
    return True


def in_whole_seconds(value: Any) -> Any:
    """Return a record without fractions of seconds."""
    if isinstance(value, dict):
        return {key: in_whole_seconds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_whole_seconds(item) for item in value]
    return re.sub(FRACTION, "", value) if isinstance(value, str) else value


@pytest.mark.slow
@given(st.data())
@pytest.mark.parametrize("record_type", RECORD_TYPE_NAMES)
def test_round_trip(record_type: str, data: st.DataObject) -> None:
    """A record of any type is restored as it was before it was sent, and makes the same body."""
    record = in_whole_seconds(data.draw(records(record_type)))
    dates = [name for name, value in custom_fields_in(record) if is_time(value)]
    body = build_body(record, record_type=record_type, custom_date_fields=dates)
    entity = read_entity(body.encode(), record_type)
    kept = KeptEntity.of(KeptEntity(EIGHT, record_type, entity.record_id, entity.record).as_bytes())
    as_of_api = record_as_of_api(kept.record, RECORD_TYPES[record_type])
    assert as_of_api == record
    assert list(as_of_api) == list(record)
    assert build_body(as_of_api, record_type=record_type, custom_date_fields=dates) == body


@pytest.mark.parametrize("after", [timedelta(0), timedelta(seconds=2.5), timedelta(days=3)])
@pytest.mark.parametrize("record_type", RECORD_TYPE_NAMES)
def test_same_change_as_the_sensors(record_type: str, after: timedelta) -> None:
    """A webhook's times have milliseconds and the API's don't. The change and the message id are the same."""
    created = EIGHT + timedelta(milliseconds=787)
    updated = created + after
    kind = RECORD_TYPES[record_type]
    record = {kind.id_field: 7, CREATED: api_text(created), UPDATED: api_text(updated)}
    if not kind.has_updates:
        del record[UPDATED]
        updated = created
    shown = in_whole_seconds(record)
    moment = updated.replace(microsecond=0)
    window = ChangeWindow(moment, moment + timedelta(seconds=1))
    (by_api,) = changes_in(window, kind, [shown])
    by_webhook = change_of(loads(build_body(record, record_type=record_type))["entity"], record_type).change
    assert by_webhook == by_api
    assert message_id_of(by_webhook, "w") == message_id_of(by_api, "w")


@pytest.mark.parametrize(
    ("created", "updated", "event", "changed_at"),
    [
        (EIGHT, EIGHT, "added", EIGHT),
        (EIGHT + timedelta(seconds=0.9), EIGHT + timedelta(seconds=1.8), "added", EIGHT),
        (EIGHT, EIGHT + timedelta(seconds=1), "updated", EIGHT + timedelta(seconds=1)),
        (EIGHT, None, "added", EIGHT),
        (None, EIGHT + timedelta(seconds=0.5), "updated", EIGHT),
        (None, None, "updated", RECEIVED),
    ],
)
def test_event(created: Any, updated: Any, event: str, changed_at: datetime) -> None:
    """A record was added if it was updated within a second of its creation. Without times, receipt counts."""
    change = change_of(contact(created, updated)).change
    assert (change["event"], change["changed_at"]) == (event, iso_time(changed_at))
    check_changes([change])


def test_dates() -> None:
    """Only in date fields, custom fields and DATES do Microsoft JSON dates become the API's times."""
    date, text = format_ms_date(EIGHT + timedelta(milliseconds=787)), "2017-03-10 08:00:00"
    custom = {"FIELD_NAME": "Since__c", "CUSTOM_FIELD_ID": date}
    record = contact(EIGHT, EIGHT, DATE_OF_BIRTH=date, BACKGROUND=date, SOCIAL_LINKEDIN=None)
    record |= {
        "CUSTOMFIELDS": [{**custom, "FIELD_VALUE": date}, custom, {**custom, "FIELD_VALUE": "/Date(x)/"}],
        "DATES": [{"OCCASION_NAME": date, "OCCASION_DATE": date}, {"OCCASION_DATE": None}],
    }
    found = record_as_of_api(record, CONTACTS)
    assert (found["DATE_CREATED_UTC"], found["DATE_OF_BIRTH"], found["BACKGROUND"]) == (text, text, date)
    assert [item.get("FIELD_VALUE") for item in found["CUSTOMFIELDS"]] == [text, None, "/Date(x)/"]
    assert found["DATES"] == [{"OCCASION_NAME": date, "OCCASION_DATE": text}, {"OCCASION_DATE": None}]
    assert found["CUSTOMFIELDS"][0] == {**custom, "FIELD_VALUE": text}


def test_no_body_can_be_built() -> None:
    """If no body can be built of a record, its change says why, and doesn't contain it."""
    found = change_of(contact(EIGHT, EIGHT, CUSTOMFIELDS={"Zoé": 1})).change
    assert (found["record"], found["record_id"]) == ({}, 7)
    assert found["undeliverable"] == "CUSTOMFIELDS: it must be a list, not object"


@pytest.mark.parametrize(
    ("record_type", "record_id", "record"),
    [
        ("Leads", 7, contact(EIGHT, EIGHT)),
        ("Contacts", 8, contact(EIGHT, EIGHT)),
        ("Contacts", 7, contact(EIGHT, EIGHT, CONTACT_ID=8)),
        ("Contacts", 7, contact(EIGHT, EIGHT, CONTACT_ID=[7])),
        ("Contacts", 7, {"LEAD_ID": 7}),
    ],
)
def test_of_another_record(record_type: str, record_id: int, record: dict[str, Any]) -> None:
    """An object whose record differs from the one in its name is refused."""
    with pytest.raises(InvalidKeptEntity):
        received_change(kept_name(7), KeptEntity(RECEIVED, record_type, record_id, record), CONTACTS)


def test_unreadable() -> None:
    """An object that can't be read becomes a change that names it and the record. Others are read."""
    found = [unreadable_change(kept_name(7, message=m), CONTACTS, "it is not whole").change for m in "ab"]
    good = change_of(contact(EIGHT, EIGHT)).change
    changes = check_changes([good, found[0]])
    assert found[0]["record_id"] == 7
    assert found[0]["undeliverable"].endswith("can't be read: it is not whole")
    payloads = [build_payload(change, "w", change["record"]) for change in changes]
    assert len(check_payloads(payloads)) == 2
    assert unreadable_change(kept_name(0), CONTACTS, "").change["record_id"] == 0


def test_order() -> None:
    """Changes come in the order of their times. If the times are equal, the order of receipt counts."""
    times = [EIGHT + timedelta(seconds=s) for s in (5, 2, 9)]
    found = [change_of(contact(None, moment, CONTACT_ID=number)) for number, moment in enumerate(times, 1)]
    assert [change["record_id"] for change in latest_changes(found)] == [2, 1, 3]
    found = [
        change_of(contact(None, EIGHT, CONTACT_ID=n), received_at=RECEIVED - timedelta(seconds=n))
        for n in (1, 2, 3)
    ]
    assert [change["record_id"] for change in latest_changes(found)] == [3, 2, 1]


def test_several_in_one_second() -> None:
    """If several changes would be the same message, the latest counts, in whatever order they came."""
    first = change_of(contact(EIGHT - timedelta(days=1), EIGHT, FIRST_NAME="A"), received_at=EIGHT)
    later = EIGHT + timedelta(milliseconds=900)
    second = change_of(contact(EIGHT - timedelta(days=1), later, FIRST_NAME="B"), received_at=EIGHT)
    again = change_of(contact(EIGHT - timedelta(days=1), EIGHT, FIRST_NAME="A"), received_at=RECEIVED)
    other = change_of(contact(EIGHT - timedelta(days=1), EIGHT, CONTACT_ID=8))
    for order in permutations([first, second, again, other]):
        names = {change["record_id"]: change["record"]["FIRST_NAME"] for change in latest_changes(order)}
        assert names == {7: "B", 8: "Zoé"}
        assert len(latest_changes(order)) == 2


def test_added_twice_in_one_second() -> None:
    """Of two webhooks of a new record, the one with the later update counts, even if it came first."""
    earlier = change_of(contact(EIGHT, EIGHT, FIRST_NAME="A"), received_at=RECEIVED)
    later = change_of(contact(EIGHT, EIGHT + timedelta(milliseconds=900), FIRST_NAME="B"), received_at=EIGHT)
    for order in permutations([earlier, later]):
        (change,) = latest_changes(order)
        assert (change["event"], change["record"]["FIRST_NAME"]) == ("added", "B")


@given(st.lists(st.integers(0, 3), max_size=6))
def test_messages_have_ids_of_their_own(seconds: list[int]) -> None:
    """Whatever webhooks come, and however often, payloads can be built of all changes of one reading."""
    found = [change_of(contact(EIGHT, EIGHT + timedelta(seconds=s / 2))) for s in seconds]
    payloads = [build_payload(change, "w", change["record"]) for change in latest_changes(found)]
    assert len(check_payloads(payloads)) == len(payloads)
