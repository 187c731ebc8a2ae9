"""Pending webhooks on the pages: to list them, cancel them, and send them now."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html import unescape
from time import perf_counter
from typing import Any

import pytest
from airflow.models import DagModel, DagRun
from airflow.sdk import DAG
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from httpx import Response
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.state.pending_request import request_in
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, PendingWebhooks, pending_key
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.workflows.dag import workflow_dags
from tests.metadata_database import AssetState, add_dag, asset_of, fill
from tests.ui.conftest import Login, Refuse
from tests.ui.html import fields_of, text_of

CHANGED_AT = "2026-01-09T12:00:00Z"
SOON = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=3, hours=1)


def add_workflow(session: Session, name: str, *webhooks: str) -> list[DAG]:
    """Have Airflow know a workflow's DAGs."""
    workflow = Workflow(
        name=name,
        record_type="Contacts",
        webhooks=[Webhook(name=webhook, conn_id="c", after=timedelta(days=3)) for webhook in webhooks],
    )
    dags = workflow_dags(workflow)
    for dag in dags:
        add_dag(session, dag)
    return dags


def book(session: Session, workflow: str = "won", webhook: str = "check") -> PendingWebhooks:
    asset_id = asset_of(session, records_asset("insightly_default", "Contacts"))
    return PendingWebhooks(AssetState(session, asset_id), pending_key(workflow, webhook))


def entry(record_id: int, hours: int = 0, changed_at: str = CHANGED_AT) -> PendingWebhook:
    return PendingWebhook(record_id, SOON + timedelta(hours=hours), "added", changed_at)


def key(record_id: int, workflow: str = "won", webhook: str = "check", changed_at: str = CHANGED_AT) -> str:
    return f"{workflow}/{webhook}/{record_id}/{changed_at}"


@pytest.fixture
def won(session: Session) -> None:
    """A workflow with records 1 to 3 pending."""
    fill(session, _add_won)


def _add_won(session: Session) -> None:
    add_workflow(session, "Won", "Check", "Survey")
    book(session).add([entry(3, 2), entry(1, 0), entry(2, 1)])


def records_in(page: str) -> list[str]:
    return re.findall(r'data-label="Record">\w+ <a [^>]*>(\d+)</a>', page)


def runs_of(session: Session, dag_id: str = "won__pending") -> list[DagRun]:
    session.expire_all()
    return list(session.scalars(select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.id)))


def ask(client: TestClient, fields: dict[str, Any]) -> Response:
    """Send the list's form, and confirm it."""
    page = client.post("/insightly/pending", data=fields)
    assert page.status_code == 200, page.text
    return client.post("/insightly/pending/runs", data=fields_of(page.text))


# --- the list ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("won")
def test_what_is_pending_is_listed_by_its_time(login: Login) -> None:
    page = login().get("/insightly/pending").text
    assert records_in(page) == ["1", "2", "3"]
    assert f'<time datetime="{SOON:%Y-%m-%dT%H:%M:%SZ}"' in page
    assert "in 3 days" in page
    assert "3 pending webhooks" in page
    assert f'value="{key(1)}"' in page


def test_an_empty_list_says_how_to_fill_it(login: Login, session: Session) -> None:
    page = login().get("/insightly/pending").text
    assert "Nothing is pending" in page
    assert "after: 7d" in page
    add_workflow(session, "Won", "Check")
    page = login().get("/insightly/pending?record=7").text
    assert "No pending webhook matches" in page


@pytest.mark.usefixtures("won")
def test_a_filter_narrows_the_list_down(login: Login, session: Session) -> None:
    add_workflow(session, "Lost", "Check")
    book(session, "lost").add([entry(1, 5)])
    book(session, "won", "survey").add([entry(9, 6)])
    client = login()
    for query, records in {
        "": ["1", "2", "3", "1", "9"],
        "workflow=lost": ["1"],
        "webhook=survey": ["9"],
        "webhook=Survey": ["9"],
        "record=1": ["1", "1"],
        "workflow=won&webhook=check&record=1": ["1"],
        "workflow=won&webhook=&record=": ["1", "2", "3", "9"],
    }.items():
        assert records_in(client.get(f"/insightly/pending?{query}").text) == records, query


