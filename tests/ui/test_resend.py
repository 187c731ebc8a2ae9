"""Sending again from the pages: the confirmation, the rights, one request only, and the progress."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.resend_requests import read_requests
from airflow_insightly_hooks.database.deliveries import TaskKey
from airflow_insightly_hooks.database.resend import resend
from airflow_insightly_hooks.database.resend_progress import request_progress
from airflow_insightly_hooks.database.state import DatabaseStateStore
from airflow_insightly_hooks.ui.routes import resend as module
from tests.ledgers import add_run, at, write
from tests.ui.conftest import Login, Refuse
from tests.ui.html import fields_of, text_of

pytestmark = pytest.mark.usefixtures("flows")

Fields = dict[str, Any]


def fill(session: Session) -> tuple[TaskKey, TaskKey]:
    """Add messages that two DAGs have sent: one delivered and two failed, and one failed."""
    one = add_run(session, "one")
    write(session, one, {"msg_a": (7, "A", 1), "msg_b": (8, "F", 2), "msg_c": (9, "F", 2)})
    two = add_run(session, "two", "other")
    write(session, two, {"msg_x": (77, "F", 3)}, conn_id="erp")
    return one, two


def named(key: TaskKey, message: str) -> str:
    return json.dumps([*key[1:], message])


def post(client: Any, **fields: Any) -> Any:
    return client.post("/insightly/resend", data=fields)


def confirm(client: Any, page: str) -> Any:
    return client.post("/insightly/resend", data=fields_of(page))


def logs(session: Session) -> list[dict[str, Any]]:
    session.expire_all()
    found = session.scalars(select(Log).where(Log.event == "insightly_resend").order_by(Log.id))
    return [json.loads(log.extra or "") for log in found]


def asked_of(session: Session, key: TaskKey) -> list[set[str]]:
    session.expire_all()
    return [set(request.messages[""]) for request in read_requests(DatabaseStateStore(session, key))]


def run_task(session: Session, key: TaskKey, state: str, *, acknowledges: bool = True) -> None:
    """Have a task make its next try, as a worker does. It sends the requested messages."""
    base = DatabaseStateStore(session, key)
    store = LedgerStore(base, "4-0000000c")
    ledger = store.open(5, 3, [request.of_ledger("") for request in read_requests(base)])
    for message in ledger.requested:
        ledger.posting(message)
        if acknowledges:
            ledger.answered(message, ACKNOWLEDGED, PostOutcome(at(60), 0.1, 200, None))
        else:
            ledger.answered(message, FAILED, PostOutcome(at(60), 0.1, 500, "answered 500"))
    store.write(ledger)
    set_state(session, key, state)


def set_state(session: Session, key: TaskKey, state: str | None) -> None:
    session.execute(
        update(TaskInstance)
        .where(TaskInstance.run_id == key.run_id, TaskInstance.task_id == key.task_id)
        .values(state=state)
    )
    session.commit()


# --- what is shown before ----------------------------------------------------------------------------------


def test_nothing_happens_before_it_is_confirmed(login: Login, session: Session) -> None:
    """The page shows number, receivers and records. Then it makes the request, and links to its progress."""
    one, two = fill(session)
    client = login()
    answer = post(client, what="selected", delivery=[named(one, "msg_b"), named(two, "msg_x")])
    assert answer.status_code == 200
    text = text_of(answer.text)
    assert "Send 2 messages again?" in text
    assert "Receivers billing 1 erp 1" in text or "Receivers erp 1 billing 1" in text
    assert "2 tasks" in text
    assert "Records Contacts 77 Contacts 8" in text
    assert "already acknowledged" not in text
    assert logs(session) == asked_of(session, one) == asked_of(session, two) == []
    done = confirm(client, answer.text)
    assert done.status_code == 303
    request_id = fields_of(answer.text)["confirmed"][0]
    assert done.headers["location"] == f"/insightly/resend?id={request_id}&tasks=2"
    assert asked_of(session, one) == [{"msg_b"}]
    assert asked_of(session, two) == [{"msg_x"}]
    assert [(log["outcome"], log["request"]) for log in logs(session)] == [("cleared", request_id)] * 2
    owners = set(session.scalars(select(Log.owner).where(Log.event == "insightly_resend")))
    assert owners == {"admin"}
    assert client.get(done.headers["location"]).status_code == 200


def test_all_undelivered_that_match(login: Login, session: Session) -> None:
    """Delivered messages are not sent. The filter counts, and its period ends when the list was shown."""
    one, two = fill(session)
    client = login()
    page = post(client, what="undelivered", workflow="flow", period="all").text
    assert "Send 2 messages again?" in text_of(page)
    fields = fields_of(page)
    assert (fields["state"], fields["workflow"], fields["period"]) == (["undelivered"], ["flow"], ["range"])
    assert "to" in fields
    assert confirm(client, page).status_code == 303
    assert (asked_of(session, one), asked_of(session, two)) == ([{"msg_b", "msg_c"}], [])
    assert "workflow=flow" in logs(session)[0]["what"]


def test_acknowledged_ones_are_sent_a_second_time(login: Login, session: Session) -> None:
    one, _ = fill(session)
    text = text_of(post(login(), what="selected", delivery=[named(one, "msg_a")]).text)
    assert "1 message was already acknowledged. The receiver gets it again" in text


@pytest.mark.parametrize("way", ["running", "gone"])
def test_what_cannot_be_sent_is_said_before(login: Login, session: Session, way: str) -> None:
    one, two = fill(session)
    if way == "running":
        set_state(session, one, "running")
    else:
        session.query(XComModel).filter(XComModel.run_id == one.run_id).delete()
        session.commit()
    client = login()
    page = post(client, what="undelivered", period="all").text
    reason = {"running": "the task is running", "gone": "its payloads are gone from XCom"}[way]
    assert "2 messages can't be sent again now. The others can." in text_of(page)
    assert f"2 messages: {reason}" in text_of(page)
    done = confirm(client, page)
    assert (asked_of(session, one), asked_of(session, two)) == ([], [{"msg_x"}])
    text = text_of(client.get(done.headers["location"]).text)
    assert f"refused {reason}" in text


def test_what_has_changed_meanwhile_is_shown_again(login: Login, session: Session) -> None:
    """A user confirms only what the page has shown."""
    one, _ = fill(session)
    client = login()
    page = post(client, what="undelivered", workflow="flow", period="all").text
    write(session, one, {"msg_b": (8, "A", 5)}, token="2-0000000b")
    answer = confirm(client, page)
    assert answer.status_code == 200
    assert "have changed since the last page" in text_of(answer.text)
    assert logs(session) == []
    assert confirm(client, answer.text).status_code == 303
    assert asked_of(session, one) == [{"msg_c"}]


def test_what_comes_later_is_not_sent(login: Login, session: Session) -> None:
    """Messages that fail after the list was shown are not part of the confirmation."""
    fill(session)
    client = login()
    page = post(client, what="undelivered", workflow="flow", period="all").text
    later = add_run(session, "later")
    write(session, later, {"msg_z": (7, "F", 60 * 24 * 365 * 10)})
    assert confirm(client, page).status_code == 303
    assert asked_of(session, later) == []


def test_too_many(login: Login, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(session)
    monkeypatch.setattr(module, "MOST_RESENT", 2)
    answer = post(login(), what="undelivered", period="all")
    assert answer.status_code == 400
    assert "More than 2 messages match" in answer.text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"what": "all"},
        {"what": "selected"},
        {"what": "selected", "delivery": "x"},
        {"what": "selected", "delivery": "[" * 100_000},
        {"what": "selected", "delivery": '["flow", "one", "deliver", true, "", "msg_b"]'},
        {"what": "selected", "delivery": '["flow", "one", "deliver", -1, 7, "msg_b"]'},
        {"what": "selected", "delivery": '["flow", "one", "deliver", -1, "", "\\u0000"]'},
        {"what": "selected", "delivery": [f'["flow", "r{n}", "deliver", -1, "", "m"]' for n in range(501)]},
        {"what": "undelivered", "record": "x"},
        {"what": "undelivered", "state": "delivered"},
        {"what": "undelivered", "confirmed": "../x"},
    ],
)
def test_forms_that_say_nothing_clear(login: Login, session: Session, fields: Fields) -> None:
    fill(session)
    assert post(login(), **fields).status_code == 400
    assert logs(session) == []


def test_selected_ones_that_are_gone(login: Login, session: Session) -> None:
    one, _ = fill(session)
    text = text_of(post(login(), what="selected", delivery=[named(one, "msg_z")]).text)
    assert "Nothing to send again" in text
    assert "1 message is left out, because it is no longer stored" in text


@pytest.mark.parametrize("place", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_a_selection_that_no_database_takes(login: Login, session: Session, place: int, text: str) -> None:
    selection = ["flow", "one", "deliver", -1, "", "msg_b"]
    selection[place] = text
    answer = post(login(), what="selected", delivery=[json.dumps(selection)])
    assert (answer.status_code, logs(session)) == (400, [])


# --- once only ---------------------------------------------------------------------------------------------


def test_a_form_that_is_sent_twice_sends_once(login: Login, session: Session) -> None:
    """A double click or a reload leads to the progress of the first request."""
    one, _ = fill(session)
    client = login()
    page = post(client, what="selected", delivery=[named(one, "msg_b")]).text
    first, second = confirm(client, page), confirm(client, page)
    assert (first.status_code, second.status_code) == (303, 303)
    assert second.headers["location"] == first.headers["location"]
    run_task(session, one, "success")
    assert confirm(client, page).status_code == 303
    assert (len(logs(session)), asked_of(session, one)) == (1, [{"msg_b"}])


def test_two_at_the_same_moment(login: Login, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task takes a request once, even if the audit log doesn't have the first when the second comes."""
    one, _ = fill(session)
    client = login()
    page = post(client, what="selected", delivery=[named(one, "msg_b")]).text
    monkeypatch.setattr(module, "request_dags", lambda *_: [])
    confirm(client, page)
    again = confirm(client, page)
    assert again.status_code == 303
    assert (len(logs(session)), asked_of(session, one)) == (1, [{"msg_b"}])


