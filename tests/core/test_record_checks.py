"""From which records a body can be built."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.record_checks import check_record
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import exact_values

LISTS = ("CUSTOMFIELDS", "DATES")


@pytest.mark.parametrize(
    ("field", "value", "where", "reason"),
    [
        ("CUSTOMFIELDS", [None], "CUSTOMFIELDS[0]", "it must be an object, not null"),
        ("CUSTOMFIELDS", ["x"], "CUSTOMFIELDS[0]", "it must be an object, not text"),
        ("CUSTOMFIELDS", {"FIELD_NAME": "A__c"}, "CUSTOMFIELDS", "it must be a list, not object"),
        ("CUSTOMFIELDS", {}, "CUSTOMFIELDS", "it must be a list, not object"),
        ("CUSTOMFIELDS", "", "CUSTOMFIELDS", "it must be a list, not text"),
        ("CUSTOMFIELDS", [{"FIELD_NAME": []}], "CUSTOMFIELDS[0].FIELD_NAME", "it must be text, not list"),
        ("CUSTOMFIELDS", [{}], "CUSTOMFIELDS[0].FIELD_NAME", "it must be text, not absent"),
        ("DATES", [{}, None], "DATES[1]", "it must be an object, not null"),
        ("DATES", 5, "DATES", "it must be a list, not number"),
        ("AMOUNT", float("nan"), "AMOUNT", "a number that is not finite cannot be sent as JSON"),
    ],
)
def test_what_no_body_can_be_built_of(field, value, where, reason):
    """The check refuses the same records as build_body, with the same message, without contents."""
    for refuse in (check_record, build_body):
        with pytest.raises(InvalidPayload) as caught:
            refuse({"CONTACT_ID": 7, "FIRST_NAME": "Zoë", field: value})
        assert (caught.value.where, caught.value.reason) == (where, reason)


@given(st.dictionaries(st.sampled_from([*LISTS, *RECORD_TYPES["Contacts"].fields]), exact_values, max_size=6))
def test_a_record_that_passes_has_a_body(record: dict[str, Any]):
    """For any JSON in each field, the check says whether a body can be built. No other error is raised."""
    try:
        check_record(record)
    except InvalidPayload:
        with pytest.raises(InvalidPayload):
            build_body(record, record_type="Contacts")
    else:
        body = build_body(record, record_type="Contacts")
        assert list(json.loads(body)["entity"]) == list(record)
        build_body(record, record_type="Contacts", fields=[*record, "A__c"])
