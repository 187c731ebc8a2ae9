"""Bodies: exactly what Insightly's own webhooks send, and always the same."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.errors import InvalidPayload, UnknownRecordType
from airflow_insightly_hooks.core.payload import (
    Payload,
    build_body,
    check_payloads,
    format_ms_date,
    parse_ms_date,
)
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import RECORD_TYPE_NAMES, any_text, custom_names, records

VECTORS = Path(__file__).parent.parent / "vectors"
TASK = json.loads((VECTORS / "help_page_task_record.json").read_text())
PAGE = (VECTORS / "help_page_task_body.json").read_text()


def without_white_space(text: str) -> str:
    """Return JSON text without the white space outside of its strings."""
    return re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda match: match[1] or "", text)


def utf16(text: str) -> bytes:
    """Return a text as JSON reads it: two adjacent surrogates become one character."""
    return text.encode("utf-16-le", "surrogatepass")


def sent(value: Any) -> Any:
    """Return what a receiver reads if ``value`` was sent."""
    if isinstance(value, dict):
        return {sent(key): sent(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sent(item) for item in value]
    return utf16(value) if isinstance(value, str) else value


# --- known answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record_type", ["Tasks", None])
def test_the_help_pages_task(record_type):
    """The task of Insightly's help page becomes the body that the page shows, except for white space."""
    assert build_body(TASK, record_type=record_type) == without_white_space(PAGE)
    assert build_body(TASK, record_type=record_type).encode() == without_white_space(PAGE).encode()


def test_dates_in_iso_8601():
    """With this format, dates are ISO 8601 in UTC, with a fraction if they have one."""
    entity = json.loads(build_body(TASK, date_format="iso8601"))["entity"]
    assert entity["DUE_DATE"] == "2017-03-10T08:00:00Z"
    assert entity["DATE_CREATED_UTC"] == "2017-03-10T03:34:10.787000Z"
    assert {k: v for k, v in entity.items() if "DATE" not in k} == {
        k: v for k, v in TASK.items() if "DATE" not in k
    }


@pytest.mark.parametrize(
    ("timezone", "date"),
    [
        ("UTC", r'"\/Date(1489132800000+0000)\/"'),
        ("Asia/Kathmandu", r'"\/Date(1489132800000+0545)\/"'),
        ("America/St_Johns", r'"\/Date(1489132800000-0330)\/"'),
    ],
)
def test_the_time_zone_shows_in_the_offset(timezone, date):
    """Another time zone changes the offset after the milliseconds, and not the milliseconds."""
    assert (
        build_body({"DUE_DATE": TASK["DUE_DATE"]}, timezone=timezone) == f'{{"entity":{{"DUE_DATE":{date}}}}}'
    )


