"""The list of deliveries, and the page of one, on Airflow's own tables."""

from __future__ import annotations

import gzip
import json
import re
import time
from datetime import datetime, timedelta, timezone
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
from airflow.sdk import DAG
from airflow.sdk.bases.xcom import BaseXCom
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import FAILED
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.database.deliveries import DeliveryFilter, TaskKey, search_deliveries
from airflow_insightly_hooks.database.payloads import payload_search
from airflow_insightly_hooks.database.payloads.payload_search import find_payload
from airflow_insightly_hooks.database.payloads.stored_xcoms import stored_value
from airflow_insightly_hooks.database.resend import resend
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.workflows.dag import workflow_dags
from airflow_insightly_hooks.workflows.workflow import Workflow
from tests.ledgers import START, add_flow, add_run, write
from tests.metadata_database import add_again, add_dag
from tests.ui.conftest import Login, Refuse

pytestmark = pytest.mark.usefixtures("flows")

ANY = "period=all"
SCRIPT = "<script>alert(1)</script>"


def fill(session: Session) -> TaskKey:
    """Add messages that two DAGs have sent."""
    key = add_run(session, "run+one")
    write(session, key, {"msg_a": (7, "A", 1), "msg_b": (8, "F", 2), "msg_c": (9, "U", 2)})
    theirs = {"conn_id": "secret_receiver", "receiver": "https://theirs.example.com/"}
    write(session, add_run(session, "their+run", "other"), {"msg_x": (77, "F", 3)}, **theirs)
    return key


def get(client: Any, query: str = ANY, path: str = "deliveries") -> Any:
    answer = client.get(f"/insightly/{path}?{query}")
    while answer.status_code == 303:
        answer = client.get(answer.headers["location"])
    return answer


def address_of(key: TaskKey, message_id: str, **more: object) -> str:
    names = {"dag_id": key.dag_id, "run_id": key.run_id, "task_id": key.task_id, "message_id": message_id}
    return urlencode({**names, **more})


def records(page: str) -> list[str]:
    """Return the ids of the records that a page lists, in its order."""
    return re.findall(r'data-label="Record">\s*(?:<a [^>]*>)?\w+ (\d+)', page)


# --- the list ----------------------------------------------------------------------------------------------


def test_the_list_shows_the_newest_first(login: Login, session: Session) -> None:
    """A row has time, state, record, workflow, receiver, attempts, and the receiver's answer."""
    fill(session)
    page = get(login()).text
    assert records(page) == ["77", "8", "9", "7"]
    assert '<time datetime="2026-01-31T08:02:00Z" title="2026-01-31 08:02:00 UTC">' in page
    assert "answered 503" in page
    assert "state-failed" in page
    assert "billing" in page
    assert "secret_receiver" in page


def test_the_usual_period_is_a_week(login: Login, session: Session) -> None:
    """The address has no period then. Older deliveries are one click away."""
    fill(session)
    page = get(login(), "").text
    assert records(page) == []
    assert "No delivery matches" in page
    assert "the last 7 days" in page
    assert 'href="/insightly/deliveries?period=all"' in page


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("workflow=flow", ["8", "9", "7"]),
        ("receiver=billing", ["8", "9", "7"]),
        ("receiver=theirs.example", ["77"]),
        ("record=8", ["8"]),
        ("record=Contacts:8", ["8"]),
        ("record=+contacts%3A8+", []),
        ("record=Leads:8", []),
        ("message=msg_a", ["7"]),
        ("state=undelivered", ["77", "8", "9"]),
        ("state=unsent", ["9"]),
        ("state=in+doubt", []),
        ("from=2026-01-31T08:02:30Z", ["77"]),
        ("to=2026-01-31T08:02:00Z", ["7"]),
        ("to=9999-12-31T23:59:59Z", ["77", "8", "9", "7"]),
        ("from=0001-01-01T00:00:00Z", ["77", "8", "9", "7"]),
        ("period=range&from=2026-01-31T03:01&to=2026-01-31T03:02&zone=America/New_York", ["7"]),
        ("dag_id=other", ["77"]),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver", ["8", "9", "7"]),
        ("dag_id=flow&run_id=two", []),
        ("page=2", []),
    ],
)
def test_filters(login: Login, session: Session, query: str, expected: list[str]) -> None:
    fill(session)
    answer = get(login(), query if re.search("from|to=|range", query) else f"{ANY}&{query}")
    if expected or "contacts" not in query:
        assert answer.status_code == 200
    assert records(answer.text) == expected


