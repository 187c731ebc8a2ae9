"""The page that previews a workflow with one record, and sends the message to a receiver as a test."""

from __future__ import annotations

import html
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.models.log import Log
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.ui import preview_result
from tests.conftest import API_KEY, Connect
from tests.metadata_database import add_dag
from tests.servers import answer, serving
from tests.ui.conftest import Login, Refuse
from tests.ui.html import text_of

PASSWORD = "hunter2-password"
HEADER = "hunter2-header-value"
SIGNING = "whsec_" + "QUFB" * 8
QUERY = "hunter2-query-value"
SECRETS = (PASSWORD, HEADER, SIGNING, QUERY, API_KEY)
KEY = "new_contact/evaluate"
SCRIPT = "<script>alert(1)</script>"

CRITERIA = {
    "all": [
        {"field": "FIRST_NAME", "operator": "is_not_blank"},
        {
            "any": [
                {"field": "LAST_NAME", "operator": "equals", "value": "Nobody"},
                {"conditions": [{"field": "TITLE", "operator": "equals", "value": "CEO"}], "logic": "NOT 1"},
            ]
        },
        {"none": [{"field": "EMAIL_ADDRESS", "operator": "contains", "value": "@example.org"}]},
    ]
}
PERSON = {
    "CONTACT_ID": 7,
    "FIRST_NAME": "Ann",
    "LAST_NAME": "Smith",
    "TITLE": "CTO",
    "EMAIL_ADDRESS": "ann@example.com",
    "DATE_CREATED_UTC": "2026-01-01 08:00:00",
    "DATE_UPDATED_UTC": "2026-01-02 08:00:00",
}


def workflow(**arguments: Any) -> Workflow:
    webhook = {"name": "Billing", "conn_id": "billing"}
    return Workflow(**{"name": "New contact", "record_type": "Contacts", "webhooks": [webhook], **arguments})


@pytest.fixture
def stored(session: Session) -> Callable[..., None]:
    """Have Airflow know a workflow's DAG."""
    return lambda **arguments: add_dag(session, workflow(**arguments).to_dag(auto_register=False))


@pytest.fixture
def receiver(insightly: RunningSandbox, connect: Connect) -> str:
    """The name of a request bin, with the connection ``billing`` leading to it."""
    connect(
        "billing",
        host=insightly.bin_url("billing"),
        login="me",
        password=PASSWORD,
        extra={"headers": {"X-Api-Key": HEADER}, "signing_secret": SIGNING},
    )
    return "billing"


def asked(client: TestClient, **fields: Any) -> Any:
    return client.post("/insightly/preview", data={"workflow": KEY, **fields})


def pasted(**changed: Any) -> str:
    return json.dumps({**PERSON, **changed})


# --- the form ----------------------------------------------------------------------------------------------


def test_the_form_offers_the_workflows(login: Login, stored: Callable[..., None]) -> None:
    """They are listed by name. The workflow that the address names is selected."""
    stored()
    stored(name="Other")
    page = login().get("/insightly/preview?workflow=other/evaluate&record_id=7").text
    assert '<option value="new_contact/evaluate">New contact (Contacts, new_contact)</option>' in page
    assert '<option value="other/evaluate" selected>' in page
    assert 'value="7"' in page
    assert "selected>New contact" in login().get("/insightly/preview?dag_id=new_contact").text


def test_without_workflows_it_says_so(login: Login) -> None:
    answer = login().get("/insightly/preview")
    assert answer.status_code == 200
    assert "There is no workflow to preview" in answer.text
    assert "<form" not in answer.text


def test_workflows_that_cannot_be_read_are_listed_with_the_reason(login: Login, session: Session) -> None:
    dag = workflow().to_dag(auto_register=False)
    dag.task_dict["evaluate"].doc_yaml = None
    add_dag(session, dag)
    page = text_of(login().get("/insightly/preview").text)
    assert "1 workflow can't be previewed here" in page
    assert "an earlier version of this package" in page
    answer = asked(login(), record=pasted())
    assert answer.status_code == 404
    assert "an earlier version of this package" in answer.text