def test_what_takes_long_goes_on_after_the_answer(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = fill(session)
    monkeypatch.setattr(module, "LONGEST_ANSWER", -1.0)
    client = login()
    done = confirm(client, post(client, what="undelivered", period="all").text)
    assert done.headers["location"].endswith("&tasks=2")
    assert (len(asked_of(session, one)), len(asked_of(session, two))) == (1, 1)


@pytest.mark.parametrize("asked", [0, 1])
def test_the_database_goes_away_in_the_middle(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    """The page names the tasks that were not asked, also if the form is sent again."""

    def until_it_is_away(*arguments: Any, **more: Any) -> Iterator[Any]:
        yield from islice(resend(*arguments, **more), asked)
        raise OperationalError("SELECT 1", {}, Exception("host=db password=x"))

    fill(session)
    client = login()
    page = post(client, what="undelivered", period="all").text
    with monkeypatch.context() as patch:
        patch.setattr(module, "resend", until_it_is_away)
        answer = confirm(client, page)
    assert len(logs(session)) == asked
    if not asked:
        assert answer.status_code == 503
        assert "may have been carried out" in text_of(answer.text)
        return
    for address in {answer.headers["location"], confirm(client, page).headers["location"]}:
        assert "1 task did not get the request yet" in text_of(client.get(address).text)


# --- who may -----------------------------------------------------------------------------------------------


def test_a_viewer_may_not(login: Login, session: Session) -> None:
    """The page says what was left out. A forged form changes nothing."""
    one, _ = fill(session)
    client = login("VIEWER")
    page = post(client, what="selected", delivery=[named(one, "msg_b")]).text
    assert "You need to be allowed to clear task instances of these DAGs" in text_of(page)
    fields = {"what": "selected", "delivery": named(one, "msg_b"), "confirmed": "0123456789ab", "seen": ""}
    assert post(client, **fields).status_code == 200
    assert logs(session) == []


def test_a_user_may(login: Login, session: Session) -> None:
    one, _ = fill(session)
    client = login("USER")
    assert (
        confirm(client, post(client, what="selected", delivery=[named(one, "msg_b")]).text).status_code == 303
    )
    assert asked_of(session, one) == [{"msg_b"}]


def test_nobody_without_a_login_or_from_elsewhere(login: Login, session: Session) -> None:
    one, _ = fill(session)
    fields = {"what": "selected", "delivery": named(one, "msg_b")}
    assert post(login(None), **fields).status_code == 401
    client = login()
    client.headers["Origin"] = "https://evil.example.com"
    assert post(client, **fields).status_code == 403


def test_dags_that_a_person_may_not_clear_are_left_out(
    login: Login, session: Session, strict: Refuse
) -> None:
    one, two = fill(session)
    client = login()
    strict(untouchable={"other"})
    page = post(client, what="undelivered", period="all").text
    assert "Send 2 messages again?" in text_of(page)
    assert "other: 1 message" in text_of(page)
    confirm(client, page)
    assert (asked_of(session, one), asked_of(session, two)) == ([{"msg_b", "msg_c"}], [])


def test_a_right_that_is_lost_before_it_is_confirmed(login: Login, session: Session, strict: Refuse) -> None:
    fill(session)
    client = login()
    page = post(client, what="undelivered", period="all").text
    strict(untouchable={"other"})
    answer = confirm(client, page)
    assert answer.status_code == 200
    assert "have changed since the last page" in answer.text
    assert logs(session) == []


def test_dags_that_a_person_may_not_see(login: Login, session: Session, strict: Refuse) -> None:
    """They are not named, and requests about them are refused."""
    _, two = fill(session)
    client = login()
    strict(hidden={"other"})
    page = post(client, what="undelivered", period="all").text
    assert "other" not in text_of(page).replace("The others can", "")
    assert post(client, what="selected", delivery=[named(two, "msg_x")]).status_code == 403
    assert post(client, what="undelivered", workflow="other").status_code == 403


# --- how far it is -----------------------------------------------------------------------------------------


def start(client: Any, session: Session, *named_messages: str) -> str:
    done = confirm(client, post(client, what="selected", delivery=list(named_messages)).text)
    assert done.status_code == 303
    return done.headers["location"]


def test_progress(login: Login, session: Session) -> None:
    """The request waits, is under way, and is done. Until then the page reloads itself."""
    one, two = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_a"), named(one, "msg_b"), named(two, "msg_x"))
    page = client.get(address).text
    assert f'data-refresh="{address.replace("&", "&amp;")}"' in page
    assert "waiting 3 under way 0 delivered 0" in text_of(page)
    set_state(session, one, "running")
    assert "waiting 1 under way 2 delivered 0" in text_of(client.get(address).text)
    run_task(session, one, "success")
    assert "waiting 1 under way 0 delivered 2" in text_of(client.get(address).text)
    run_task(session, two, "up_for_retry", acknowledges=False)
    page = client.get(address).text
    assert "data-refresh" in page
    assert "up for retry" in page
    set_state(session, two, "failed")
    page = client.get(address).text
    assert "data-refresh" not in page
    assert "Done: 2 messages delivered, 1 not." in text_of(page)
    assert "not delivered again 1" in text_of(page)


def test_a_task_that_ended_without_beginning(login: Login, session: Session) -> None:
    """A task that a user has set to success has sent nothing again."""
    one, _ = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_a"))
    set_state(session, one, "success")
    assert "Done: 0 messages delivered, 1 not." in text_of(client.get(address).text)


def test_all_arrived(login: Login, session: Session) -> None:
    one, _ = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_b"))
    run_task(session, one, "success")
    assert "Done: the message is delivered." in text_of(client.get(address).text)


def test_a_request_that_was_interrupted(login: Login, session: Session) -> None:
    """The address has the number of tasks that were to be asked."""
    one, _ = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_b")).replace("tasks=1", "tasks=3")
    run_task(session, one, "success")
    assert "2 tasks did not get the request yet" in text_of(client.get(address).text)
    session.execute(update(Log).where(Log.event == "insightly_resend").values(dttm=at(0)))
    session.commit()
    page = client.get(address).text
    assert "2 tasks did not get the request, because" in text_of(page)
    assert "data-refresh" not in page


def test_the_address_of_a_form_that_was_sent_can_be_loaded(login: Login) -> None:
    """Airflow keeps the address of the page that a form has led to, and loads it by GET."""
    answer = login().get("/insightly/resend")
    assert (answer.status_code, answer.headers["location"]) == (303, "/insightly/deliveries")


@pytest.mark.parametrize("query", ["id=0123456789ab", "id=%25", "id=" + "a" * 400])
def test_requests_that_there_are_not(login: Login, session: Session, query: str) -> None:
    assert login().get(f"/insightly/resend?{query}").status_code == 404


def test_progress_shows_what_a_person_may_see(login: Login, session: Session, strict: Refuse) -> None:
    one, two = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_b"), named(two, "msg_x"))
    strict(hidden={"other"})
    text = text_of(client.get(address).text)
    assert "Sending 1 message again" in text
    assert "includes workflows that you may not see" in text
    assert "two" not in text
    strict(hidden={"other", "flow"})
    assert client.get(address).status_code == 404


def test_in_a_tab_everything_stays_there(login: Login, session: Session) -> None:
    one, _ = fill(session)
    client = login()
    scope = {"tab": "dag_run", "dag_id": "flow", "run_id": "one"}
    page = post(client, what="selected", delivery=[named(one, "msg_b")], **scope).text
    assert 'class="top"' not in page
    assert "/insightly/deliveries?tab=dag_run&amp;dag_id=flow&amp;run_id=one" in page
    address = confirm(client, page).headers["location"]
    assert "tab=dag_run&dag_id=flow&run_id=one" in address
    page = client.get(address).text
    assert 'class="top"' not in page
    assert "/insightly/deliveries?tab=dag_run&amp;dag_id=flow&amp;run_id=one" in page


def test_a_request_of_many_tasks_is_cheap_to_follow(session: Session) -> None:
    """Ledgers of tasks that have not ended are not read."""
    fill(session)
    extra = json.dumps({"request": "0123456789ab", "what": "all", "messages": 1, "outcome": "cleared"})
    rows = [
        {"event": "insightly_resend", "dag_id": "flow", "run_id": "one", "task_id": "deliver", "map_index": n}
        | {"extra": extra, "owner": "ada", "dttm": at(number)}
        for number, n in enumerate(range(-1, 4_999))
    ]
    session.execute(insert(Log), rows)
    session.execute(update(TaskInstance).values(state="running"))
    session.commit()
    begin = time.monotonic()
    found = request_progress(session, "0123456789ab", ["flow"])
    assert time.monotonic() - begin < 5
    assert found is not None
    assert (len(found.tasks), found.is_done) == (5_000, False)
    assert {task.delivered for task in found.tasks} == {None}


@pytest.mark.parametrize("way", ["removed", "deleted"])
def test_a_task_that_is_gone_has_ended(login: Login, session: Session, way: str) -> None:
    """The page does not wait for it."""
    one, _ = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_a"))
    if way == "removed":
        set_state(session, one, "removed")
    else:
        session.execute(delete(TaskInstance).where(TaskInstance.run_id == one.run_id))
        session.commit()
    assert "data-refresh" not in client.get(address).text


def test_what_has_gone_wrong_is_listed_first(
    login: Login, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page lists a limited number of tasks, and says how many there are."""
    one, two = fill(session)
    client = login()
    address = start(client, session, named(one, "msg_b"), named(two, "msg_x"))
    run_task(session, two, "failed", acknowledges=False)
    page = text_of(client.get(address).text)
    assert page.index("other two deliver") < page.index("flow one deliver")
    run_task(session, one, "success")
    set_state(session, two, "running")
    monkeypatch.setattr(module, "SHOWN_TASKS", 1)
    page = text_of(client.get(address).text)
    assert "other two deliver" in page
    assert "flow one deliver" not in page
    assert "1 of 2 tasks are listed" in page


def test_a_message_of_several_tasks_is_sent_by_the_last(login: Login, session: Session) -> None:
    """An example is a message that a task has left, and that the retry DAG could not deliver."""
    first, last = add_run(session, "first"), add_run(session, "last")
    write(session, first, {"msg_b": (8, "F", 1)})
    write(session, last, {"msg_b": (8, "F", 5)})
    client = login()
    page = post(client, what="undelivered", period="all").text
    assert "Send 1 message again?" in text_of(page)
    confirm(client, page)
    assert (asked_of(session, first), asked_of(session, last)) == ([], [{"msg_b"}])