def test_a_filter_is_shown_and_can_be_cleared(login: Login, session: Session) -> None:
    """Filters can be cleared one by one, and all at once."""
    fill(session)
    page = get(login(), f"{ANY}&state=failed&receiver=bill").text
    assert records(page) == ["8"]
    assert 'value="bill"' in page
    assert '<option value="failed" selected>' in page
    assert 'href="/insightly/deliveries?state=failed&amp;period=all"' in page
    assert '<a href="/insightly/deliveries">Clear all</a>' in page


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("record=x", "record"),
        ("record=Contact:7", "record"),
        ("record=" + "9" * 40, "record"),
        ("state=lost", "state"),
        ("period=2y", "period"),
        ("from=yesterday", "from"),
        ("from=2026-02-01T00:00&to=2026-01-01T00:00", "to"),
        ("to=2026-01-01T00:00&zone=Nowhere/City", "to"),
        ("to=9999-12-31T23:59&zone=America/New_York", "to"),
        ("receiver=" + "r" * 501, "receiver"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_lost(
    login: Login, session: Session, query: str, field: str
) -> None:
    fill(session)
    answer = get(login(), f"{query}&workflow=flow")
    assert answer.status_code == 400
    assert f'id="{field}-problem"' in answer.text
    fault = f'id="{field}"[^>]* aria-invalid="true" aria-describedby="{field}-problem"'
    assert re.search(fault, answer.text)
    assert "<option selected>flow</option>" in answer.text


def test_wrong_pages_and_scopes(login: Login, session: Session) -> None:
    fill(session)
    for query in (
        "page=0",
        "page=x",
        "page=999999999",
        "run_id=x",
        "dag_id=flow&run_id=x&map_index=99999999999",
    ):
        assert get(login(), query).status_code == 400


def test_pages(login: Login, session: Session) -> None:
    """A page has 50 rows. The last page has no link to an older one."""
    key = add_run(session, "one")
    write(session, key, {f"m{number}": (number, "A", number / 10) for number in range(120)})
    client = login()
    page = get(client).text
    assert records(page) == [str(number) for number in range(119, 69, -1)]
    assert 'rel="next" href="/insightly/deliveries?period=all&amp;page=2"' in page
    assert 'rel="prev"' not in page
    page = get(client, f"{ANY}&page=3").text
    assert len(records(page)) == 20
    assert 'rel="prev" href="/insightly/deliveries?period=all&amp;page=2"' in page
    assert 'rel="next"' not in page


def test_a_form_makes_an_address_to_be_shared(login: Login, session: Session) -> None:
    """The address has no empty fields. Its times are in UTC, since another user may be in another zone."""
    fill(session)
    form = (
        "workflow=&receiver=&record=&state=failed&period=range&from=2026-01-31T09:00&to=&zone=Europe%2FBerlin"
    )
    answer = login().get(f"/insightly/deliveries?{form}")
    assert answer.status_code == 303
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query == {"state": ["failed"], "from": ["2026-01-31T08:00:00Z"]}
    page = login().get(answer.headers["location"])
    assert page.status_code == 200
    assert 'value="2026-01-31T08:00:00" data-time="2026-01-31T08:00:00+00:00"' in page.text


def test_what_is_not_there_yet(login: Login, session: Session) -> None:
    """The page says so, and what to do."""
    assert "No deliveries yet" in get(login()).text
    fill(session)
    assert "This DAG has delivered no webhooks" in get(login(), "tab=dag&dag_id=nothing_of_ours").text


def test_ledgers_that_cannot_be_read_are_counted(login: Login, session: Session) -> None:
    key = fill(session)
    DatabaseStateStore(session, key).set("delivery", {"version": 9})
    session.commit()
    page = get(login()).text
    assert "1 ledger can&#39;t be read" in page
    assert records(page) == ["77"]


def test_everything_is_escaped(login: Login, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids, receivers and errors are texts from outside."""
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", ".*")
    key = add_run(session, SCRIPT)
    store = LedgerStore(DatabaseStateStore(session, key), "1-0000000a")
    ledger = store.open(2, 3)
    ledger.about = {"conn_id": SCRIPT, "receiver": SCRIPT}
    ledger.expect("msg_a", about_of("Contacts", 7, "updated", ""))
    ledger.posting("msg_a")
    ledger.answered("msg_a", FAILED, PostOutcome(datetime.now(timezone.utc), 0.1, 500, SCRIPT, SCRIPT))
    store.write(ledger)
    session.commit()
    client = login()
    pages = [
        get(client, "").text,
        get(client, urlencode({"receiver": SCRIPT, "record": SCRIPT, "state": SCRIPT})).text,
        get(client, urlencode({"dag_id": "flow", "run_id": SCRIPT, "tab": "dag_run"})).text,
        get(client, address_of(key, "msg_a"), "delivery").text,
    ]
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
    assert records(pages[0]) == records(pages[2]) == ["7"]


# --- tabs of Airflow's pages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("tab=dag&dag_id=flow", ["8", "9", "7"]),
        ("tab=dag_run&dag_id=flow&run_id=run%2Bone", ["8", "9", "7"]),
        ("tab=task&dag_id=flow&task_id=deliver", ["8", "9", "7"]),
        ("tab=task&dag_id=flow&task_id=build", []),
        ("tab=task_instance&dag_id=flow&run_id=run%2Bone&task_id=deliver&map_index=-1", ["8", "9", "7"]),
        ("tab=task_instance&dag_id=flow&run_id=run%2Bone&task_id=deliver&map_index=", ["8", "9", "7"]),
        ("tab=task_instance&dag_id=flow&run_id=run%2Bone&task_id=deliver&map_index=0", []),
        (
            "tab=task_instance&dag_id=flow&run_id=run%2Bone&task_id=deliver&map_index={MAP_INDEX}",
            ["8", "9", "7"],
        ),
    ],
)
def test_tabs(login: Login, session: Session, query: str, expected: list[str]) -> None:
    """A tab shows its own deliveries only, and no navigation. Its links stay in the tab."""
    fill(session)
    page = get(login(), f"{query}&{ANY}").text
    assert records(page) == expected
    assert 'class="top"' not in page
    assert '<input type="hidden" name="tab"' in page or not expected
    links = re.findall(r'href="(/insightly/(?:delivery|deliveries)[^"]*)"', page)
    assert links or not expected
    assert all("tab=" in link for link in links)


def test_a_workflow_has_its_retry_dag_with_it(login: Login, session: Session) -> None:
    """This holds in its tab and in the filter."""
    add_flow(session, "flow__retry")
    fill(session)
    write(session, add_run(session, "r", "flow__retry"), {"msg_b": (8, "A", 9)})
    client = login()
    for query in ("tab=dag&dag_id=flow", "workflow=flow"):
        page = get(client, f"{query}&{ANY}").text
        assert records(page) == ["8", "8", "9", "7"]
        assert "retry DAG" in page
    assert "<option>flow__retry" not in get(client).text


# --- who may see what --------------------------------------------------------------------------------------


def test_a_viewer_sees_but_can_send_nothing(login: Login, session: Session) -> None:
    fill(session)
    page = get(login("VIEWER")).text
    assert records(page) == ["77", "8", "9", "7"]
    assert "Send selected" not in page
    assert 'type="checkbox"' not in page
    assert "Send selected" in get(login("USER")).text


def test_a_dag_that_a_person_may_not_see(login: Login, session: Session, strict: Refuse) -> None:
    """Its rows, name and receivers are not shown, and its address is refused."""
    fill(session)
    client = login()
    strict(hidden={"other"})
    page = get(client).text
    assert records(page) == ["8", "9", "7"]
    for text in ("other", "secret_receiver", "theirs", "their"):
        assert text not in page
    assert records(get(client, f"{ANY}&receiver=theirs").text) == []
    for query in ("dag_id=other", "workflow=other", "tab=dag_run&dag_id=other&run_id=their%2Brun"):
        assert get(client, query).status_code == 403
    key = TaskKey(0, "other", "their+run", "deliver", -1, "")
    assert get(client, address_of(key, "msg_x"), "delivery").status_code == 403


def test_selection_is_offered_where_it_is_allowed(login: Login, session: Session, strict: Refuse) -> None:
    fill(session)
    client = login()
    strict(untouchable={"other"})
    page = get(client).text
    assert page.count('name="delivery"') == 3
    assert "their+run" not in "".join(re.findall('name="delivery" value="([^"]*)"', page))


# --- one delivery ------------------------------------------------------------------------------------------

BODY = '{"entity":{"CONTACT_ID":8,"NAME":"Ms <b>Smith</b>","SCORE":1.10,"TAGS":[],"DATES":[{"A":null}]}}'


@pytest.fixture
def object_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of Airflow's object storage backend of XComs."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", tmp_path.as_uri())
    monkeypatch.setattr(
        "airflow.sdk.execution_time.xcom.resolve_xcom_backend", lambda: XComObjectStorageBackend
    )
    return tmp_path


def with_payload(session: Session, run_id: str, value: Any, **where: Any) -> None:
    names = {"key": "return_value", "task_id": "build", "dag_id": "flow", **where}
    XComModel.set(value=value, run_id=run_id, session=session, **names)
    session.commit()


def payload(message_id: str, body: str = BODY) -> dict[str, Any]:
    return {"message_id": message_id, "record_type": "Contacts", "record_id": 8, "body": body}


def add_workflow(session: Session) -> None:
    webhooks = [{"name": "B", "conn_id": "billing"}]
    named = {"name": "W", "dag_id": "w", "record_type": "Contacts", "webhooks": webhooks}
    for dag in workflow_dags(Workflow.model_validate(named)):
        add_dag(session, dag)


@pytest.mark.parametrize("chunks", [False, True])
def test_one_delivery(login: Login, session: Session, chunks: bool) -> None:
    """The page has facts, attempts, the payload (formatted and exact), and links into Airflow."""
    key = fill(session)
    payloads = [payload("msg_a", "{}"), payload("msg_b")]
    with_payload(session, key.run_id, [payloads[:1], payloads[1:]] if chunks else payloads)
    page = get(login(), address_of(key, "msg_b"), "delivery").text
    for text in ("Contacts 8", "msg_b", "https://billing.example.com/in", "<strong>503</strong>", "100 ms"):
        assert text in page
    assert "answered 503" not in page, "it would say the status twice"
    assert 'href="/dags/flow/runs/run%2Bone/tasks/deliver" data-leaves="top"' in page
    assert "Ms &lt;b&gt;Smith&lt;/b&gt;" in page
    assert "&#34;SCORE&#34;: 1.10,\n" in page
    assert f"{len(BODY)} bytes" in page
    assert "Send again" in page
    assert page.count("2026-01-31T08:00:00Z") >= 1


def test_a_payload_takes_a_right_of_its_own(login: Login, session: Session, strict: Refuse) -> None:
    """Without this right, the page names it, and shows neither payload nor answer."""
    key = fill(session)
    with_payload(session, key.run_id, [payload("msg_b")])
    client = login()
    strict(secret={"flow"}, untouchable={"flow"})
    page = get(client, address_of(key, "msg_b"), "delivery").text
    assert "Smith" not in page
    assert "you need to be allowed to read XComs of flow" in page
    assert "you need to be allowed to clear task instances of flow" in page
    assert "<strong>503</strong>" in page


def test_a_payload_that_is_gone(login: Login, session: Session) -> None:
    key = fill(session)
    assert "no longer in XCom" in get(login(), address_of(key, "msg_b"), "delivery").text
    session.query(XComModel).delete()
    session.commit()
    assert "no longer in XCom" in get(login(), address_of(key, "msg_b"), "delivery").text


def test_a_payload_outlasts_a_change_of_mode(login: Login, session: Session) -> None:
    """It is shown even if the DAG no longer has the task. The mode ``one_task`` stores no payloads."""
    add_workflow(session)
    key = add_run(session, "one", "w")
    write(session, key, {"msg_b": (8, "A", 1)})
    with_payload(session, "one", [payload("msg_b")], dag_id="w")
    shown = get(login(), address_of(key, "msg_b"), "delivery").text
    assert "Smith" in shown
    made = Workflow(name="W", record_type="Contacts", webhooks=[{"name": "B", "conn_id": "billing"}])
    add_again(session, made.to_dag(mode="one_task", auto_register=False))
    page = get(login(), address_of(key, "msg_b"), "delivery").text
    assert "Smith" in page
    other = add_run(session, "two", "w")._replace(task_id="detect_and_deliver", prefix="b/")
    write(session, other, {"msg_c": (9, "A", 1)})
    for mode in ("one_task", "tasks"):
        add_again(session, made.to_dag(mode=mode, auto_register=False))
        page = get(login(), address_of(other, "msg_c", ledger="b/"), "delivery").text
        assert "reads its records itself" in page


def test_a_mapped_task_has_the_payload_of_its_own_index(session: Session) -> None:
    """Several tasks can hold the same message, as in a mapped task group."""
    key = add_run(session, "one")
    for map_index in (0, 1):
        session.execute(
            update(XComModel).values(
                map_index=map_index, value=json.dumps([payload("m", f"body {map_index}")])
            )
        )
        session.commit()
    found = find_payload(session, key._replace(map_index=1), "m", ["return_value"])
    assert found == ("body 1", None)
    assert find_payload(session, key, "m", ["payloads_deliver"]).body is None


def test_a_payload_of_a_chunk_with_an_xcom_of_its_own(session: Session) -> None:
    """The payload is found there. The references hold no payloads."""
    key = fill(session)
    with_payload(session, key.run_id, [{"chunk": "chunk_0", "task_id": "build", "map_index": -1, "count": 1}])
    with_payload(session, key.run_id, [payload("msg_b", "{}")], key="chunk_1")
    assert find_payload(session, key, "msg_b", ["return_value"]) == ("{}", None)


def test_a_mapped_tasks_own_chunk_is_read_first(
    session: Session, object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks in files must be read to be searched, so the chunk of the task's own index comes first."""
    key = fill(session)
    for number in range(3):
        path = object_storage / f"{number}.json"
        path.write_text(json.dumps([payload(f"msg_{number}", f"body {number}")]))
        with_payload(session, key.run_id, path.as_uri(), key=f"chunk_{number}")
    read: list[str] = []

    def reading(row: XComModel, most: int) -> Any:
        read.append(row.key)
        return stored_value(row, most)

    monkeypatch.setattr(payload_search, "stored_value", reading)
    found = find_payload(session, key._replace(map_index=2), "msg_2", ["return_value"])
    assert (found, read) == (("body 2", None), ["chunk_2"])


def test_a_retry_dag_has_its_payloads_from_the_collect_task(login: Login, session: Session) -> None:
    """The two deliveries of the message link to each other."""
    add_workflow(session)
    left = add_run(session, "first", "w")
    write(session, left, {"msg_b": (8, "F", 1)}, left_to="w__retry")
    key = add_run(session, "again", "w__retry")
    write(session, key, {"msg_b": (8, "F", 2)})
    with_payload(
        session, "again", [payload("msg_b")], key="payloads_deliver", task_id="collect", dag_id="w__retry"
    )
    client = login()
    page = get(client, address_of(key, "msg_b"), "delivery").text
    assert "Smith" in page
    assert "run_id=first" in page
    page = get(client, address_of(left, "msg_b"), "delivery").text
    assert "run_id=again" in page


def test_links_to_insightly_and_to_the_receiver(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It links to the record's page and the connection's page of the receiver, by http and https only."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_INSIGHTLY_DEFAULT", '{"conn_type": "insightly", "host": "na1", "password": "k"}'
    )
    receiver = {
        "conn_type": "insightly_webhook",
        "host": "https://b.example.com",
        "extra": {"web_url": "https://b.example.com/page"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_BILLING", json.dumps(receiver))
    add_workflow(session)
    for dag_id in ("w", "w__retry"):
        key = add_run(session, "one", dag_id)
        write(session, key, {"msg_b": (8, "F", 1)})
        page = get(login(), address_of(key, "msg_b"), "delivery").text
        assert 'href="https://crm.na1.insightly.com/details/Contact/8"' in page
        assert 'href="https://b.example.com/page"' in page


def test_a_task_that_waits_says_until_when(login: Login, session: Session) -> None:
    key = fill(session)
    session.execute(
        update(TaskInstance)
        .where(TaskInstance.run_id == key.run_id)
        .values(state="up_for_retry", end_date=START, retry_delay_override=3_600.0)
    )
    session.commit()
    page = get(login(), address_of(key, "msg_b"), "delivery").text
    assert "next try" in page
    assert '<time datetime="2026-01-31T09:00:00Z"' in page


def test_who_asked_to_send_it_again(login: Login, session: Session) -> None:
    key = fill(session)
    rows = search_deliveries(session, DeliveryFilter(message_ids=["msg_b"])).rows
    list(resend(session, rows, by="grace", what="a test", request_id="0123456789ab"))
    page = get(login(), address_of(key, "msg_b"), "delivery").text
    assert "/insightly/resend?id=0123456789ab" in page
    assert "by grace" in page


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver", 400),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver&message_id=m&map_index=x", 400),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver&message_id=m%00", 400),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver&message_id=msg_z", 404),
        ("dag_id=flow&run_id=run%2Bone&task_id=deliver&message_id=msg_a&ledger=erp/", 404),
    ],
)
def test_addresses_of_nothing(login: Login, session: Session, query: str, status: int) -> None:
    fill(session)
    assert get(login(), query, "delivery").status_code == status