# --- what would happen -------------------------------------------------------------------------------------


def test_a_record_of_insightly(
    login: Login, stored: Callable[..., None], receiver: str, insightly: RunningSandbox, session: Session
) -> None:
    """It is read with Airflow's credentials. The page shows verdict, headers and exact body, no secret."""
    stored(criteria={"field": "Region__c", "operator": "in", "value": ["Europe", "Asia", "Americas"]})
    records = InsightlyHook(exact_numbers=True).iter_records("Contacts")
    record = next(record for record in records if "Region__c" in json.dumps(record))
    answer = asked(login(), record_id=str(record["CONTACT_ID"]))
    assert answer.status_code == 200
    page = text_of(answer.text)
    assert f"✓ triggers New contact: Contacts {record['CONTACT_ID']}" in page
    assert "✓ met Region__c is one of" in page
    assert f"Receiver {insightly.bin_url('billing')}" in page
    assert "X-Api-Key ***" in page
    assert "webhook-signature (made for each attempt)" in page
    exact = html.unescape(re.findall(r"<pre[^>]*>\n(.*?)</pre>", answer.text, re.DOTALL)[1])
    assert json.loads(exact)["entity"]["CONTACT_ID"] == record["CONTACT_ID"]
    assert r"\/Date(" in exact
    assert f"{len(exact.encode())} bytes" in page.replace(",", "")
    assert [secret for secret in SECRETS if secret in answer.text] == []
    assert answer.headers["cache-control"] == "no-store"
    log = session.scalars(select(Log)).one()
    assert (log.event, log.owner, log.dag_id, log.task_id) == (
        "insightly_preview", "admin", "new_contact", "evaluate",
    )  # fmt: skip
    assert json.loads(str(log.extra)) == {"record_type": "Contacts", "record_id": record["CONTACT_ID"]}


def test_a_workflow_in_one_task(login: Login, stored: Callable[..., None], receiver: str) -> None:
    """It is previewed like any other workflow, although its task has another name."""
    stored(mode="one_task")
    key = "new_contact/detect_and_deliver"
    assert f'<option value="{key}" selected>' in login().get("/insightly/preview?dag_id=new_contact").text
    page = text_of(asked(login(), workflow=key, record=pasted()).text)
    assert "✓ triggers New contact: Contacts 7" in page
    assert "Send this to the receiver as a test" in page


def test_a_record_that_does_not_trigger(login: Login, stored: Callable[..., None], receiver: str) -> None:
    """Each group has its verdict, and the deciding conditions are marked, also in words."""
    stored(criteria=CRITERIA)
    answer = asked(login(), record=pasted(TITLE="CEO"))
    page = text_of(answer.text)
    assert "✕ does not trigger New contact: Contacts 7" in page
    assert "the record does not meet the criteria" in page
    assert "✕ not met all of these hold: ✓ met FIRST_NAME is not blank (it is 'Ann' )" in page
    assert (
        "✕ not met at least one of these holds: "
        "✕ not met LAST_NAME equals 'Nobody' (it is 'Smith' ) ◀ decides "
        "✕ not met NOT 1 holds, of these: ✓ met (1) TITLE equals 'CEO' (it is 'CEO' ) ◀ decides"
    ) in page
    assert "✓ met none of these holds: ✕ not met EMAIL_ADDRESS contains" in page
    assert "If it did, this would be sent" in page
    assert answer.text.count('<li class="culprit">') == 2


def test_both_events_or_one(login: Login, stored: Callable[..., None], receiver: str) -> None:
    """A workflow that looks at new records only triggers as added, not as updated."""
    stored(evaluate="created")
    page = text_of(asked(login(), record=pasted()).text)
    assert "added 2026-01-01 08:00:00 UTC ✓ triggers" in page
    assert "updated 2026-01-02 08:00:00 UTC ✕ does not trigger the record was updated" in page
    page = text_of(asked(login(), record=pasted(), event="updated").text)
    assert "added 2026-01-01" not in page
    assert "✕ does not trigger New contact" in page


