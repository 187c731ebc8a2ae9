"""What a workflow would do with one record."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.exact_json import loads

RECORD = {
    "CONTACT_ID": 7,
    "FIRST_NAME": "Zoë",
    "DATE_CREATED_UTC": "2017-03-10 08:00:00",
    "DATE_UPDATED_UTC": "2017-03-11 08:00:00",
}
NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


def workflow(*webhooks: Webhook, **arguments: Any) -> Workflow:
    return Workflow(
        name="New contact",
        record_type=arguments.pop("record_type", "Contacts"),
        webhooks=list(webhooks) or [Webhook(name="Billing", conn_id="billing")],
        **arguments,
    )


def test_a_record_as_added_and_as_updated() -> None:
    """Each event has its own verdict, time and id; the first that triggers is shown."""
    found = workflow(evaluate="created").preview(RECORD)
    assert [(change.event, change.verdict.triggers) for change in found.changes] == [
        ("added", True),
        ("updated", False),
    ]
    assert found.triggers
    assert found.shown is found.changes[0]
    assert [change.verdict.change["changed_at"] for change in found.changes] == [
        "2017-03-10T08:00:00Z",
        "2017-03-11T08:00:00Z",
    ]
    (message,) = found.shown.messages
    assert message.payload["message_id"] == message_id(
        "new_contact/Billing", "Contacts", 7, "added", "2017-03-10T08:00:00Z"
    )
    assert (message.due, message.not_sent) == (None, None)


def test_one_event() -> None:
    """With ``event``, the record is only judged for that event."""
    found = workflow(evaluate="created").preview(RECORD, event="updated")
    assert [change.event for change in found.changes] == ["updated"]
    assert not found.triggers
    assert "evaluate is 'created'" in str(found.shown.verdict.reason)


def test_record_types_without_updates_are_added_only() -> None:
    """Insightly's API has no update time of e-mails."""
    found = workflow(record_type="Emails", evaluate="created").preview({"EMAIL_ID": 3}, now=NOW)
    assert [change.event for change in found.changes] == ["added"]


def test_an_inactive_workflow_is_previewed_as_if_it_were_active() -> None:
    """A preview shows what happens before the workflow is activated."""
    assert workflow(active=False).preview(RECORD).triggers


def test_the_body_is_that_of_the_webhook() -> None:
    """Fields, envelope and dates are written as the webhook says; numbers as they are in the record."""
    webhook = Webhook(
        name="w",
        conn_id="c",
        fields=["CONTACT_ID", "DATE_CREATED_UTC", "Since__c", "Share__c"],
        envelope="",
        date_format="iso8601",
    )
    custom = loads(
        '[{"FIELD_NAME": "Since__c", "FIELD_VALUE": "2020-05-01 00:00:00"}, '
        '{"FIELD_NAME": "Share__c", "FIELD_VALUE": 1.10}]'
    )
    found = workflow(webhook).preview(
        RECORD | {"CUSTOMFIELDS": custom}, custom_date_fields={"Since__c"}, custom_day_fields={"Since__c"}
    )
    assert found.shown.messages[0].payload["body"] == (
        '{"CONTACT_ID":7,"DATE_CREATED_UTC":"2017-03-10T08:00:00Z","Since__c":"2020-05-01","Share__c":1.10}'
    )


def test_time_triggers() -> None:
    """Each webhook shows when it is due. If its date is empty, it says that it is not sent."""
    found = workflow(
        Webhook(name="now", conn_id="c"),
        Webhook(name="later", conn_id="c", after="3d"),
        Webhook(name="before", conn_id="c", before="1d", field="DATE_OF_BIRTH"),
        Webhook(name="at", conn_id="c", field="Renewal__c"),
    ).preview(RECORD | {"DATE_OF_BIRTH": "2000-01-02 00:00:00"})
    assert [(m.due.isoformat() if m.due else None, m.not_sent) for m in found.shown.messages] == [
        (None, None),
        ("2017-03-13T08:00:00+00:00", None),
        ("2000-01-01T00:00:00+00:00", None),
        (None, "Renewal__c is empty"),
    ]