def test_fifty_rows_are_quick(login: Login, session: Session) -> None:
    """The page comes quickly, even on a slow machine."""
    key = add_run(session, "one")
    write(session, key, {f"m{number}": (number, "F", 1) for number in range(60)})
    client = login()
    get(client)
    start = time.monotonic()
    get(client)
    assert time.monotonic() - start < timedelta(seconds=2).total_seconds()


def test_an_xcom_makes_no_objects(login: Login, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task decides what its XCom holds, so nothing of it may run in the API server."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an object was made")

    key = fill(session)
    monkeypatch.setattr("airflow.sdk.serde.deserialize", fail)
    named = {"__classname__": "airflow.sdk.definitions.asset.Asset", "__version__": 1, "__data__": {}}
    payload = {"message_id": "msg_a", "body": "the body", "more": named}
    for value in ([payload], json.dumps([payload])):
        session.execute(update(XComModel).where(XComModel.run_id == key.run_id).values(value=value))
        session.commit()
        assert "the body" in get(login(), address_of(key, "msg_a"), "delivery").text


def test_half_a_surrogate_pair_is_shown_as_a_question_mark(login: Login, session: Session) -> None:
    """JSON can hold half a pair, which has no UTF-8. The page is shown all the same."""
    key = fill(session)
    payloads = [{"message_id": "msg_a", "body": '{"NAME": "\ud800 Smith"}'}]
    session.execute(update(XComModel).where(XComModel.run_id == key.run_id).values(value=payloads))
    session.commit()
    answer = get(login(), address_of(key, "msg_a"), "delivery")
    assert answer.status_code == 200
    assert "? Smith" in answer.text