def test_relative_dates_are_measured_from_the_time_that_is_given(
    login: Login, stored: Callable[..., None], receiver: str
) -> None:
    """The time is in the user's time zone."""
    stored(criteria={"field": "DATE_CREATED_UTC", "operator": "within_last", "value": "1h"})
    page = text_of(asked(login(), record=pasted()).text)
    assert "Relative dates are measured from each change's own time." in page
    near = {"record": pasted(), "at": "2026-01-01T09:30:00"}
    assert "✕ does not trigger New contact" in text_of(asked(login(), **near).text)
    page = asked(login(), **near, zone="Europe/Paris").text
    assert "✓ triggers New contact" in text_of(page)
    assert "Relative dates are measured from 2026-01-01T08:30:00Z." in page
    assert 'value="2026-01-01T09:30:00"' in page


def test_a_time_trigger_says_when(login: Login, stored: Callable[..., None], receiver: str) -> None:
    stored(webhooks=[{"name": "Later", "conn_id": "billing", "after": "3d"}])
    page = text_of(asked(login(), record=pasted(), event="added").text)
    assert "Later : at 2026-01-04 08:00:00 UTC" in page
    assert "A webhook with a time trigger sends the record as it is when the webhook is due." in page


def test_what_a_record_holds_is_text(login: Login, stored: Callable[..., None], receiver: str) -> None:
    """Markup in a record is shown as text, wherever it is."""
    stored(name=f"New {SCRIPT}", dag_id="new_contact", criteria={**CRITERIA})
    answer = asked(login(), record=pasted(TITLE=SCRIPT, LAST_NAME='"><b>x</b>'))
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "<b>x</b>" not in answer.text
    answer = asked(login(), record=pasted(TITLE=SCRIPT), webhook="billing")
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text


def test_several_webhooks(login: Login, stored: Callable[..., None], receiver: str) -> None:
    """Each is shown with its receiver. A webhook with a masked address has no test."""
    stored(
        webhooks=[
            {"name": "Billing", "conn_id": "billing"},
            {"name": "Masked", "uri": f"https://receiver.example.com/in?key={QUERY}"},
            {"name": "Header", "conn_id": "billing", "headers": {"X-Team": QUERY}},
            {"name": "Template", "uri": "{{ var.value.receiver }}"},
            {"name": "Gone", "conn_id": "missing"},
        ]
    )
    answer = asked(login(), record=pasted())
    assert answer.status_code == 200
    page = text_of(answer.text)
    assert page.count("The exact text") == 5
    assert page.count("this page can't read some values") == 2
    assert "it is a template, which Airflow renders in a task" in page
    assert "The conn_id `missing` isn't defined" in page
    assert re.findall(r'name="webhook" value="(\w+)"', answer.text) == ["billing"]
    assert [secret for secret in SECRETS if secret in answer.text] == []
    for slug in ("masked", "header", "template", "gone"):
        refused = asked(login(), record=pasted(), webhook=slug, confirmed="yes")
        assert refused.status_code == 400


def test_notes_of_the_workflow(login: Login, stored: Callable[..., None], receiver: str) -> None:
    stored(active=False, dry_run=True)
    page = asked(login(), record=pasted()).text
    assert "The workflow is not active: its tasks send nothing until it is active." in page
    assert "The workflow is a dry run" in page