@pytest.mark.parametrize("value", ["x", "0", "-7", "1.5", "7 8", "9" * 30, "٣"])
@pytest.mark.usefixtures("won")
def test_a_bad_record_id_is_marked_at_its_field(login: Login, value: str) -> None:
    answer = login().get("/insightly/pending", params={"record": value})
    assert answer.status_code == 400
    assert 'aria-invalid="true" aria-describedby="record-problem"' in answer.text
    assert f'value="{value}"' in answer.text
    assert "<table" not in answer.text


def test_other_bad_values(login: Login) -> None:
    client = login()
    assert client.get("/insightly/pending", params={"webhook": "!"}).status_code == 400
    assert client.get("/insightly/pending", params={"workflow": "a\0b"}).status_code == 400
    for page in ("0", "-1", "x", "9" * 20):
        assert client.get("/insightly/pending", params={"page": page}).status_code == 400, page


@pytest.mark.usefixtures("won")
def test_parts_of_the_list(login: Login, session: Session) -> None:
    """2,500 entries make 50 pages, each shown quickly. A page past the end shows the last one."""
    book(session, "won", "survey").add([entry(record_id, 10) for record_id in range(100, 2_597)])
    client = login()
    client.get("/insightly/pending")
    started = perf_counter()
    page = client.get("/insightly/pending?page=2&webhook=survey").text
    seconds = perf_counter() - started
    assert records_in(page) == [str(record_id) for record_id in range(150, 200)]
    assert "51 to 100 of 2,497 pending webhooks" in page
    assert '/insightly/pending?webhook=survey&amp;page=3"' in page
    assert records_in(client.get("/insightly/pending?page=99").text)[-1] == "2596"
    assert "Cancel all 2,500" in client.get("/insightly/pending").text
    assert seconds < 1.5  # 0.1 s where nothing else runs


@pytest.mark.usefixtures("won")
def test_what_hinders_it_is_said(login: Login, session: Session) -> None:
    """The page names paused DAGs, missing DAGs, entries not yet entered, and unreadable state."""
    for name in ("gone", "lost"):
        book(session, name).add([entry(1)])
    AssetState(session, asset_of(session, records_asset("insightly_default", "Contacts"))).delete(
        "pending/lost/check"
    )
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_paused=True))
    session.add(
        DagRun(dag_id="won__pending", run_id="from__1", run_type=DagRunType.MANUAL, state=DagRunState.QUEUED)
    )
    session.commit()
    page = login().get("/insightly/pending").text
    assert 'data-leaves="top">won__pending</a> is paused' in page
    assert "1 run of" in page
    assert "No DAG will send 1 pending webhook of <b>gone / check</b>" in page
    assert "no DAG sends it" in page
    assert "Not listed: state &#39;pending/lost/check&#39;" in page
    assert key(1, "gone") not in page  # it can't be chosen
    assert "Cancel all 3" in page


def test_what_is_overdue(login: Login, session: Session) -> None:
    add_workflow(session, "Won", "Check")
    book(session).add([entry(1)._replace(due=datetime.now(timezone.utc) - timedelta(hours=5))])
    assert "overdue for 5 hours" in login().get("/insightly/pending").text


def test_names_are_escaped(login: Login, session: Session) -> None:
    book(session, "<b>won</b>", "<i>check").add([entry(1)])
    client = login()
    for address in ("/insightly/pending", "/insightly/pending?webhook=%3Ci%3Echeck"):
        page = client.get(address).text
        assert "<i>check" not in page
        assert "<b>won" not in page
    page = client.get("/insightly/pending", params={"record": '"><script>'}).text
    assert "<script>" not in page.replace('<script src="', "")


