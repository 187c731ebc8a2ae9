"""The example in docs/reference/messages.md is the message that is really sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.payload import build_payload
from airflow_insightly_hooks.hooks import webhook
from airflow_insightly_hooks.hooks.post.receiver import PROTECTED_HEADERS
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from tests.conftest import Connect
from tests.servers import Request, answer, serving

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "messages.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SECRET = "whsec_bWFkZS11cCBzZWNyZXQgb2YgdGhlIGRvY3M="
SENT_AT = 1769846412
RECORD: dict[str, Any] = {
    "CONTACT_ID": 7,
    "FIRST_NAME": "Zoë",
    "LAST_NAME": "Martin",
    "DATE_CREATED_UTC": "2026-01-31 08:00:00",
    "DATE_UPDATED_UTC": "2026-01-31 08:00:00",
    "CUSTOMFIELDS": [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "North"}],
    "TAGS": [{"TAG_NAME": "new"}],
}
CHANGE: RecordChange = {
    "record_type": "Contacts",
    "record_id": 7,
    "event": "added",
    "changed_at": "2026-01-31T08:00:00Z",
    "record": RECORD,
}


@pytest.fixture
def received(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Return the page's request as a receiver gets it."""
    payload = build_payload(CHANGE, "new_french_contacts/Billing", RECORD)
    monkeypatch.setattr(webhook.time, "time", lambda: SENT_AT + 0.5)
    with serving([answer()]) as server:
        extra = {"signing_secret": SECRET}
        connect("receiver", host=f"{server.url}/insightly", login="insightly", password="secret", extra=extra)
        sent = WebhookHook("receiver").send(payload["body"], message_id=payload["message_id"])
    assert sent.acknowledged
    return server.requests[0]


def test_the_example_is_a_real_request(received: Request) -> None:
    """Its lines, their order and its body are those of a POST. Only host and version are the page's own."""
    head = re.sub(r"Host: \S+", "Host: billing.example.com", received.head.decode())
    head = re.sub(r"(airflow-insightly-hooks/)\S+", r"\1VERSION", head)
    assert f"{head}\n\n{received.body.decode()}\n" == BLOCKS["http"].replace("\n", "\r\n", head.count("\n"))


def test_every_header_has_a_row(received: Request) -> None:
    """The table has each header of the request. The text names each header that users can't set."""
    rows = " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))
    assert [name for name, _ in received.header_lines if f"`{name}`" not in rows.lower()] == []
    assert [name for name in PROTECTED_HEADERS if f"`{name}`" not in PAGE.lower()] == []


def test_the_code_verifies_the_example(received: Request) -> None:
    """It verifies with the secret, not with another one, and not with a changed body."""
    names: dict[str, Any] = {}
    exec(BLOCKS["python"], names)  # noqa: S102 — the page's own
    is_signed = names["is_signed"]
    assert is_signed(SECRET, received.headers, received.body)
    assert not is_signed(SECRET, received.headers, received.body + b" ")
    assert not is_signed("whsec_" + "A" * 40, received.headers, received.body)


def test_the_dates_are_what_the_body_holds() -> None:
    """The page's dates are right, in both formats, with and without a time."""
    (_, day), iso = (
        re.findall(rf"^\| {kind} \| .*", PAGE, re.MULTILINE)[0].split("With `iso8601`: ")
        for kind in ("a date without a time", "a date with a time")
    )
    record = {"DUE_DATE": "2026-01-31", "START_DATE": "2026-01-31 08:00:00"}
    task: RecordChange = {**CHANGE, "record_type": "Tasks", "record": record}
    microsoft, iso8601 = (
        json.loads(build_payload(task, "w", record, date_format=date_format)["body"])["entity"]
        for date_format in ("microsoft", "iso8601")
    )
    assert microsoft["DUE_DATE"].replace("/", r"\/") in PAGE
    assert microsoft["START_DATE"].replace("/", r"\/") in iso[0]
    assert iso8601["DUE_DATE"] in day
    assert iso8601["START_DATE"] in iso[1]