# --- details of the list -----------------------------------------------------------------------------------


def without(page: str, label: str) -> dict[str, list[str]]:
    """Return the query of the address that takes a filter away."""
    found = re.search(rf'href="([^"]*)" aria-label="Remove this filter: {label}"', page)
    assert found is not None, label
    return parse_qs(urlsplit(unescape(found[1])).query)


def test_a_run_goes_with_its_task_and_a_dag_with_both(login: Login, session: Session) -> None:
    """Otherwise the address would name a task without a run, or a run without a DAG."""
    fill(session)
    page = get(login(), "dag_id=flow&run_id=run%2Bone&task_id=deliver&map_index=3&state=failed").text
    dag, state = {"dag_id": ["flow"]}, {"state": ["failed"]}
    assert without(page, "Map index") == {**dag, "run_id": ["run+one"], "task_id": ["deliver"], **state}
    assert without(page, "Run") == {**dag, **state}
    assert without(page, "DAG") == state


def test_a_long_error_is_cut_in_the_list_only(login: Login, session: Session) -> None:
    key = add_run(session, "one")
    store = LedgerStore(DatabaseStateStore(session, key), "1-0000000a")
    ledger = store.open(2, 3)
    ledger.expect("msg_a", about_of("Contacts", 7, "updated", ""))
    ledger.posting("msg_a")
    ledger.answered("msg_a", FAILED, PostOutcome(START, 0.1, 500, "answered 500 " + "x" * 200 + " end"))
    store.write(ledger)
    session.commit()
    client = login()
    assert "xxx…" in get(client).text
    assert "xxx end" not in get(client).text
    assert "xxx end" in get(client, address_of(key, "msg_a"), "delivery").text