@pytest.mark.parametrize("text", ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999"])
@pytest.mark.parametrize("timezone", ["America/Los_Angeles", "UTC", "Pacific/Kiritimati"])
def test_the_least_and_the_greatest_time(text, timezone):
    """.NET's values for "no date" and for the last date are written like other dates, in every zone."""
    date = json.loads(build_body({"DUE_DATE": text}, timezone=timezone))["entity"]["DUE_DATE"]
    assert parse_ms_date(date) == api_time(text)


@pytest.mark.parametrize(
    ("envelope", "body"),
    [
        ("entity", '{"entity":{"TASK_ID":1}}'),
        ("record", '{"record":{"TASK_ID":1}}'),
        ('"', r'{"\"":{"TASK_ID":1}}'),
        ("", '{"TASK_ID":1}'),
    ],
)
def test_the_envelope(envelope, body):
    """The fields are under the envelope's key, or at the top level without one."""
    assert build_body({"TASK_ID": 1}, envelope=envelope) == body


def test_custom_dates():
    """Custom fields that are dates by their metadata are written as dates, the others unchanged."""
    when = "2020-05-01 09:00:00"
    record = {
        "CONTACT_ID": 1,
        "CUSTOMFIELDS": [
            {"FIELD_NAME": "Renewal__c", "FIELD_VALUE": when, "CUSTOM_FIELD_ID": "Renewal__c"},
            {"FIELD_NAME": "Note__c", "FIELD_VALUE": when},
            {"FIELD_NAME": "Empty__c", "FIELD_VALUE": None},
        ],
    }
    body = build_body(record, record_type="Contacts", custom_date_fields=["Renewal__c", "Empty__c"])
    renewal, note, empty = json.loads(body)["entity"]["CUSTOMFIELDS"]
    date = "/Date(1588323600000-0700)/"
    assert renewal == {"FIELD_NAME": "Renewal__c", "FIELD_VALUE": date, "CUSTOM_FIELD_ID": "Renewal__c"}
    assert note["FIELD_VALUE"] == when
    assert empty["FIELD_VALUE"] is None


DAY = "2017-03-10"
ZONES = ["America/Los_Angeles", "UTC", "Asia/Kathmandu", "Pacific/Auckland", "America/St_Johns"]


@pytest.mark.parametrize(
    "text", [DAY, f"{DAY} 00:00:00", f"{DAY}T00:00:00Z", f"{DAY} 00:00", f"{DAY} 00:00:00.000"]
)
def test_a_custom_field_that_holds_days(text):
    """Its midnight means a day without a time. A reader that applies the offset sees the same day."""
    record = {"CUSTOMFIELDS": [{"FIELD_NAME": "Renewal__c", "FIELD_VALUE": text}]}
    names = {"custom_date_fields": ["Renewal__c"], "custom_day_fields": ["Renewal__c"]}
    assert r'"FIELD_VALUE":"\/Date(1489132800000-0800)\/"' in build_body(record, **names)
    assert '"FIELD_VALUE":"2017-03-10"' in build_body(record, date_format="iso8601", **names)
    assert build_body(record, fields=["Renewal__c"], **names) == (
        r'{"entity":{"Renewal__c":"\/Date(1489132800000-0800)\/"}}'
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (DAY, "/Date(1489132800000-0800)/"),
        (f"{DAY} 00:00:00", "/Date(1489104000000-0800)/"),
        (f"{DAY} 08:00:00", "/Date(1489132800000-0800)/"),
    ],
)
def test_a_date_of_a_record(text, written):
    """A text without a time is a day. A text with a time is an instant, even midnight, as in the API."""
    for record in ({"DUE_DATE": text}, {"DATES": [{"OCCASION_DATE": text}]}):
        assert written.replace("/", r"\/") in build_body(record)
    assert written in json.loads(build_body({"DUE_DATE": text}))["entity"].values()


def test_a_custom_field_that_holds_times():
    """If the field has a time, midnight is an instant like any other."""
    record = {"CUSTOMFIELDS": [{"FIELD_NAME": "Call__c", "FIELD_VALUE": f"{DAY} 00:00:00"}]}
    assert "Date(1489104000000-0800)" in build_body(record, custom_date_fields=["Call__c"])
    days = {"custom_date_fields": ["Call__c"], "custom_day_fields": ["Call__c"]}
    record["CUSTOMFIELDS"][0]["FIELD_VALUE"] = f"{DAY} 08:00:00"
    assert "Date(1489132800000-0800)" in build_body(record, **days)


CHANGED_AT_MIDNIGHT = ["America/Sao_Paulo", "Africa/Cairo", "Atlantic/Azores"]


# Before 1950, zones were off by seconds, which Microsoft JSON dates can't show.
@given(
    st.dates(date(1950, 1, 1)),
    st.sampled_from([*ZONES, *CHANGED_AT_MIDNIGHT]),
)
def test_a_day_stays_the_same_day(day, zone):
    """A reader that applies the offset sees that day at its first moment, even when clocks change."""
    text = json.loads(build_body({"DUE_DATE": day.isoformat()}, timezone=zone))["entity"]["DUE_DATE"]
    sign, hours, minutes = re.search(r"([+-])(\d\d)(\d\d)\)/$", text).groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    with suppress(OverflowError):  # the last possible day
        shown = parse_ms_date(text) + offset
        assert (shown.date(), shown.hour) in ((day, 0), (day, 1))


@pytest.mark.parametrize("text", ["2017-02-30", "20170310", "2017-03-10Z", "2017-W10-5"])
def test_a_day_that_is_none(text):
    """It is sent unchanged, or as the instant that it means."""
    sent = json.loads(build_body({"DUE_DATE": text}))["entity"]["DUE_DATE"]
    assert sent == ("/Date(1489104000000-0800)/" if text.endswith("Z") else text)