# --- who ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("won")
def test_a_viewer_may_look_and_not_change(login: Login, session: Session) -> None:
    client = login("VIEWER")
    page = client.get("/insightly/pending").text
    assert records_in(page) == ["1", "2", "3"]
    assert "checkbox" not in page
    assert 'method="post"' not in page
    assert "allowed to trigger runs of won__pending" in page
    answer = client.post("/insightly/pending", data={"action": "cancel", "row": [key(1)]})
    assert "1 webhook is left out, because you may not trigger runs of won__pending" in answer.text
    assert "Nothing to cancel" in answer.text
    answer = client.post("/insightly/pending/runs", data={"action": "cancel", "row": [key(1)]})
    assert (answer.status_code, runs_of(session)) == (409, [])


@pytest.mark.usefixtures("won")
def test_who_is_not_logged_in(login: Login, session: Session) -> None:
    client = login(None)
    assert client.get("/insightly/pending").status_code == 303
    for path in ("pending", "pending/runs"):
        answer = client.post(f"/insightly/{path}", data={"action": "cancel", "row": [key(1)]})
        assert answer.status_code == 401
    assert runs_of(session) == []


@pytest.mark.usefixtures("won")
def test_a_workflow_that_one_may_not_see(login: Login, session: Session, strict: Refuse) -> None:
    """It is not listed, named or changed. A user who may see no workflow sees nothing."""
    add_workflow(session, "Secret", "Hush")
    book(session, "secret", "hush").add([entry(7)])
    client = login()
    strict(refuses=lambda _, __, dag_id: dag_id.startswith("secret"))
    page = client.get("/insightly/pending").text
    assert records_in(page) == ["1", "2", "3"]
    assert "secret" not in page
    assert "hush" not in page
    for answer in (
        client.get("/insightly/pending?workflow=secret"),
        client.post("/insightly/pending", data={"action": "cancel", "row": [key(7, "secret", "hush")]}),
        client.post("/insightly/pending/runs", data={"action": "cancel", "all": "yes", "workflow": "secret"}),
    ):
        assert answer.status_code == 403
    answer = ask(client, {"action": "cancel", "all": "yes"})
    assert client.get(answer.headers["location"]).status_code == 200
    assert runs_of(session, "secret__pending") == []
    strict(refuses=lambda *_: True)
    page = client.get("/insightly/pending").text
    assert records_in(page) == []
    assert "won" not in page
    shown = client.get(answer.headers["location"])
    assert (shown.status_code, "won" in shown.text) == (404, False)


@pytest.mark.usefixtures("won")
def test_of_a_hidden_dag_that_sends_nothing_is_told(login: Login, session: Session, strict: Refuse) -> None:
    """The page says only that another DAG sends nothing, without its name, its state or its runs."""
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_paused=True))
    session.commit()
    client = login()
    strict(refuses=lambda _, __, dag_id: dag_id == "won__pending")
    for page in (
        client.get("/insightly/pending").text,
        client.post("/insightly/pending", data={"action": "cancel", "all": "yes"}).text,
    ):
        assert "a DAG that you may not see" in page
        assert "won__pending" not in page
        assert "paused" not in page


@pytest.mark.usefixtures("won")
def test_rows_that_one_may_not_change_are_left_out(login: Login, session: Session, strict: Refuse) -> None:
    add_workflow(session, "Lost", "Check")
    book(session, "lost").add([entry(8)])
    client = login()
    strict(refuses=lambda method, _, dag_id: (method, dag_id) == ("POST", "lost__pending"))
    page = client.get("/insightly/pending").text
    assert records_in(page) == ["1", "8", "2", "3"]
    assert key(8, "lost") not in page
    assert "Cancel all 3" in page
    page = client.post("/insightly/pending", data={"action": "cancel", "all": "yes"}).text
    assert "Cancel 3 pending webhooks?" in page
    assert "1 webhook is left out, because you may not trigger runs of lost__pending" in page
    client.post("/insightly/pending/runs", data=fields_of(page))
    assert runs_of(session, "lost__pending") == []
    assert len(runs_of(session)) == 1