@pytest.mark.parametrize(
    ("state", "is_offered"), [("", True), ("failed", True), ("undelivered", True), ("delivered", False)]
)
def test_all_that_match_are_sent_again_only_if_undelivered(
    login: Login, session: Session, state: str, is_offered: bool
) -> None:
    fill(session)
    page = get(login(), f"{ANY}&state={state}").text
    assert ("Send all matching undelivered again" in page) == is_offered


def test_a_record_links_to_its_other_deliveries(login: Login, session: Session) -> None:
    """The link covers all times. A list of one record's deliveries has no such link."""
    fill(session)
    assert 'href="/insightly/deliveries?record=Contacts%3A8&amp;period=all"' in get(login()).text
    page = get(login(), f"{ANY}&record=Contacts:8").text
    assert records(page) == ["8"]
    assert 'class="record"' not in page


# --- details of one delivery -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_secret", [False, True])
def test_the_receivers_answer_takes_the_right_to_see_contents(
    login: Login, session: Session, strict: Refuse, is_secret: bool
) -> None:
    """The receiver's answer may repeat the message."""
    key = add_run(session, "one")
    store = LedgerStore(DatabaseStateStore(session, key), "1-0000000a")
    ledger = store.open(2, 3)
    ledger.expect("msg_a", about_of("Contacts", 7, "updated", ""))
    ledger.posting("msg_a")
    ledger.answered("msg_a", FAILED, PostOutcome(START, 0.1, 422, "answered 422", "no such Ms Smith"))
    store.write(ledger)
    session.commit()
    client = login()
    strict(secret={"flow"} if is_secret else ())
    page = get(client, address_of(key, "msg_a"), "delivery").text
    assert ("Ms Smith" in page) is not is_secret
    assert ("receiver's answer is stored" in page) is is_secret