def test_a_custom_objects_times_among_its_custom_fields():
    """A custom object's own times are dates there, even without metadata."""
    record = {
        "RECORD_ID": 1,
        "CUSTOMFIELDS": [{"FIELD_NAME": "DATE_UPDATED_UTC", "FIELD_VALUE": "2020-05-01"}],
    }
    (custom,) = json.loads(build_body(record, record_type="Invoice__c"))["entity"]["CUSTOMFIELDS"]
    assert custom["FIELD_VALUE"] == "/Date(1588291200000-0700)/"


def test_occasions():
    """The dates in a contact's list, such as birthdays, are written as dates; the rest is unchanged."""
    record = {
        "DATES": [{"DATE_ID": 1, "OCCASION_NAME": "2020-05-01", "OCCASION_DATE": "2020-05-01 00:00:00"}]
    }
    (occasion,) = json.loads(build_body(record, record_type="Contacts"))["entity"]["DATES"]
    assert occasion == {
        "DATE_ID": 1,
        "OCCASION_NAME": "2020-05-01",
        "OCCASION_DATE": "/Date(1588291200000-0700)/",
    }


@pytest.mark.parametrize("value", [None, []])
def test_empty_lists_stay_as_they_are(value):
    """An empty list is sent as an empty list, and null as null."""
    record = {"CUSTOMFIELDS": value, "DATES": value, "TAGS": value}
    assert json.loads(build_body(record)) == {"entity": record}


def test_fields_are_chosen_by_name():
    """The chosen fields come in their order, custom ones at the top level; missing ones are null."""
    record = {**TASK, "CUSTOMFIELDS": [{"FIELD_NAME": "Renewal__c", "FIELD_VALUE": "2020-05-01 09:00:00"}]}
    fields = ["STATUS", "Renewal__c", "Absent__c", "DUE_DATE", "TASK_ID"]
    assert build_body(record, fields=fields, custom_date_fields={"Renewal__c"}) == (
        r'{"entity":{"STATUS":"NOT STARTED","Renewal__c":"\/Date(1588323600000-0700)\/","Absent__c":null,'
        r'"DUE_DATE":"\/Date(1489132800000-0800)\/","TASK_ID":99922875}}'
    )
    assert build_body(record, fields=[]) == '{"entity":{}}'


@pytest.mark.parametrize("value", ["soon", "", None, 20200501, True, {"a": 1}, ["2020-05-01"]])
def test_a_date_that_is_none_is_sent_as_it_is(value):
    """The receiver gets exactly what the API delivered."""
    assert json.loads(build_body({"DUE_DATE": value}, record_type="Tasks"))["entity"]["DUE_DATE"] == value


def test_which_fields_are_dates_depends_on_the_record_type():
    """A field that is a date in another record type is ordinary text here."""
    assert json.loads(build_body({"SERVICE_DATE": "2020-05-01"}, record_type="Tasks"))["entity"] == {
        "SERVICE_DATE": "2020-05-01"
    }
    assert "Date(" in build_body({"SERVICE_DATE": "2020-05-01"})


@pytest.mark.parametrize("number", [2**53 + 1, -(2**63), 10**40, 0.1, 1e22, -0.0, 5e-324])
def test_numbers_are_exact(number):
    """An integer keeps all its digits. A float is read as the same float."""
    body = build_body({"AMOUNT": number})
    assert json.loads(body)["entity"]["AMOUNT"] == number
    if isinstance(number, int):
        assert body == f'{{"entity":{{"AMOUNT":{number}}}}}'


@pytest.mark.parametrize("text", ["\u2028", "\0\x1f\x7f", '"\\', "😀", "\ufeff", "\ufffe", "/Date(5)/"])
def test_odd_texts(text):
    """Any text reaches the receiver. Only dates have escaped slashes."""
    body = build_body({"TITLE": text})
    assert json.loads(body.encode())["entity"]["TITLE"] == text
    assert r"\/" not in body


def test_text_is_not_escaped_without_need():
    """Letters beyond ASCII are sent as they are, in names as in values."""
    assert build_body({"Größe__c": "für 🛎"}) == '{"entity":{"Größe__c":"für 🛎"}}'