# --- what can't be previewed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"workflow": ""}, 400, "Choose a workflow."),
        ({"workflow": "new_contact/other"}, 404, "does not have this workflow"),
        ({"workflow": "gone/evaluate"}, 404, "does not have this workflow"),
        ({}, 400, "Enter the id of a record, or paste a record"),
        ({"record_id": "x"}, 400, "The id must be a whole number"),
        ({"record_id": "9" * 19}, 400, "The id must be a whole number"),
        ({"record_id": "٣"}, 400, "The id must be a whole number"),
        ({"record_id": "7", "record": "{}"}, 400, "not both"),
        ({"record": "\n{\n  nonsense"}, 400, "The record is not JSON: line 3, column 3."),
        ({"record": "[]"}, 400, "one record is needed"),
        ({"record": '{"CONTACT_ID": 1}'}, 200, "✓ triggers"),
        ({"record": "{}"}, 400, "no usable CONTACT_ID"),
        ({"record": '{"TASK_ID": 1, "DATE_CREATED_UTC": "x"}'}, 400, "no usable CONTACT_ID"),
        ({"record": '{"CONTACT_ID": 1, "DATE_CREATED_UTC": "x"}'}, 400, "DATE_CREATED_UTC"),
        ({"record": f'{{"CONTACT_ID": 1, "X": {"[" * 5000}{"]" * 5000}}}'}, 200, "it can't be delivered"),
        ({"record": pasted(), "event": "deleted"}, 400, "Choose added, updated"),
        ({"record": pasted(), "at": "yesterday"}, 400, "a date and a time"),
        ({"record": pasted(), "at": "0001-01-01T00:00:00"}, 400, "The year must be"),
        (
            {"record": pasted(), "at": "2026-01-01T00:00:00", "zone": "../etc/passwd"},
            400,
            "a date and a time",
        ),
        ({"record_id": "999999"}, 404, "Contacts have no record 999999"),
    ],
)
def test_what_is_wrong_is_said(
    login: Login, stored: Callable[..., None], receiver: str, fields: dict[str, str], status: int, said: str
) -> None:
    """The mistake is shown beside its field or above the form, which keeps the input."""
    stored()
    answer = asked(login(), **fields)
    assert (answer.status_code, said in text_of(answer.text)) == (status, True), text_of(answer.text)
    assert "Traceback" not in answer.text
    if fields.get("record_id"):
        assert f'value="{fields["record_id"]}"' in answer.text


def test_insightly_refuses_the_key(
    login: Login, stored: Callable[..., None], insightly: RunningSandbox, connect: Connect
) -> None:
    stored()
    connect("insightly_default", "insightly", host=insightly.api_url, login=PASSWORD)
    answer = asked(login(), record_id="1")
    assert answer.status_code == 502
    assert "refuses the API key (401)" in answer.text
    assert PASSWORD not in answer.text


def test_insightly_does_not_answer(login: Login, stored: Callable[..., None], connect: Connect) -> None:
    """For a pasted record a note says so, since its body may differ."""
    stored(webhooks=[{"name": "Billing", "uri": "https://receiver.example.com/in"}])
    connect("insightly_default", "insightly", host="http://127.0.0.1:9", login=API_KEY)
    answer = asked(login(), record_id="1")
    assert answer.status_code == 502
    assert "Insightly can't be read" in text_of(answer.text)
    custom = [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "x", "CUSTOM_FIELD_ID": "Region__c"}]
    answer = asked(login(), record=pasted(CUSTOMFIELDS=custom))
    assert answer.status_code == 200
    assert "The types of custom fields could not be read from Insightly" in text_of(answer.text)
    assert API_KEY not in answer.text


def test_a_connection_is_missing(login: Login, stored: Callable[..., None]) -> None:
    stored()
    answer = asked(login(), record_id="1")
    assert answer.status_code == 502
    assert "The conn_id `insightly_default` isn't defined" in text_of(answer.text)
    assert "Add the connection under Admin, Connections" in answer.text


