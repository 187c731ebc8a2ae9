"""What a connection of type ``insightly_incoming`` may contain."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.hooks.incoming import IncomingSettings, InsightlyIncomingHook
from tests.conftest import Connect, Logged

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
COMPLETE = {"login": "insightly", "password": "correct horse"}


def settings(connect: Connect, **fields: Any) -> IncomingSettings:
    connect("crm", "insightly_incoming", **{**COMPLETE, **fields})
    return InsightlyIncomingHook("crm").get_conn()


def test_defaults(connect: Connect) -> None:
    assert settings(connect) == IncomingSettings(
        login="insightly",
        password="correct horse",
        insightly_conn_id="insightly_default",
        record_types=None,
        signer=None,
        max_body_bytes=1_000_000,
        requests_per_minute=6_000,
    )


def test_extra(connect: Connect) -> None:
    """Fields may have JSON types, or be text from a form."""
    extra = {
        "insightly_conn_id": "crm_api",
        "record_types": " Contacts,Tasks  Invoice__c, ",
        "signing_secret": f"{SECRET} {SECRET}",
        "max_body_bytes": "5000",
        "requests_per_minute": 0,
    }
    found = settings(connect, extra=extra)
    assert found.insightly_conn_id == "crm_api"
    assert found.record_types == {"Contacts", "Tasks", "Invoice__c"}
    assert found.signer is not None
    assert (found.max_body_bytes, found.requests_per_minute) == (5_000, 0)
    assert found.accepts("Tasks")
    assert not found.accepts("Leads")


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"login": ""}, "login", "it is empty"),
        ({"password": None}, "password", "it is empty"),
        ({"login": "a:b"}, "login", "no colon"),
        ({"extra": {"record_types": "Contact"}}, "extra.record_types", "Contacts"),
        ({"extra": {"record_types": "Contacts; Tasks"}}, "extra.record_types", "Contacts;"),
        ({"extra": {"signing_secret": "whsec_c2hvcnQ="}}, "extra.signing_secret", "at least 24 bytes"),
        ({"extra": {"signing_secret": "not base64!"}}, "extra.signing_secret", "base64"),
        ({"extra": {"signing_secret": "  "}}, "extra.signing_secret", "white space"),
        ({"extra": {"max_body_bytes": 0}}, "extra.max_body_bytes", "from 1 to"),
        ({"extra": {"requests_per_minute": 0.5}}, "extra.requests_per_minute", "whole number"),
        ({"extra": {"record_type": "Contacts"}}, "extra.record_type", "record_types"),
        ({"extra": "[]"}, "extra", "JSON object"),
    ],
)
def test_invalid(connect: Connect, fields: dict[str, Any], field: str, reason: str, logged: Logged) -> None:
    """The error names the invalid field, and shows no secret."""
    with pytest.raises(InvalidConnection) as refused:
        settings(connect, **fields)
    assert refused.value.field == field
    assert reason in str(refused.value)
    for secret in ("correct horse", "c2hvcnQ"):
        assert secret not in str(refused.value) + logged.text


def test_another_type(connect: Connect) -> None:
    connect("crm", "insightly_webhook", **COMPLETE)
    with pytest.raises(InvalidConnection, match="'insightly_incoming' is needed"):
        InsightlyIncomingHook("crm").get_conn()


def test_representation(connect: Connect) -> None:
    """The settings' repr has neither credentials nor secrets."""
    shown = repr(settings(connect, extra={"signing_secret": SECRET}))
    for secret in ("correct horse", "'insightly'", SECRET, SECRET[6:]):
        assert secret not in shown


def test_test_connection(connect: Connect) -> None:
    """The button "Test" says what is accepted, or what is wrong."""
    connect("crm", "insightly_incoming", **COMPLETE, extra={"record_types": "Tasks Contacts"})
    is_good, text = InsightlyIncomingHook("crm").test_connection()
    assert is_good
    assert "webhooks of Contacts, Tasks can be sent" in text
    connect("crm", "insightly_incoming", login="insightly")
    is_good, text = InsightlyIncomingHook("crm").test_connection()
    assert not is_good
    assert "password" in text
    assert not InsightlyIncomingHook("missing").test_connection()[0]
