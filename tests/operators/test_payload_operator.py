"""The build task."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import pytest
from airflow.sdk import DAG, task_group

from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.errors import InvalidChange
from airflow_insightly_hooks.core.exact_json import dumps, loads
from airflow_insightly_hooks.core.payload import check_payloads
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyUnreachable
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged, TaskInstance, run_context

CHANGED_AT = "2017-03-10T08:00:00Z"


def change(number: int = 1, record_type: str = "Contacts", **fields: Any) -> dict[str, Any]:
    record = {"CONTACT_ID": number, "FIRST_NAME": "Zoë", "DATE_CREATED_UTC": "2017-03-10 08:00:00"} | fields
    return {
        "record_type": record_type,
        "record_id": number,
        "event": "added",
        "changed_at": CHANGED_AT,
        "record": record,
    }


def custom(name: str, value: Any) -> dict[str, Any]:
    return {"FIELD_NAME": name, "FIELD_VALUE": value, "CUSTOM_FIELD_ID": name}


def build(changes: Any, **arguments: Any) -> Any:
    context = run_context(ti=TaskInstance("my_dag", "build"))
    return BuildPayloadOperator(task_id="build", changes=changes, **arguments).execute(context)


def test_payload(logged: Logged) -> None:
    """A payload says which change it belongs to, and has the exact body."""
    (payload,) = build([change(7)])
    assert payload == {
        "message_id": message_id("my_dag/build", "Contacts", 7, "added", CHANGED_AT),
        "record_type": "Contacts",
        "record_id": 7,
        "event": "added",
        "changed_at": CHANGED_AT,
        "body": '{"entity":{"CONTACT_ID":7,"FIRST_NAME":"Zoë",'
        '"DATE_CREATED_UTC":"\\/Date(1489132800000-0800)\\/"}}',
    }
    assert logged.messages("info") == [f"1 payload built, {len(payload['body'])} characters in all"]
    assert "Zoë" not in logged.text


def test_options() -> None:
    """Fields, dates, time zone and envelope follow the arguments."""
    assert build([change()], date_format="iso8601", envelope="contact")[0]["body"] == (
        '{"contact":{"CONTACT_ID":1,"FIRST_NAME":"Zoë","DATE_CREATED_UTC":"2017-03-10T08:00:00Z"}}'
    )
    body = build([change()], fields=["DATE_CREATED_UTC", "NONE"], timezone="Europe/Paris", envelope="")
    assert body[0]["body"] == '{"DATE_CREATED_UTC":"\\/Date(1489132800000+0100)\\/","NONE":null}'


def test_order_and_ids() -> None:
    """Payloads keep the changes' order. Each has its own id, which never changes."""
    changes = [change(3), change(1), change(2)]
    payloads = build(changes)
    assert [payload["record_id"] for payload in payloads] == [3, 1, 2]
    assert len({payload["message_id"] for payload in payloads}) == 3
    assert build(changes) == payloads


def test_workflow() -> None:
    """The id depends on the workflow's name; without one, on DAG and task."""
    own = build([change()], workflow="new contacts")[0]["message_id"]
    assert own == message_id("new contacts", "Contacts", 1, "added", CHANGED_AT)
    assert own != build([change()])[0]["message_id"]


@pytest.mark.parametrize(
    ("count", "chunk_size", "sizes"),
    [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (2, 5, [2]), (1, 1, [1]), (0, 2, [])],
)
def test_chunks(count: int, chunk_size: int, sizes: list[int]) -> None:
    """Each chunk but the last has the requested length, and no payload is lost."""
    changes = [change(number) for number in range(count)]
    chunks = build(changes, chunk_size=chunk_size)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [payload for chunk in chunks for payload in chunk] == build(changes)


def test_separate_chunks() -> None:
    """Each chunk has its own XCom. The mapped list only refers to them, and has no contents."""
    changes = [change(number) for number in range(5)]
    ti = TaskInstance(task_id="build")
    operator = BuildPayloadOperator(
        task_id="build", changes=changes, chunk_size=2, separate_chunks=True, custom_date_fields=[]
    )
    references = operator.execute(run_context(ti=ti))
    assert references == [
        {"chunk": f"chunk_{number}", "task_id": "build", "map_index": -1, "count": count}
        for number, count in enumerate((2, 2, 1))
    ]
    pushed = [payload for number in range(3) for payload in ti.xcom[f"chunk_{number}"]]
    assert pushed == build(changes, workflow="dag/build")
    assert "Zoë" not in str(references)