def test_too_many_at_once_are_put_off(
    login: Login, stored: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many previews at once are refused, since Airflow's other pages need threads, too."""
    stored()
    taken = threading.BoundedSemaphore(1)
    taken.acquire()
    monkeypatch.setattr(preview_result, "_run_slots", taken)
    monkeypatch.setattr(preview_result, "LONGEST_QUEUE", 0.01)
    answer = asked(login(), record=pasted())
    assert answer.status_code == 503
    assert "Try again in a minute" in answer.text


def test_insightly_is_asked_once(login: Login, stored: Callable[..., None], connect: Connect) -> None:
    """User and thread wait for one time-out of Insightly, not for four."""
    stored()
    with serving([10.0]) as server:
        host = f"http://127.0.0.1:{server.port}"
        connect("insightly_default", conn_type="insightly", host=host, password="k", extra={"timeout": 0.5})
        answer = asked(login(), record_id="7")
        assert answer.status_code == 502
        assert "no answer within 0.5 s" in text_of(answer.text)
        assert server.connections == 1


def test_few_wait_for_their_turn(
    login: Login, stored: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting takes a thread, so most of a hundred previews at once are refused without waiting."""
    stored()
    monkeypatch.setattr(preview_result, "_run_slots", threading.BoundedSemaphore(1))
    monkeypatch.setattr(preview_result, "_queue_slots", threading.BoundedSemaphore(2))
    monkeypatch.setattr(preview_result, "LONGEST_QUEUE", 5.0)
    client = login()
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        with suppress(preview_result.PreviewFailed), preview_result.request_slot():
            pass

    with preview_result.request_slot():
        thread = threading.Thread(target=wait)
        thread.start()
        waits.wait()
        while preview_result._queue_slots.acquire(blocking=False):  # until the other one has its slot
            preview_result._queue_slots.release()
        started = time.monotonic()
        assert asked(client, record=pasted()).status_code == 503
        assert time.monotonic() - started < 3.0
    thread.join()
    assert asked(client, record=pasted()).status_code == 200


# --- a test ------------------------------------------------------------------------------------------------


def test_a_test_is_sent_once_it_is_confirmed(
    login: Login, stored: Callable[..., None], receiver: str, insightly: RunningSandbox, session: Session
) -> None:
    """The first form's page names the receiver; the second form sends the body that was shown."""
    stored()
    client = login()
    shown = asked(client, record=pasted(), webhook="billing")
    assert shown.status_code == 200
    assert f"Send it to {insightly.bin_url('billing')}" in text_of(shown.text)
    assert insightly.received("billing") == []
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', shown.text.split("</form>")[0])
    answer = client.post(
        "/insightly/preview",
        data={**{name: html.unescape(value) for name, value in fields}, "confirmed": "yes", "body": "{}"},
    )
    assert answer.status_code == 200
    assert "The receiver acknowledged the test" in text_of(answer.text)
    (request,) = insightly.received("billing")
    exact = re.findall(r"<pre[^>]*>\n(.*?)</pre>", asked(client, record=pasted()).text, re.DOTALL)[1]
    assert request["body"] == html.unescape(exact)
    headers = {name.lower(): value for name, value in dict(request["headers"]).items()}
    assert headers["webhook-id"].startswith("msg_test_")
    assert headers["webhook-id"] in answer.text
    (log,) = session.scalars(select(Log).where(Log.event == "insightly_send_test")).all()
    assert log.owner == "admin"
    assert json.loads(str(log.extra)) == {
        "record_type": "Contacts",
        "record_id": 7,
        "webhook": "Billing",
        "receiver": insightly.bin_url("billing"),
        "message_id": headers["webhook-id"],
    }
    assert [secret for secret in SECRETS if secret in answer.text + shown.text] == []


def test_a_receiver_that_fails(
    login: Login, stored: Callable[..., None], insightly: RunningSandbox, connect: Connect
) -> None:
    """Status, error and answer are shown as text."""
    stored()
    down = answer("503 Service Unavailable", "Content-Type: text/plain", body=f"down {SCRIPT}".encode())
    with serving([down]) as server:
        connect("billing", host=server.url, login="me", password=PASSWORD)
        shown = asked(login(), record=pasted(), webhook="billing", confirmed="yes", receiver=f"{server.url}/")
    page = text_of(shown.text)
    assert "The receiver did not acknowledge the test" in page
    assert "Status 503" in page
    assert "<script>alert" not in shown.text
    assert f"down {SCRIPT}" in html.unescape(shown.text)
    assert PASSWORD not in shown.text


def test_another_receiver_than_was_shown_gets_nothing(
    login: Login, stored: Callable[..., None], receiver: str, insightly: RunningSandbox
) -> None:
    """If the connection has changed meanwhile, the page asks again. It sends nothing without confirmation."""
    stored()
    answer = asked(login(), record=pasted(), webhook="billing", confirmed="yes", receiver="https://other/")
    assert "The receiver has changed since the last page" in text_of(answer.text)
    where = insightly.bin_url("billing")
    for unconfirmed in ("", "no"):
        asked(login(), record=pasted(), webhook="billing", receiver=where, confirmed=unconfirmed)
    assert insightly.received("billing") == []


def test_an_unknown_webhook_is_not_sent(login: Login, stored: Callable[..., None], receiver: str) -> None:
    stored()
    assert asked(login(), record=pasted(), webhook="other").status_code == 404


# --- who may do what ---------------------------------------------------------------------------------------

RECORDS = ("POST", DagAccessEntity.RUN)


READ = ("GET", DagAccessEntity.TASK_INSTANCE)
XCOM = ("GET", DagAccessEntity.XCOM)


def test_a_viewer_previews_pasted_records_only(
    login: Login, stored: Callable[..., None], receiver: str, insightly: RunningSandbox
) -> None:
    """No request goes to Insightly, and no test is offered. Both are refused if a form asks for them."""
    stored()
    viewer = login("VIEWER")
    form = viewer.get("/insightly/preview").text
    assert 'name="record_id"' not in form
    assert "pasted records only" in form
    requests = insightly.configure()["requests"]
    custom = [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "x", "CUSTOM_FIELD_ID": "Region__c"}]
    answer = asked(viewer, record=pasted(CUSTOMFIELDS=custom))
    assert answer.status_code == 200
    assert "The types of custom fields are not known here" in text_of(answer.text)
    assert 'name="webhook"' not in answer.text
    assert "you need to be allowed to trigger runs of new_contact" in text_of(answer.text)
    assert asked(viewer, record_id="1").status_code == 403
    for confirmed in ("", "yes"):
        answer = asked(viewer, record=pasted(), webhook="billing", confirmed=confirmed)
        assert answer.status_code == 403
        assert "to trigger runs of new_contact" in answer.text
    assert insightly.configure()["requests"] == requests
    assert insightly.received("billing") == []


@pytest.mark.parametrize("rights", [(), (READ,), (XCOM,), (READ, RECORDS), (XCOM, RECORDS)])
def test_without_the_rights_to_see_payloads_there_is_no_preview(
    login: Login, stored: Callable[..., None], receiver: str, strict: Refuse, rights: Any
) -> None:
    """The workflow isn't offered, and its preview is refused in the same way as that of a missing DAG."""
    stored()
    client = login()
    strict(refuses=lambda method, part, _: (method, part) not in rights)
    assert "new_contact" not in client.get("/insightly/preview").text
    for workflow_key in (KEY, "no_such_dag/evaluate"):
        for fields in ({"record": pasted()}, {"record_id": "1"}):
            answer = asked(client, **{**fields, "workflow": workflow_key})
            assert answer.status_code == 403
            answer = asked(client, **{**fields, "workflow": workflow_key}, webhook="billing")
            assert answer.status_code == 403


def test_a_form_of_another_site_is_refused(login: Login, stored: Callable[..., None], receiver: str) -> None:
    stored()
    answer = login().post(
        "/insightly/preview",
        data={"workflow": KEY, "record": pasted()},
        headers={"Origin": "https://evil.example.com"},
    )
    assert answer.status_code == 403