def test_relative_dates() -> None:
    """They are relative to the change's own time, or to ``now``."""
    made = workflow(criteria={"field": "DATE_UPDATED_UTC", "operator": "within_last", "value": "2d"})
    assert [change.verdict.triggers for change in made.preview(RECORD).changes] == [False, True]
    assert not made.preview(RECORD, now=NOW).triggers


def test_a_record_that_can_not_be_delivered() -> None:
    """It does not trigger, and says why. Nothing of it would be sent."""
    found = workflow().preview(RECORD | {"CUSTOMFIELDS": "none"})
    assert not found.triggers
    assert "it can't be delivered" in str(found.shown.verdict.reason)
    assert found.shown.messages[0].not_sent is not None


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"LEAD_ID": 1}, InvalidPayload, "no usable CONTACT_ID"),
        ({"CONTACT_ID": "1"}, InvalidPayload, "no usable CONTACT_ID"),
        ({"CONTACT_ID": 1}, InvalidPayload, "neither DATE_CREATED_UTC nor DATE_UPDATED_UTC"),
        ({"CONTACT_ID": 1, "DATE_CREATED_UTC": "secret"}, InvalidTime, "Contacts.DATE_CREATED_UTC"),
    ],
)
def test_what_is_no_record(record: dict[str, Any], error: type[Exception], message: str) -> None:
    """A value that is no record of the workflow's type is refused. The error doesn't show its contents."""
    with pytest.raises(error, match=message) as raised:
        workflow().preview(record)
    assert "secret" not in str(raised.value)


def test_a_record_without_times() -> None:
    """The caller says when it changed."""
    (added, updated) = workflow().preview({"CONTACT_ID": 1}, now=NOW).changes
    assert (
        added.verdict.change["changed_at"] == updated.verdict.change["changed_at"] == "2026-01-31T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("condition", "shown", "plain"),
    [
        ({"field": "AGE__c", "operator": "equals", "value": 1.5}, "equals 1.5: not met (it is 7)", (1.5, 7)),
        ({"field": "VIP__c", "operator": "is_blank"}, "is_blank: not met (it is true)", (None, True)),
        ({"field": "NONE__c", "operator": "is_blank"}, "is_blank: met (it is blank)", (None, None)),
        ({"field": "SALUTATION", "operator": "is_blank"}, "is_blank: met (it is blank)", (None, "")),
        (
            {"field": "TAGS", "operator": "contains", "value": "a"},
            "'a': met (it is ['a', 'b'])",
            ("a", ["a", "b"]),
        ),
        ({"field": "LINKS.ROLE", "operator": "is_blank"}, "is_blank: met (it is blank)", (None, [])),
        (
            {"field": "DATE_UPDATED_UTC", "operator": "within_last", "value": timedelta(days=1)},
            "within_last '1 day, 0:00:00': met (it is '2017-03-11 08:00:00')",
            ("1 day, 0:00:00", "2017-03-11 08:00:00"),
        ),
        (
            {"field": "LAST_NAME", "operator": "in", "value": list("abcdefghijkl")},
            "'i', 'j', ...]: not met (it is 'A\\x1b')",
            (list("abcdefghijkl"), "A\x1b"),
        ),
        ({"field": "BIG__c", "operator": "is_blank"}, "(it is '1E400')", (None, "1E400")),
    ],
)
def test_what_was_compared(condition: dict[str, Any], shown: str, plain: tuple[Any, Any]) -> None:
    """The condition's value and the record's are in the explanation, in a form that JSON can hold."""
    custom = {"AGE__c": 7, "VIP__c": True, "BIG__c": loads("1E400")}
    record = {
        **RECORD,
        "LAST_NAME": "A\x1b",
        "SALUTATION": "",
        "CUSTOMFIELDS": [{"FIELD_NAME": name, "FIELD_VALUE": value} for name, value in custom.items()],
        "TAGS": [{"TAG_NAME": "a"}, {"TAG_NAME": "b"}],
    }
    change = workflow(criteria=condition).preview(record, event="updated").shown
    (line,) = change.verdict.explained(change.compared)
    assert line.endswith(shown)
    (compared,) = change.compared
    assert tuple(compared.plain().values()) == plain
    assert not any(str(value) in str(change.verdict._replace(change={})) for value in ("A\x1b", "1E400"))