# --- custom fields that hold dates -----------------------------------------------------------------------


def test_custom_dates(insightly: RunningSandbox) -> None:
    """Insightly is asked once for each record type which custom fields are dates."""
    insightly.reset()
    contact = {
        "CUSTOMFIELDS": [custom("Customer_since__c", "2017-03-10 08:00:00"), custom("Nickname__c", "Z")]
    }
    payloads = build([change(1, **contact), change(2, **contact), change(3, record_type="Tasks")])
    entity = json.loads(payloads[0]["body"])["entity"]
    assert [field["FIELD_VALUE"] for field in entity["CUSTOMFIELDS"]] == ["/Date(1489132800000-0800)/", "Z"]
    asked = {path: n for path, n in insightly.configure()["requests"].items() if "CustomFields" in path}
    assert asked == {"GET /v3.1/CustomFields/Contacts": 1}


def test_custom_days(insightly: RunningSandbox) -> None:
    """If the custom field's type is DATE, midnight is that day in the zone.

    With DATETIME, it is an instant.
    """
    day, time = (
        custom("Customer_since__c", "2017-03-10 00:00:00"),
        custom("Next_call__c", "2017-03-10 00:00:00"),
    )
    (contact,) = build([change(1, CUSTOMFIELDS=[day])])
    assert r"\/Date(1489132800000-0800)\/" in contact["body"]
    (contact,) = build([change(1, CUSTOMFIELDS=[day])], timezone="Asia/Kathmandu", date_format="microsoft")
    assert r"\/Date(1489083300000+0545)\/" in contact["body"]
    (lead,) = build([change(1, "Leads", CUSTOMFIELDS=[time])])
    assert r"\/Date(1489104000000-0800)\/" in lead["body"]


@pytest.mark.parametrize("fields", [{}, {"CUSTOMFIELDS": []}, {"CUSTOMFIELDS": None}])
def test_custom_dates_are_not_asked_for(fields: dict[str, Any]) -> None:
    """If no record has a custom field, Insightly isn't asked, and no connection is needed."""
    assert build([change(**fields)], insightly_conn_id="missing")


def test_named_custom_dates() -> None:
    """Custom fields that are named as dates are written as dates, and Insightly isn't asked."""
    fields = {"CUSTOMFIELDS": [custom("Since__c", "2017-03-10"), custom("Born__c", "2017-03-10")]}
    (payload,) = build([change(**fields)], custom_date_fields=["Since__c"], insightly_conn_id="missing")
    values = [f["FIELD_VALUE"] for f in json.loads(payload["body"])["entity"]["CUSTOMFIELDS"]]
    assert values == ["/Date(1489132800000-0800)/", "2017-03-10"]
    assert build([change(**fields)], custom_date_fields=[], insightly_conn_id="missing")


def test_custom_dates_cannot_be_asked_for(
    insightly: RunningSandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Insightly does not answer, the task fails. It doesn't send dates in another form."""

    monkeypatch.setattr(InsightlyHook, "quick_retries", 0)
    insightly.configure(fault={"path": "/v3.1/CustomFields/Contacts", "status": 500})
    with pytest.raises(InsightlyUnreachable):
        build([change(CUSTOMFIELDS=[custom("Since__c", "2017-03-10")])])


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"date_format": "unix"}, ValueError),
        ({"timezone": "Mars/Olympus"}, ZoneInfoNotFoundError),
        ({"timezone": "../etc/passwd"}, ZoneInfoNotFoundError),
        ({"chunk_size": 0}, ValueError),
        ({"chunk_size": -1}, ValueError),
        ({"separate_chunks": True}, ValueError),
        ({"fields": "FIRST_NAME"}, ValueError),
        ({"custom_date_fields": "Since__c"}, ValueError),
    ],
)
def test_refused_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    """Invalid arguments are refused when the DAG is parsed."""
    with pytest.raises(error):
        BuildPayloadOperator(task_id="build", changes=[], **arguments)