@pytest.mark.parametrize("path", ["pending", "pending/runs"])
@pytest.mark.usefixtures("won")
def test_a_form_of_another_site_changes_nothing(login: Login, session: Session, path: str) -> None:
    answer = login().post(
        f"/insightly/{path}",
        data={"action": "cancel", "row": [key(1)]},
        headers={"Origin": "http://evil.example.com"},
    )
    assert (answer.status_code, runs_of(session)) == (403, [])


# --- cancel, send now --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "title", "warning"),
    [
        ("cancel", "Cancel 2 pending webhooks?", "This can't be undone"),
        ("send_now", "Send 2 pending webhooks now?", "can't be taken back"),
    ],
)
@pytest.mark.usefixtures("won")
def test_a_confirmation_says_what_will_happen(
    login: Login, session: Session, action: str, title: str, warning: str
) -> None:
    """The confirmation page itself changes nothing."""
    rows = {"action": action, "row": [key(1), key(3)], "workflow": "won"}
    page = login().post("/insightly/pending", data=rows).text
    assert title in page
    assert warning in page
    assert re.search(r'data-label="Records">Contacts 1, 3<', page.replace("</td>", "<"))
    assert 'data-leaves="top">won__pending</a>' in page
    assert runs_of(session) == []
    fields = fields_of(page)
    assert (fields["row"], fields["action"], fields["workflow"]) == ([key(1), key(3)], [action], ["won"])


@pytest.mark.parametrize("action", ["cancel", "send_now"])
@pytest.mark.usefixtures("won")
def test_what_was_confirmed_is_asked_for(login: Login, session: Session, action: str) -> None:
    """The new run names the user and the shown entries. A reload of the next page asks for nothing."""
    client = login("USER")
    answer = ask(client, {"action": action, "row": [key(1), key(3)]})
    assert answer.status_code == 303
    (run,) = runs_of(session)
    assert (run.triggering_user_name, run.triggered_by) == ("user", DagRunTriggeredByType.UI)
    assert run.conf["pending_request"]["action"] == action
    assert run.conf["pending_request"]["entries"] == {"check": {"1": CHANGED_AT, "3": CHANGED_AT}}
    for _ in range(2):
        page = client.get(answer.headers["location"]).text
        assert f'data-leaves="top">{run.run_id}</a>' in page
        assert "Requested by user, in 1 run" in page
        assert "<b>0 of 2</b> carried out; 2 still pending" in page
    assert len(runs_of(session)) == 1


@pytest.mark.usefixtures("won")
def test_all_that_match_the_filter(login: Login, session: Session) -> None:
    book(session, "won", "survey").add([entry(1, 5), entry(5, 5)])
    client = login()
    ask(client, {"action": "cancel", "all": "yes", "record": "1"})
    ask(client, {"action": "send_now", "all": "yes", "webhook": "survey"})
    one, two = runs_of(session)
    assert one.conf["pending_request"]["entries"] == {"check": {"1": CHANGED_AT}, "survey": {"1": CHANGED_AT}}
    assert two.conf["pending_request"]["entries"] == {"survey": {"1": CHANGED_AT, "5": CHANGED_AT}}


@pytest.mark.parametrize("chosen", [{"row": [key(1), key(2)]}, {"all": "yes", "webhook": "check"}])
@pytest.mark.usefixtures("won")
def test_what_has_changed_meanwhile_is_confirmed_anew(
    login: Login, session: Session, chosen: dict[str, Any]
) -> None:
    """If an entry was sent since the page was shown, nothing is done, and the page says so."""
    client = login()
    page = client.post("/insightly/pending", data={"action": "cancel", **chosen}).text
    book(session).remove([2])
    answer = client.post("/insightly/pending/runs", data=fields_of(page))
    assert answer.status_code == 409
    assert "have changed since the last page" in answer.text
    assert runs_of(session) == []
    assert client.post("/insightly/pending/runs", data=fields_of(answer.text)).status_code == 303
    assert "2" not in runs_of(session)[0].conf["pending_request"]["entries"]["check"]