def test_a_lone_surrogate_is_escaped():
    """It can't be encoded in UTF-8, so it is sent as JSON's escape, in names and in values."""
    body = build_body({"A\udc80": "x\ud83dy"})
    assert body == '{"entity":{"A\\udc80":"x\\ud83dy"}}'
    assert json.loads(body.encode())["entity"] == {"A\udc80": "x\ud83dy"}


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("record", "field"),
    [
        (lambda number: {"TITLE": "x", "AMOUNT": number}, "AMOUNT"),
        (lambda number: {"LINKS": [{"ROLE": "x"}, {"WEIGHT": number}]}, "WEIGHT"),
        (lambda number: {"LIST": [1, [number]]}, "LIST"),
        (lambda number: {"CUSTOMFIELDS": [{"FIELD_NAME": "Score__c", "FIELD_VALUE": number}]}, "Score__c"),
        (lambda number: {"DUE_DATE": number}, "DUE_DATE"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(record, field, number):
    """JSON has no such number. InvalidPayload names the field; a custom field by its own name."""
    with pytest.raises(InvalidPayload) as caught:
        build_body(record(number))
    assert caught.value.where == field
    assert caught.value.reason == "a number that is not finite cannot be sent as JSON"


@pytest.mark.parametrize("value", [{1, 2}, b"Zo", object(), api_time("2020-05-01"), 1j])
@pytest.mark.parametrize("field", ["DETAILS", "DUE_DATE"])
def test_what_json_cannot_hold_is_refused(field, value):
    """InvalidPayload names the field and the type, not the value."""
    with pytest.raises(InvalidPayload) as caught:
        build_body({field: value})
    assert caught.value.where == field
    assert caught.value.reason == f"a {type(value).__name__} cannot be sent as JSON"


def test_a_record_type_that_is_none_is_refused():
    """The record type is checked even if no field is a date."""
    with pytest.raises(UnknownRecordType) as caught:
        build_body({}, record_type="Task")
    assert caught.value.name == "Task"


@pytest.mark.parametrize("date_format", ["", "iso", "Microsoft", None])
def test_a_date_format_that_is_none_is_refused(date_format):
    """There are only two formats."""
    with pytest.raises(ValueError, match=r"date_format must be one of \['microsoft', 'iso8601'\]"):
        build_body({}, date_format=date_format)


def test_a_time_zone_that_is_none_is_refused():
    """The error is raised even if there is no date to write."""
    with pytest.raises(ZoneInfoNotFoundError):
        build_body({}, timezone="America/Los Angeles")


# --- properties --------------------------------------------------------------------------------------------


@given(st.sampled_from(RECORD_TYPE_NAMES).flatmap(lambda name: st.tuples(st.just(name), records(name))))
def test_a_body_tells_the_record(drawn):
    """Fields keep their order, values other than dates are equal, and each date is the same instant."""
    name, record = drawn
    body = build_body(record, record_type=name)
    entity = json.loads(body.encode(), parse_constant=pytest.fail)["entity"]
    assert list(map(utf16, entity)) == list(map(utf16, record))
    for field, value in record.items():
        if field in RECORD_TYPES[name].date_fields and value is not None:
            assert parse_ms_date(entity[field]) == api_time(value)
        elif field == "DATES":
            for was, now in zip(value, entity[field], strict=True):
                assert parse_ms_date(now.pop("OCCASION_DATE")) == api_time(was["OCCASION_DATE"])
                assert sent(now) == sent({key: one for key, one in was.items() if key != "OCCASION_DATE"})
        else:
            assert sent(entity[field]) == sent(value)


@given(records(), st.data())
def test_building_changes_nothing_and_is_deterministic(record, data):
    """The record is as before; the same arguments give the same text, which encodes to UTF-8."""
    options = {
        "envelope": data.draw(any_text),
        "date_format": data.draw(st.sampled_from(["microsoft", "iso8601"])),
        "fields": data.draw(st.none() | st.lists(st.sampled_from(list(record)) | custom_names, max_size=4)),
        "custom_date_fields": data.draw(st.lists(custom_names, max_size=2)),
    }
    before = copy.deepcopy((record, options))
    body = build_body(record, **options)
    assert build_body(copy.deepcopy(record), **copy.deepcopy(options)) == body
    assert (record, options) == before
    assert body == without_white_space(body)
    body.encode()
    entity = json.loads(body)
    if options["envelope"]:
        ((envelope, entity),) = entity.items()
        assert utf16(envelope) == utf16(options["envelope"])
    if options["fields"] is not None:
        assert list(entity) == list(dict.fromkeys(options["fields"]))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(any_text.map(lambda name: f"X{name}"), anything, max_size=4))
def test_any_json_is_sent_as_it_is(record):
    """If no field is a date, a body contains exactly what was given, whatever its texts and numbers are."""
    assert sent(json.loads(build_body(record).encode())) == sent({"entity": record})


# --- payloads ----------------------------------------------------------------------------------------------

PAYLOAD: Payload = {
    "message_id": "msg_1",
    "record_type": "Contacts",
    "record_id": 7,
    "event": "added",
    "changed_at": "2020-05-01T09:30:00Z",
    "body": '{"entity":{"FIRST_NAME":"Zoë"}}',
}


def test_payloads_are_passed_on():
    """A list of payloads comes out equal, as a new list."""
    payloads = [PAYLOAD, {**PAYLOAD, "message_id": "msg_2"}]
    assert check_payloads(payloads) == payloads
    assert check_payloads(tuple(payloads)) == payloads
    assert check_payloads(payloads) is not payloads
    assert check_payloads([]) == []


@pytest.mark.parametrize("value", [None, "text", 5, PAYLOAD])
def test_what_is_no_list_of_payloads_is_refused(value):
    """InvalidPayload names the type of the value."""
    with pytest.raises(InvalidPayload) as caught:
        check_payloads(value)
    assert caught.value.where == "payloads"
    assert caught.value.reason == f"a list of payloads is needed, not {type(value).__name__}"


def test_the_address_of_an_xcom_is_no_list_of_payloads():
    """If an XCom's file is missing, Airflow's object storage backend gives its address: the error says so."""
    address = "file:///var/xcoms/dag/run/build/1.json"
    with pytest.raises(InvalidPayload, match=r"address of its file.*clear the task") as caught:
        check_payloads(address)
    assert address not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([PAYLOAD], "a payload is needed, not list (for chunks, use .expand(payloads=…))"),
        ({}, "it lacks 'message_id', 'record_type', 'record_id', 'event', 'changed_at', 'body'"),
        ({**PAYLOAD, "message_id": 2}, "its message_id must be 1 to 64 letters, digits, '_' or '-'"),
        ({**PAYLOAD, "message_id": "m.2"}, "its message_id must be 1 to 64 letters, digits, '_' or '-'"),
        ({**PAYLOAD, "message_id": "m" * 65}, "its message_id must be 1 to 64 letters, digits, '_' or '-'"),
        ({**PAYLOAD, "record_type": "x\nforged"}, "its record_type or event is not one of Insightly's"),
        ({**PAYLOAD, "event": "deleted"}, "its record_type or event is not one of Insightly's"),
        ({**PAYLOAD, "record_id": {"FIRST_NAME": "Zoë"}}, "its record_id must be a number"),
        ({**PAYLOAD, "message_id": "msg_2", "body": {"FIRST_NAME": "Zoë"}}, "its body must be text"),
        (PAYLOAD, "an earlier payload has the same message_id: give each its own"),
    ],
)
def test_what_is_no_payload_is_refused(payload, reason):
    """InvalidPayload names the payload and what is wrong, without the contents of its body."""
    with pytest.raises(InvalidPayload) as caught:
        check_payloads([PAYLOAD, payload])
    assert (caught.value.where, caught.value.reason) == ("payloads[1]", reason)
    assert "Zoë" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(Payload.__required_keys__))
def test_a_payload_that_lacks_a_key_is_refused(key):
    """Every key of a payload is needed; the missing one is named."""
    with pytest.raises(InvalidPayload) as caught:
        check_payloads([{name: value for name, value in PAYLOAD.items() if name != key}])
    assert caught.value.reason == f"it lacks {key!r}"


def test_the_public_date_functions_are_those_of_dates():
    """Users find them next to build_body."""
    assert format_ms_date(api_time("2017-03-10 08:00:00")) == "/Date(1489132800000-0800)/"
    assert parse_ms_date("/Date(1489132800000-0800)/") == api_time("2017-03-10 08:00:00")