def test_a_receivers_page_of_another_scheme_is_no_link(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to ``javascript:`` would run in the page."""
    hook = "airflow_insightly_hooks.hooks.webhook.WebhookHook.web_url"
    monkeypatch.setattr(hook, property(lambda _: "javascript:alert(1)"))
    monkeypatch.setenv(
        "AIRFLOW_CONN_BILLING", '{"conn_type": "insightly_webhook", "host": "https://b.example.com"}'
    )
    key = fill(session)
    assert "javascript:" not in get(login(), address_of(key, "msg_b"), "delivery").text


def test_a_large_payload_is_cut(login: Login, session: Session) -> None:
    key = fill(session)
    body = json.dumps({"entity": {"NOTE": "y" * 300_000}})
    with_payload(session, key.run_id, [payload("msg_b", body)])
    page = get(login(), address_of(key, "msg_b"), "delivery").text
    assert "Only its beginning is shown" in page
    assert len(page) < 2 * 210_000


class ElsewhereXCom(BaseXCom):
    """An XCom backend whose values can't be read in the API server."""

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Refuse it."""
        raise PermissionError(str(result))


@pytest.mark.parametrize("name", ["payloads.json", "payloads.json.gz"])
def test_a_payload_in_a_file_of_object_storage(
    login: Login, session: Session, object_storage: Path, name: str
) -> None:
    """It is shown, also from a chunk of payloads. No object that the file names is made."""
    key = fill(session)
    named = {"__classname__": "airflow.sdk.definitions.asset.Asset", "__version__": 1, "__data__": {}}
    text = json.dumps([[payload("msg_a")], [{**payload("msg_b", '{"in": "a file"}'), "more": named}]])
    path = object_storage / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    with_payload(session, key.run_id, path.as_uri())
    assert "in&#34;: &#34;a file" in get(login(), address_of(key, "msg_b"), "delivery").text


def test_a_payload_in_a_file_that_cannot_be_shown(
    login: Login, session: Session, object_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is gone, is too large (even if only unpacked), or is not one of the backend's files."""
    key = fill(session)
    path = object_storage / "payloads.json.gz"
    with_payload(session, key.run_id, path.as_uri())
    client, address = login(), address_of(key, "msg_b")
    page = get(client, address, "delivery").text
    assert "find the file. It was deleted" in page
    assert path.name not in page
    payloads = json.dumps([payload("msg_b", "x" * 10_000)])
    path.write_bytes(gzip.compress(payloads.encode()))
    assert "x" * 10_000 in get(client, address, "delivery").text
    with monkeypatch.context() as patch:
        patch.setattr(payload_search, "LARGEST_XCOM", 5_000)
        assert path.stat().st_size < 5_000
        assert "too large to be searched" in get(client, address, "delivery").text
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", (object_storage / "other").as_uri())
    assert "no longer in XCom" in get(client, address, "delivery").text
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", object_storage.as_uri())
    path.write_bytes(b"is no gzip " * 1_000)
    assert "kept by an XCom backend" in get(client, address, "delivery").text
    monkeypatch.setattr(payload_search, "LARGEST_XCOM", 5_000)  # an address has less
    assert "too large to be searched" in get(client, address, "delivery").text


@pytest.mark.parametrize(
    "address", ["file://{}/../aside/payloads.json", "file://other@{}/payloads.json", "file://{}-aside/a.json"]
)
def test_an_address_that_leads_out_of_the_object_storage(
    login: Login, session: Session, object_storage: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """It is treated as text, since a task can push any address."""
    key = fill(session)
    payloads = json.dumps([payload("msg_b", '{"is": "elsewhere"}')])
    for folder in ("storage", "aside", "storage-aside"):
        (object_storage / folder).mkdir()
        for name in ("payloads.json", "a.json"):
            (object_storage / folder / name).write_text(payloads)
    base = object_storage / "storage"
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", base.as_uri())
    with_payload(session, key.run_id, address.format(base))
    assert "elsewhere" not in get(login(), address_of(key, "msg_b"), "delivery").text


def test_payloads_that_cannot_be_shown(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task reads its records itself, its XComs are too large or too slow, or the backend
    can't be read from here.
    """
    key = fill(session)
    with_payload(session, key.run_id, [payload("msg_b")])
    client = login()
    address = address_of(key, "msg_b")
    with monkeypatch.context() as patch:
        patch.setattr(payload_search, "LARGEST_XCOM", 10)
        assert "too large to be searched" in get(client, address, "delivery").text
    with monkeypatch.context() as patch:
        patch.setattr(payload_search, "LONGEST_SEARCH", -1.0)
        assert "too large to be searched" in get(client, address, "delivery").text
    with monkeypatch.context() as patch:
        patch.setattr("airflow.sdk.execution_time.xcom.resolve_xcom_backend", lambda: ElsewhereXCom)
        session.execute(update(XComModel).where(XComModel.run_id == key.run_id).values(value="s3://msg_b"))
        session.commit()
        assert "kept by an XCom backend" in get(client, address, "delivery").text
    with DAG("own", schedule=None) as dag:
        WebhookOperator(task_id="deliver", payloads=[])
    add_dag(session, dag)
    own = add_run(session, "own", "own")
    write(session, own, {"msg_o": (7, "A", 1)})
    assert "payloads are not stored" in get(client, address_of(own, "msg_o"), "delivery").text


def test_the_same_message_in_a_dag_that_a_person_may_not_see(
    login: Login, session: Session, strict: Refuse
) -> None:
    add_workflow(session)
    left = add_run(session, "first", "w")
    write(session, left, {"msg_b": (8, "F", 1)}, left_to="w__retry")
    write(session, add_run(session, "again", "w__retry"), {"msg_b": (8, "F", 2)})
    client = login()
    assert "run_id=again" in get(client, address_of(left, "msg_b"), "delivery").text
    strict(hidden={"w__retry"})
    assert "again" not in re.findall(r"run_id=(\w+)", get(client, address_of(left, "msg_b"), "delivery").text)


def test_a_dags_tab_is_the_workflows(login: Login, session: Session) -> None:
    """This also holds for a delivery that the retry DAG has made."""
    add_workflow(session)
    key = add_run(session, "again", "w__retry")
    write(session, key, {"msg_b": (8, "F", 2)})
    page = get(login(), address_of(key, "msg_b", tab="dag"), "delivery").text
    assert 'href="/insightly/deliveries?tab=dag&amp;dag_id=w"' in page