@pytest.mark.usefixtures("won")
def test_what_was_scheduled_anew_is_not_meant(login: Login, session: Session) -> None:
    """A new entry of the same record, by another change, is not cancelled."""
    book(session).remove([1])
    book(session).add([entry(1, changed_at="2026-01-10T00:00:00Z")])
    page = login().post("/insightly/pending", data={"action": "cancel", "row": [key(1)]}).text
    assert "1 selected webhook is no longer pending" in page
    assert "Nothing to cancel" in page


@pytest.mark.usefixtures("won")
def test_a_form_that_is_sent_twice_does_no_harm(login: Login, session: Session) -> None:
    """Each form queues a run. The second run finds nothing, not even entries scheduled meanwhile."""
    client = login()
    page = client.post("/insightly/pending", data={"action": "send_now", "row": [key(1)]}).text
    for _ in range(2):
        assert client.post("/insightly/pending/runs", data=fields_of(page)).status_code == 303
    requests = [request_in({}, run.conf, "check") for run in runs_of(session)]
    now = SOON - timedelta(days=1)
    taken = [
        book(session)
        .decide(
            f"run{number}",
            enter=[entry(1, changed_at="2026-01-10T00:00:00Z")],
            move=lambda waiting, request=request: now if request.sends_now(waiting) else None,
            take=lambda waiting: [one for one in waiting if one.due <= now],
        )
        .taken
        for number, request in enumerate(requests)
    ]
    assert [[one.record_id for one in some] for some in taken] == [[1], []]


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "cancel"},
        {"action": "cancel", "row": ["x"]},
        {"action": "cancel", "row": ["won//1/x"]},
        {"action": "cancel", "all": "yes", "record": "x"},
        {"action": "delete", "row": [key(1)]},
        {"row": [key(1)]},
    ],
)
@pytest.mark.usefixtures("won")
def test_forms_that_cannot_be_read(login: Login, session: Session, fields: dict[str, Any]) -> None:
    client = login()
    for path in ("pending", "pending/runs"):
        assert client.post(f"/insightly/{path}", data=fields).status_code == 400
    assert runs_of(session) == []


@pytest.mark.usefixtures("won")
def test_a_dag_that_goes_meanwhile(login: Login, session: Session) -> None:
    client = login()
    page = client.post("/insightly/pending", data={"action": "cancel", "row": [key(1)]}).text
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_stale=True))
    session.commit()
    answer = client.post("/insightly/pending/runs", data=fields_of(page))
    assert answer.status_code == 409
    assert "no DAG sends it" in answer.text
    assert runs_of(session) == []


# --- what becomes of it ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("won")
def test_the_progress_of_a_request(login: Login, session: Session) -> None:
    """The page reloads until all is done. It names a paused DAG."""
    session.execute(update(DagModel).where(DagModel.dag_id == "won__pending").values(is_paused=True))
    session.commit()
    client = login()
    page = client.post("/insightly/pending", data={"action": "cancel", "all": "yes"}).text
    assert "A DAG is paused: its run waits" in page
    address = client.post("/insightly/pending/runs", data=fields_of(page)).headers["location"]
    page = client.get(address).text
    assert "is paused. The run waits until you unpause the DAG" in page
    assert "data-refresh=" in page
    book(session).remove([1, 2])
    assert "<b>2 of 3</b> carried out; 1 still pending" in client.get(address).text
    book(session).remove([3])
    page = client.get(address).text
    assert "All of them are removed from the list" in page
    assert "data-refresh=" not in page


