"""The made-up record for testing receivers."""

from __future__ import annotations

import json

import pytest

from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.record_checks import check_record
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.sample_record import sample_record


@pytest.mark.parametrize("name", [*RECORD_TYPES, "Invoice__c"])
def test_every_record_type_has_a_sample(name: str) -> None:
    """It has all fields in the API's order. Its texts fit, and say that they are made up."""
    record = sample_record(name)
    fields = RECORD_TYPES[name].fields
    assert list(record) == list(fields)
    check_record(record)
    for field, value in record.items():
        if isinstance(value, str) and fields[field].kind == "text":
            assert len(value) <= (fields[field].length or 1000)
            assert value.lower().startswith("test"[: fields[field].length]) or "example.com" in value
    assert list(json.loads(build_body(record, record_type=name))["entity"]) == list(fields)