def test_refused_rendered_fields() -> None:
    """If a template of ``fields`` renders to text, it is refused, not split into letters."""
    operator = BuildPayloadOperator(task_id="build", changes=[change()], fields="{{ params.fields }}")
    operator.fields = "['CONTACT_ID']"
    with pytest.raises(ValueError, match="render_template_as_native_obj"):
        operator.execute(run_context())


def test_refused_changes() -> None:
    """Anything but a list of changes is refused."""
    with pytest.raises(InvalidChange):
        build([{"record_type": "Contacts"}])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"BUDGET": float("nan")}, "BUDGET: a number that is not finite cannot be sent as JSON"),
        ({"CUSTOMFIELDS": [None]}, "CUSTOMFIELDS[0]: it must be an object, not null"),
        ({"CUSTOMFIELDS": [{"FIELD_NAME": []}]}, "CUSTOMFIELDS[0].FIELD_NAME: it must be text, not list"),
        ({"DATES": ["Zoë"]}, "DATES[0]: it must be an object, not text"),
        ({"A": loads("[" * 950 + "]" * 950)}, "A: its values nest deeper than 100 levels"),
    ],
)
def test_one_record_that_no_body_can_be_built_of(
    fields: dict[str, Any], reason: str, insightly: RunningSandbox, logged: Logged
) -> None:
    """Its placeholder is never sent, and gives the reason without contents. The other payloads are built."""
    first, bad, last = build([change(1), change(2, **fields), change(3)])
    assert bad == {**build([change(2)])[0], "body": "", "undeliverable": reason}
    assert [first, last] == build([change(1), change(3)])
    assert logged.messages("error") == [f"Contacts 2 can't be delivered: {reason}"]
    assert "Zoë" not in logged.text


def test_what_was_found_undeliverable_before_is_passed_on() -> None:
    """The payload has the earlier task's reason."""
    given = {**change(2), "record": {}, "undeliverable": "its time is none"}
    (payload,) = build([given])
    assert (payload["undeliverable"], payload["body"]) == ("its time is none", "")
    assert check_payloads([payload]) == [payload]


def test_numbers_are_sent_as_they_were_written() -> None:
    """This also holds if a store changes such numbers on the way."""
    record = loads(
        '{"CONTACT_ID": 1, "A": 1234567890123456.78, "B": 1.10, "C": 1e400, "D": 18446744073709551616}'
    )
    (payload,) = build([storable({**change(1), "record": record})])
    assert payload["body"] == '{"entity":' + dumps(record) + "}"


def test_template_fields() -> None:
    """These fields are rendered."""
    assert BuildPayloadOperator.template_fields == ("changes", "fields", "envelope", "workflow")
    operator = BuildPayloadOperator(
        task_id="build",
        changes=[change()],
        fields=["{{ name }}"],
        envelope="{{ name }}",
        workflow="{{ name }}",
    )
    context = run_context(name="FIRST_NAME")
    operator.render_template_fields(context)
    (payload,) = operator.execute(context)
    assert payload["body"] == '{"FIRST_NAME":{"FIRST_NAME":"Zoë"}}'
    assert payload["message_id"] == message_id("FIRST_NAME", "Contacts", 1, "added", CHANGED_AT)


@pytest.mark.parametrize(
    ("is_of_group", "scope"), [(True, "dag/of_city.build/1"), (False, "dag/of_city.build")]
)
def test_map_indexes_of_a_group_name_their_messages_apart(is_of_group: bool, scope: str) -> None:
    """By default each is a workflow of its own. A named workflow's mapped tasks share its changes."""
    with DAG("dag", schedule=None):

        @task_group
        def of_city(city: Any) -> None:
            BuildPayloadOperator(task_id="build", changes=[change()], fields=city)

        group = (
            of_city.expand(city=[["FIRST_NAME"], ["LAST_NAME"]]) if is_of_group else of_city(["FIRST_NAME"])
        )
    operator = group.children["of_city.build"]
    operator.fields = None
    context = run_context(ti=TaskInstance(task_id="of_city.build"))
    context["ti"].map_index = 1
    (payload,) = operator.execute(context)
    assert payload["message_id"] == message_id(scope, "Contacts", 1, "added", CHANGED_AT)