@pytest.mark.usefixtures("won")
def test_what_was_sent_now_leads_to_its_deliveries(login: Login, session: Session) -> None:
    client = login()
    page = client.post("/insightly/pending", data={"action": "send_now", "all": "yes"}).text
    page = client.get(client.post("/insightly/pending/runs", data=fields_of(page)).headers["location"]).text
    address = unescape(re.findall(r'href="([^"]*/deliveries[?][^"]*)"', page)[0])
    assert address.startswith("/insightly/deliveries?dag_id=won__pending&run_id=send_now__")
    assert client.get(address).status_code == 200


@pytest.mark.usefixtures("won")
def test_a_run_that_has_failed(login: Login, session: Session) -> None:
    client = login()
    address = ask(client, {"action": "cancel", "row": [key(1)]}).headers["location"]
    (run,) = runs_of(session)
    run.state = DagRunState.FAILED
    session.commit()
    page = client.get(address).text
    assert "has failed before it was complete" in page
    assert "data-refresh=" not in page


@pytest.mark.parametrize(
    "request_",
    ["x", "cancel__x", "call__2026-01-01T00:00:00Z", "cancel__2026-01-01T00:00:00Z", "%", "a\0b"],
)
@pytest.mark.usefixtures("won")
def test_a_request_that_is_not_there(login: Login, request_: str) -> None:
    assert login().get("/insightly/pending/runs", params={"request": request_}).status_code == 404


def test_the_address_of_a_form_that_was_sent_can_be_loaded(login: Login) -> None:
    """Airflow remembers the address of the page after a form, and loads it with GET."""
    client = login()
    assert client.get("/insightly/pending").status_code == 200
    answer = client.get("/insightly/pending/runs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/insightly/pending")


# --- details -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("won")
def test_a_confirmation_names_the_first_records(login: Login, session: Session) -> None:
    book(session).add([entry(record_id, 5) for record_id in range(10, 20)])
    page = text_of(login().post("/insightly/pending", data={"action": "cancel", "all": "yes"}).text)
    assert "Contacts 1, 2, 3, 10, 11, 12, 13, 14 and 5 more" in page


def test_what_a_dag_has_left_that_is_gone(login: Login, session: Session, strict: Refuse) -> None:
    """Users who may read all DAGs see them. Users who may not read this DAG don't, although it is gone."""
    book(session, "gone").add([entry(1)])
    client = login()
    assert records_in(client.get("/insightly/pending").text) == ["1"]
    strict(hidden={"gone"})
    page = client.get("/insightly/pending").text
    assert records_in(page) == []
    assert "gone" not in page


@pytest.mark.usefixtures("won")
def test_a_run_that_has_ended_before_all_was_carried_out(login: Login, session: Session) -> None:
    """A run may end at its limit of entries. Then the page does not wait for more."""
    client = login()
    address = ask(client, {"action": "send_now", "row": [key(1), key(2)]}).headers["location"]
    (run,) = runs_of(session)
    run.state = DagRunState.SUCCESS
    session.commit()
    book(session).remove([1])
    page = client.get(address).text
    assert "The run has ended, and 1 webhook is still pending." in page
    assert "data-refresh=" not in page


@pytest.mark.usefixtures("won")
def test_an_entry_that_was_scheduled_anew_counts_as_carried_out(login: Login, session: Session) -> None:
    client = login()
    address = ask(client, {"action": "cancel", "row": [key(1)]}).headers["location"]
    book(session).remove([1])
    book(session).add([entry(1, changed_at="2026-01-10T00:00:00Z")])
    assert "<b>1 of 1</b> carried out" in client.get(address).text


@pytest.mark.usefixtures("won")
def test_the_runs_of_a_dag_that_one_may_not_see(login: Login, session: Session, strict: Refuse) -> None:
    """If a request went to two DAGs, only the run of the visible DAG is shown."""
    add_workflow(session, "Lost", "Check")
    book(session, "lost").add([entry(8)])
    client = login()
    address = ask(client, {"action": "cancel", "all": "yes"}).headers["location"]
    assert "lost__pending" in client.get(address).text
    strict(hidden={"lost__pending"})
    page = client.get(address).text
    assert "lost__pending" not in page
    assert "<b>0 of 3</b> carried out" in page
