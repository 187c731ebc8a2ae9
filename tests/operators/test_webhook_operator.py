"""The deliver task: what it sends, what it sends again, and what it reports."""

from __future__ import annotations

import copy
import json
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.errors import (
    InvalidConnection,
    InvalidPayload,
    InvalidState,
    UndeliveredError,
)
from airflow_insightly_hooks.hooks.webhook import PostResult, WebhookHook
from airflow_insightly_hooks.operators.common.payload_chunks import MissingChunkError
from airflow_insightly_hooks.operators.delivery import concurrent_posts, ledger_writer
from airflow_insightly_hooks.operators.retry import RetryAfterPolicy
from airflow_insightly_hooks.operators.webhook import UndeliverableError, WebhookOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests import deliveries
from tests.conftest import Connect, Logged, StateStore, TaskInstance, run_context
from tests.deliveries import CANARY, ask_again, deliver, payloads, recorded
from tests.servers import RESET, answer, serving

PASSWORD = "Pa55-of-the-tests"


@pytest.fixture(autouse=True)
def _no_secrets_logged(logged: Logged) -> Iterator[None]:
    """No log line contains the password or a record's contents."""
    yield
    assert PASSWORD not in logged.text
    assert CANARY not in logged.text


@pytest.fixture
def receiver(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox, with ``webhook_default`` leading to its request bin ``out``."""
    connect(
        "webhook_default",
        host=sandbox.bin_url("out"),
        login="user",
        password=PASSWORD,
        extra={"timeout": 2},
    )
    return sandbox


def undelivered(context: dict[str, Any], given: Any, **arguments: Any) -> UndeliveredError:
    error = deliveries.undelivered(context, given, **arguments)
    assert PASSWORD not in str(error) + repr(error)
    assert CANARY not in str(error) + repr(error)
    assert context["ti"].xcom["return_value"] == error.report
    return error


def received_ids(sandbox: RunningSandbox, name: str = "out") -> list[str]:
    return [kept["headers"]["webhook-id"] for kept in sandbox.received(name)]


# --- arguments -------------------------------------------------------------------------------------------


def test_arguments_when_the_dag_is_parsed() -> None:
    """Invalid arguments are refused when the DAG is parsed. A URI's text is never shown."""
    with pytest.raises(ValueError, match="concurrency"):
        WebhookOperator(task_id="deliver", payloads=[], concurrency=0)
    uri = f"ftp://user:{PASSWORD}@receiver.example.com"
    for make in (
        lambda: WebhookOperator(task_id="deliver", payloads=[], uri=uri),
        lambda: WebhookOperator.partial(task_id="deliver", uri=uri),
    ):
        with pytest.raises(InvalidConnection) as caught:
            make()
        assert PASSWORD not in str(caught.value)
    assert WebhookOperator(task_id="deliver", payloads=[], uri="{{ var.value.receiver }}").task_id
    assert WebhookOperator.template_fields == ("payloads", "webhook_conn_id", "uri")


def test_retries() -> None:
    """Three attempts and the receiver's Retry-After are the default. DAG and task can change that."""
    operator = WebhookOperator(task_id="deliver", payloads=[])
    assert (operator.retries, operator.retry_delay) == (2, timedelta(seconds=60))
    assert isinstance(operator.retry_policy, RetryAfterPolicy)
    defaults = {"retries": 5, "retry_delay": timedelta(seconds=7), "retry_policy": None}
    with DAG("dag", schedule=None, default_args=defaults):
        operator = WebhookOperator(task_id="deliver", payloads=[])
        mapped = WebhookOperator.partial(task_id="mapped").expand(payloads=[[]])
        own = WebhookOperator(task_id="own", payloads=[], retries=0, retry_policy=RetryAfterPolicy())
    assert (operator.retries, operator.retry_delay) == (5, timedelta(seconds=7))
    assert operator.retry_policy is None
    assert (mapped.partial_kwargs["retries"], mapped.partial_kwargs["retry_policy"]) == (5, None)
    assert own.retries == 0
    assert isinstance(own.retry_policy, RetryAfterPolicy)


def test_retries_of_a_mapped_task() -> None:
    """A mapped task has the same defaults."""
    with DAG("dag", schedule=None):
        mapped = WebhookOperator.partial(task_id="mapped").expand(payloads=[payloads(1)])
    task = mapped.unmap({"payloads": payloads(1)})
    assert (task.retries, task.retry_delay) == (2, timedelta(seconds=60))
    assert isinstance(task.retry_policy, RetryAfterPolicy)


def test_can_be_copied() -> None:
    """Airflow makes deep copies of operators, for example for a part of a DAG."""
    with DAG("dag", schedule=None) as dag:
        WebhookOperator(task_id="deliver", payloads=payloads(1), uri="https://receiver.example.com")
    part = dag.partial_subset("deliver")
    assert part.get_task("deliver").webhook_conn_id == "webhook_default"
    assert copy.deepcopy(dag.get_task("deliver")).concurrency == 8


# --- one try ---------------------------------------------------------------------------------------------


def test_delivers_all(receiver: RunningSandbox, logged: Logged) -> None:
    """Each payload arrives once, byte for byte; the report counts them and the log has no line for each."""
    context = run_context()
    given = payloads(30)
    report = deliver(context, given)
    assert {k: report[k] for k in ("total", "delivered", "undelivered", "attempts")} == {
        "total": 30,
        "delivered": 30,
        "undelivered": [],
        "attempts": 30,
    }
    assert report["started_at"] <= report["ended_at"]
    assert report["ended_at"].endswith("Z")
    kept = receiver.received("out")
    assert sorted((one["headers"]["webhook-id"], one["body"]) for one in kept) == sorted(
        (one["message_id"], one["body"]) for one in given
    )
    assert {one["username"] for one in kept} == {"user"}
    sending, delivered, listed = logged.messages("info", "warning", "error")
    assert sending == (
        f"Sending 30 of 30 payloads to {receiver.bin_url('out')} (connection 'webhook_default'), "
        f"acknowledged already: 0"
    )
    assert delivered.startswith("30 of 30 payloads delivered, 30 POSTs in ")
    assert re.fullmatch(r"Delivered: (Contacts \d+ \(msg_\d+\)(, | )){20}and 10 more", listed)


def test_nothing_to_deliver(receiver: RunningSandbox) -> None:
    """An empty list succeeds at once, and nothing is stored."""
    context = run_context()
    report = deliver(context, [])
    assert (report["total"], report["delivered"], report["attempts"]) == (0, 0, 0)
    assert context["task_state_store"].values == {}


def test_uri_and_headers(receiver: RunningSandbox) -> None:
    """A URI stands for the connection, and the operator's headers go along."""
    uri = receiver.bin_url("byuri").replace("://", f"://us%40er:{PASSWORD}@")
    deliver(run_context(), payloads(1), uri=uri, headers={"x-team": "billing"})
    (kept,) = receiver.received("byuri")
    assert (kept["username"], kept["headers"]["x-team"]) == ("us@er", "billing")


@pytest.mark.parametrize(
    "given",
    [
        None,
        "payloads",
        {"message_id": "msg_1"},
        [1],
        [payloads(2)],
        [{"message_id": "msg_1"}],
        [*payloads(1), *payloads(1)],
        [{**payloads(1)[0], "body": {"entity": CANARY}}],
    ],
)
def test_refused_payloads(receiver: RunningSandbox, given: Any) -> None:
    """Anything but a list of payloads is refused, without its contents, before anything is sent."""
    with pytest.raises(InvalidPayload) as caught:
        deliver(run_context(), given)
    assert CANARY not in str(caught.value)
    assert receiver.received("out") == []


def test_unusable_connection(connect: Connect) -> None:
    """An unusable receiver fails the task before anything is sent. The ledger says why."""
    connect("webhook_default", host="receiver.example.com", schema="http", login="user", password=PASSWORD)
    context = run_context()
    with pytest.raises(InvalidConnection) as caught:
        deliver(context, payloads(1))
    assert PASSWORD not in str(caught.value)
    token = context["task_state_store"].get("delivery")["token"]
    head = context["task_state_store"].get(f"delivery/{token}/head")
    assert (head["counts"], head["about"]) == ({"failed": 1}, {"conn_id": "webhook_default"})
    assert str(caught.value) in context["task_state_store"].get(f"delivery/{token}/texts/0")
    assert PASSWORD not in str(context["task_state_store"].values)


def test_some_fail(receiver: RunningSandbox, logged: Logged) -> None:
    """Each failure is listed with status and reason, and has a log line. The others arrive."""
    receiver.answer_with("out", status=503, match='"CONTACT_ID": 3,', headers={"Retry-After": "77"})
    error = undelivered(run_context(), payloads(5))
    assert type(error) is UndeliveredError
    assert error.retry_after == 77
    assert error.report["delivered"] == 4
    assert error.report["attempts"] == 5
    assert error.report["undelivered"] == [
        {
            "message_id": "msg_3",
            "record_type": "Contacts",
            "record_id": 3,
            "event": "added",
            "status": 503,
            "error": "answered 503",
            "attempts": 1,
        }
    ]
    assert str(error).startswith("1 of 5 payloads is undelivered: Contacts 3 (answered 503). ")
    assert logged.messages("warning", "error") == [
        "Contacts 3 (msg_3) was not acknowledged, POST 1: answered 503"
    ]


def test_report_is_bounded(receiver: RunningSandbox) -> None:
    """A report lists the first 200 undelivered payloads, and counts them all."""
    receiver.answer_with("out", status=503)
    error = undelivered(run_context(), payloads(250), concurrency=32)
    report = error.report
    assert (report["total"], report["delivered"], report["attempts"]) == (250, 0, 250)
    assert [item["record_id"] for item in report["undelivered"]] == list(range(200))
    assert ", and 230 more. When no retry" in str(error)
    assert len(json.dumps(report)) < 48_000


def test_unexpected_error(receiver: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops no other payload. Its text is shown nowhere, but its place in the code is."""
    send = WebhookHook.send

    def fail_for_one(self: WebhookHook, body: str, *, message_id: str, **arguments: Any) -> Any:
        if message_id == "msg_1":
            raise RuntimeError(body)
        return send(self, body, message_id=message_id, **arguments)

    monkeypatch.setattr(WebhookHook, "send", fail_for_one)
    error = undelivered(run_context(), payloads(3))
    (item,) = error.report["undelivered"]
    assert item["message_id"] == "msg_1"
    assert re.fullmatch(r"unexpected RuntimeError at test_webhook_operator\.py:\d+", item["error"])


def test_an_unexpected_error_tells_nothing_of_the_receivers_speed(
    receiver: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that take longer than these errors don't count as slow. Concurrency stays the same."""
    side_by_side, most = [], []

    def send(_hook: WebhookHook, _body: str, *, message_id: str, **_: Any) -> PostResult:
        if message_id in ("msg_0", "msg_1"):
            raise RuntimeError
        side_by_side.append(message_id)
        time.sleep(0.3)
        most.append(len(side_by_side))
        side_by_side.remove(message_id)
        return PostResult(acknowledged=True, status=200, elapsed=0.3)

    monkeypatch.setattr(WebhookHook, "send", send)
    undelivered(run_context(), payloads(12), concurrency=2)
    assert 2 in most[-4:]


def test_bad_headers(receiver: RunningSandbox, connect: Connect) -> None:
    """Headers that can't be sent are refused once, before anything is sent.

    The error doesn't show the value.
    """
    connect("webhook_default", host=receiver.bin_url("out"))
    operator = WebhookOperator(task_id="deliver", payloads=payloads(2), headers={"x-key": "se\ncret"})
    with pytest.raises(InvalidPayload, match="x-key") as caught:
        operator.execute(run_context())
    assert "cret" not in str(caught.value)
    assert receiver.received("out") == []


def test_one_body_too_large(receiver: RunningSandbox, connect: Connect) -> None:
    """A payload that is refused before sending is reported as such, and has made no attempt."""
    connect("webhook_default", host=receiver.bin_url("out"), extra={"max_body_bytes": 1000})
    given = payloads(3)
    given[1]["body"] = "x" * 1001
    error = undelivered(run_context(), given)
    (item,) = error.report["undelivered"]
    assert (item["message_id"], item["status"], item["attempts"]) == ("msg_1", None, 0)
    assert "1000 are allowed" in item["error"]
    assert sorted(received_ids(receiver)) == ["msg_0", "msg_2"]


def test_what_cannot_be_delivered_is_reported_after_the_others_are_sent(
    receiver: RunningSandbox, logged: Logged
) -> None:
    """It is never sent, even on request. The task fails with its id and reason, and isn't retried."""
    given = payloads(4)
    given[1] |= {"body": "", "undeliverable": "CUSTOMFIELDS[0]: it must be an object, not null"}
    context = run_context()
    error = undelivered(context, given)
    assert isinstance(error, UndeliverableError)
    (item,) = error.report["undelivered"]
    assert item == {
        "message_id": "msg_1",
        "record_type": "Contacts",
        "record_id": 1,
        "event": "added",
        "status": None,
        "error": "no body can be built: CUSTOMFIELDS[0]: it must be an object, not null",
        "attempts": 0,
    }
    assert (error.report["total"], error.report["delivered"]) == (4, 3)
    assert "Contacts 1 (no body can be built: CUSTOMFIELDS[0]" in str(error)
    assert sorted(received_ids(receiver)) == ["msg_0", "msg_2", "msg_3"]
    ask_again(context, *range(4))
    again = undelivered(context, given)
    assert again.report["undelivered"] == error.report["undelivered"]
    assert "msg_1" not in received_ids(receiver)
    report = deliver(run_context(), given, on_undelivered="report")
    assert report["undelivered"] == error.report["undelivered"]


def test_what_cannot_be_delivered_holds_back_later_changes_of_its_record(receiver: RunningSandbox) -> None:
    """If the order counts, later changes wait for it, as for any undelivered change."""
    given = payloads(3)
    given[2] |= {"record_id": given[0]["record_id"], "changed_at": "2017-03-10T09:00:00Z"}
    given[0] |= {"body": "", "undeliverable": "its time is none"}
    error = undelivered(run_context(), given, ordered=True)
    assert [item["message_id"] for item in error.report["undelivered"]] == ["msg_0", "msg_2"]
    assert received_ids(receiver) == ["msg_1"]


# --- several tries ---------------------------------------------------------------------------------------


def test_retry_sends_what_is_missing(receiver: RunningSandbox) -> None:
    """A retry POSTs only what is not acknowledged, under the same id. A third try POSTs nothing."""
    context = run_context()
    receiver.answer_with("out", status=503, match='"CONTACT_ID": 3,', times=1)
    undelivered(context, payloads(5))
    before = len(receiver.received("out"))
    report = deliver(context, payloads(5))
    assert received_ids(receiver)[before:] == ["msg_3"]
    assert (report["delivered"], report["attempts"]) == (5, 6)
    assert deliver(context, payloads(5))["delivered"] == 5
    assert len(receiver.received("out")) == before + 1


def test_attempts_are_counted_over_tries(receiver: RunningSandbox) -> None:
    """The report counts each payload's POSTs over all tries."""
    context = run_context()
    receiver.answer_with("out", status=500)
    for number in (1, 2, 3):
        error = undelivered(context, payloads(2))
        assert [item["attempts"] for item in error.report["undelivered"]] == [number, number]
        assert error.report["attempts"] == 2 * number


def test_what_was_not_sent_is_no_attempt(connect: Connect) -> None:
    """A refused connection is no attempt, and the report names it."""
    with serving([]) as server:
        pass
    connect("webhook_default", host=server.url)
    error = undelivered(run_context(), payloads(2))
    assert [(i["attempts"], i["error"], i["status"]) for i in error.report["undelivered"]] == [
        (0, "connection refused", None)
    ] * 2
    assert error.report["attempts"] == 0
    assert error.retry_after is None


def test_gone(receiver: RunningSandbox) -> None:
    """410 ends a message: the task isn't retried, and the message isn't POSTed before a clear."""
    receiver.answer_with("out", status=410, match='"CONTACT_ID": 1,')
    context = run_context()
    error = undelivered(context, payloads(3))
    assert isinstance(error, UndeliverableError)
    assert isinstance(error, AirflowFailException)
    (item,) = error.report["undelivered"]
    assert (item["status"], item["attempts"]) == (410, 1)
    before = len(receiver.received("out"))
    error = undelivered(context, payloads(3))
    assert len(receiver.received("out")) == before
    assert "earlier try" in error.report["undelivered"][0]["error"]


def test_gone_and_failed(receiver: RunningSandbox) -> None:
    """While some messages may still be delivered, the task is retried. Gone messages are not sent."""
    receiver.answer_with("out", status=410, match='"CONTACT_ID": 1,')
    with serving([RESET]) as server:
        context = run_context()
        uri = receiver.bin_url("out")
        undelivered(context, payloads(2), uri=uri)
        error = undelivered(context, payloads(3), uri=server.url)
        assert type(error) is UndeliveredError
        assert [request.headers["webhook-id"] for request in server.requests] == ["msg_2"]


def test_longest_retry_after_counts(connect: Connect) -> None:
    """Of several answers, the longest wait counts."""
    waits = ["Retry-After: 5", "Retry-After: 30", "X: 1"]
    with serving(lambda n: [answer("503 X", waits[n])]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(run_context(), payloads(3), concurrency=1)
    assert error.retry_after == 30


def test_cleared_task(receiver: RunningSandbox) -> None:
    """A cleared task sends missing messages, even gone ones, with new attempts."""
    context = run_context()
    receiver.answer_with("out", status=410, match='"CONTACT_ID": 1,')
    undelivered(context, payloads(3))
    receiver.answer_with("out", status=500, match='"CONTACT_ID": 1,', times=1)
    before = len(receiver.received("out"))
    context["ti"].max_tries = 4
    error = undelivered(context, payloads(3))
    assert error.report["undelivered"][0]["attempts"] == 1
    report = deliver(context, payloads(3))
    assert received_ids(receiver)[before:] == ["msg_1", "msg_1"]
    assert report["delivered"] == 3


def test_interrupted_posts_are_sent_again(receiver: RunningSandbox) -> None:
    """Messages that a killed try left in doubt are POSTed again under the same id, as another attempt."""
    context = run_context()
    store = context["task_state_store"]
    store.set("delivery/0", {"msg_0": "A1", "msg_1": "D1", "msg_2": "F2"})
    store.set("delivery", {"version": 1, "generation": 2, "blocks": 1})
    report = deliver(context, payloads(4))
    assert sorted(received_ids(receiver)) == ["msg_1", "msg_2", "msg_3"]
    assert report["attempts"] == 1 + 2 + 3 + 1


@pytest.mark.parametrize(
    "state",
    [
        {"delivery": {"version": 2, "generation": 2, "blocks": 0}},
        {"delivery": {"version": 1, "generation": 2, "blocks": 1}},
        {"delivery": "x"},
        {"delivery": {"version": 1, "generation": 2, "blocks": 1}, "delivery/0": {"msg_0": "?"}},
        {"delivery": {"version": 3}},
    ],
)
def test_unreadable_ledger(receiver: RunningSandbox, state: dict[str, Any]) -> None:
    """An unreadable ledger stops the task, so that nothing is sent twice."""
    context = run_context()
    for key, value in state.items():
        context["task_state_store"].set(key, value)
    with pytest.raises(InvalidState):
        deliver(context, payloads(1))
    assert receiver.received("out") == []


# --- the ledger while it sends ---------------------------------------------------------------------------


def test_ledger_comes_before_the_first_post(connect: Connect) -> None:
    """The ledger is written before the first POST, and says that the message is in doubt."""
    context = run_context()
    seen: list[Any] = []
    store = context["task_state_store"]
    with serving([lambda _: seen.append(recorded(store)), answer()]) as server:
        connect("webhook_default", host=server.url)
        deliver(context, payloads(1))
    assert seen == [{"msg_0": "D1"}]
    assert recorded(store) == {"msg_0": "A1"}
    claim = store.get("delivery")
    assert (claim["version"], claim["epoch"], claim["of"]) == (2, 1, [])
    head = store.get(f"delivery/{claim['token']}/head")
    assert (datetime.now(timezone.utc) - api_time(head.pop("acknowledged_at"))).total_seconds() < 60
    assert head == {
        "generation": 2,
        "blocks": 1,
        "counts": {"acknowledged": 1},
        "about": {"conn_id": "webhook_default", "receiver": f"{server.url}/"},
    }


def test_no_post_that_the_ledger_does_not_know(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each payload is in the ledger before its POST, however long the interval between two writes."""
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 60)
    context = run_context()
    known: list[bool] = []

    def look(_: object) -> None:
        message_id = server.requests[-1].headers["webhook-id"]
        known.append(recorded(context["task_state_store"]).get(message_id) == "D1")

    with serving([look, answer()]) as server:
        connect("webhook_default", host=server.url)
        deliver(context, payloads(20), concurrency=1)
    assert known == [True] * 20


def test_ledger_is_written_in_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """During POSTs, even while one hangs, the ledger is written once an interval."""
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.1)
    context = run_context()
    store = context["task_state_store"]
    seen: list[Any] = []
    scripts = [[answer()], [0.35, lambda _: seen.append(recorded(store)), answer()]]
    with serving(lambda n: scripts[n]) as server:
        connect("webhook_default", host=server.url)
        deliver(context, payloads(2), concurrency=1)
    assert seen == [{"msg_0": "A1", "msg_1": "D1"}]
    assert recorded(store) == {"msg_0": "A1", "msg_1": "A1"}


def test_ledger_is_not_written_for_each_post(receiver: RunningSandbox) -> None:
    """The number of writes depends on time, not on payloads: batches double, and end with the interval."""
    context = run_context()
    started = time.monotonic()
    deliver(context, payloads(600), concurrency=16)
    elapsed = time.monotonic() - started
    writes = context["task_state_store"].writes
    assert len([key for key in writes if key.endswith("/0")]) <= elapsed + 6


class FailingStore(StateStore):
    """A store that works so many times, and then fails."""

    def __init__(self, works: int) -> None:
        super().__init__()
        self.works = works

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.works <= 0:
            raise ConnectionError("the API server is down")
        self.works -= 1
        super().set(key, value)


def test_store_that_fails_at_once(receiver: RunningSandbox) -> None:
    """Nothing is POSTed that can't be recorded."""
    with pytest.raises(ConnectionError):
        deliver(run_context(task_state_store=FailingStore(0)), payloads(5))
    assert receiver.received("out") == []


def test_store_that_fails_later(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store fails, sending stops within the interval. The next try continues from what is stored."""
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.1)
    monkeypatch.setattr(ledger_writer, "WRITE_AGAIN_AFTER", (0.01, 0.02))
    store = FailingStore(4)
    context = run_context(task_state_store=store)
    with serving([0.03, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(ConnectionError):
            deliver(context, payloads(50), concurrency=2)
        assert 0 < len(server.requests) < 20
        store.works = 1000
        assert deliver(context, payloads(50), concurrency=16)["delivered"] == 50


def test_concurrency(connect: Connect) -> None:
    """At most ``concurrency`` POSTs run at once, and that many do."""
    lock = threading.Lock()
    under_way, most = 0, 0

    def count(step: int) -> Callable[[object], None]:
        def change(_: object) -> None:
            nonlocal under_way, most
            with lock:
                under_way += step
                most = max(most, under_way)

        return change

    with serving([count(1), 0.05, count(-1), answer()]) as server:
        connect("webhook_default", host=server.url)
        deliver(run_context(), payloads(20), concurrency=5)
    assert most == 5
    assert len(server.requests) == 20


# --- being stopped ---------------------------------------------------------------------------------------


def test_kill(connect: Connect) -> None:
    """After a kill no new POST starts. Running POSTs end, and are recorded and reported."""
    context = run_context()
    operator = WebhookOperator(task_id="deliver", payloads=payloads(50), concurrency=2)
    threads = set(threading.enumerate())  # an earlier test's name look-up may still use one
    killed = threading.Event()

    def kill_at_the_second(_: object) -> None:
        if len(server.requests) == 2:
            operator.on_kill()
            killed.set()
        assert killed.wait(30)

    with serving([kill_at_the_second, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError) as caught:
            operator.execute(context)
        assert len(server.requests) == 2
        report = caught.value.report
        assert (report["delivered"], report["attempts"]) == (2, 2)
        assert {item["error"] for item in report["undelivered"]} == {"not sent: the task was stopped"}
        assert {item["attempts"] for item in report["undelivered"]} == {0}
        assert sorted(recorded(context["task_state_store"]).values()) == ["A1", "A1"]
        left = [thread for thread in threading.enumerate() if thread not in threads]
        assert not any(thread.name.startswith("webhook") for thread in left)
        assert deliver(context, payloads(50), concurrency=25)["attempts"] == 50
    assert len(server.requests) == 50


def test_kill_leaves_nothing_waiting(connect: Connect) -> None:
    """No POST waits behind the running ones, so a kill in the middle stops all others."""
    operator = WebhookOperator(task_id="deliver", payloads=payloads(50), concurrency=2)

    def kill_at_the_fourth(_: object) -> None:
        if len(server.requests) == 4:
            operator.on_kill()

    with serving([kill_at_the_fourth, 0.05, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError) as caught:
            operator.execute(run_context())
    assert 4 <= len(server.requests) <= 5
    assert caught.value.report["delivered"] == len(server.requests)


def test_kill_while_waiting_for_a_turn(connect: Connect) -> None:
    """A POST that waits for ``requests_per_second`` doesn't start either. The task ends at once."""
    operator = WebhookOperator(task_id="deliver", payloads=payloads(50), concurrency=8)
    with serving([lambda _: operator.on_kill(), answer()]) as server:
        connect("webhook_default", host=server.url, extra={"requests_per_second": 0.5})
        started = time.monotonic()
        with pytest.raises(UndeliveredError) as caught:
            operator.execute(run_context())
        assert time.monotonic() - started < 10  # eight turns are 14 s
    assert len(server.requests) == 1
    assert caught.value.report["attempts"] == 1


def test_pace(connect: Connect) -> None:
    """All POSTs of a task together keep the receiver's requests a second, however many run at once."""
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url, extra={"requests_per_second": 20})
        started = time.monotonic()
        assert deliver(run_context(), payloads(13), concurrency=8)["delivered"] == 13
        assert time.monotonic() - started >= 0.55  # the second-last turn comes after 0.55 s
    assert len(server.requests) == 13


def test_task_time_out(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out of the task ends it. Running POSTs are recorded, so they aren't POSTed again."""
    context = run_context()

    def interrupted(_: object) -> None:
        raise AirflowTaskTimeout

    monkeypatch.setattr(concurrent_posts.ConcurrentPosts, "_collect", interrupted)
    with serving([0.1, answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(AirflowTaskTimeout):
            deliver(context, payloads(9), concurrency=3)
        assert len(server.requests) == 3
    assert recorded(context["task_state_store"]) == {f"msg_{n}": "A1" for n in range(3)}
    report = context["ti"].xcom["return_value"]
    assert (report["total"], report["delivered"]) == (9, 3)
    assert {item["error"] for item in report["undelivered"]} == {"not sent: the task was stopped"}


def test_task_time_out_while_payloads_are_taken(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out between two steps of taking a payload ends the task like any other time-out."""
    context = run_context()
    posting = Ledger.posting

    def interrupted(self: Ledger, message: str) -> None:
        if message == "msg_35":
            raise AirflowTaskTimeout
        posting(self, message)

    monkeypatch.setattr(Ledger, "posting", interrupted)
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(AirflowTaskTimeout):
            deliver(context, payloads(60), concurrency=3)
        assert 0 < len(server.requests) < 35
    assert recorded(context["task_state_store"]) == {
        request.headers["webhook-id"]: "A1" for request in server.requests
    }
    assert context["ti"].xcom["return_value"]["delivered"] == len(server.requests)


def test_task_time_out_in_the_last_write(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out while the last answers are being recorded doesn't stop that."""
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 60.0)
    context = run_context(ti=TaskInstance())
    store = context["task_state_store"]
    write, interruptions = store.set, [AirflowTaskTimeout()]

    def interrupted(key: str, value: Any, **how: Any) -> None:
        if server.requests and interruptions:
            raise interruptions.pop()
        write(key, value, **how)

    store.set = interrupted
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(AirflowTaskTimeout):
            deliver(context, payloads(3))
    assert not interruptions
    assert recorded(store) == {f"msg_{n}": "A1" for n in range(3)}


def test_a_clear_after_fewer_retries_were_set(receiver: RunningSandbox, connect: Connect) -> None:
    """A clear begins a new round, even if the task's retries were lowered meanwhile."""
    connect("webhook_default", host=receiver.bin_url("out"))
    receiver.answer_with("out", status=410)
    context = run_context()
    context["ti"].max_tries = 5
    undelivered(context, payloads(1))
    receiver.answer_with("out", status=200)
    context["ti"].max_tries = 3
    assert deliver(context, payloads(1))["delivered"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"webhook_conn_id": f"https://user:{PASSWORD}@receiver.example.com"},
        {"uri": f"https://user:{PASSWORD}@{{{{ var.value.host }}}}/"},
        {"uri": "https://receiver.example.com", "webhook_conn_id": "other"},
        {"headers": ["x-team"]},
    ],
)
def test_what_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    """Refused: a URI as a connection's id, a password in a template, two receivers, invalid headers."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — several kinds of it
        WebhookOperator(task_id="deliver", payloads=[], **arguments)
    assert PASSWORD not in str(caught.value)


# --- errors and links ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [UndeliveredError, UndeliverableError])
def test_errors_survive_pickling(kind: type[UndeliveredError]) -> None:
    """The error keeps its report from process to process."""
    report = {"total": 1, "delivered": 0, "undelivered": [], "attempts": 1}
    error = pickle.loads(pickle.dumps(kind(report, 5.0)))  # noqa: S301 — made in the line itself
    assert (type(error), error.report, error.retry_after) == (kind, report, 5.0)


def test_chunks_are_independent(receiver: RunningSandbox) -> None:
    """Mapped tasks deliver their own chunks, each with its own ledger."""
    with DAG("dag", schedule=None):
        mapped = WebhookOperator.partial(task_id="deliver").expand(payloads=[payloads(2), payloads(2, 2)])
    for chunk in (payloads(2), payloads(2, 2)):
        context = run_context(ti=TaskInstance(task_id="deliver"))
        assert mapped.unmap({"payloads": chunk}).execute(context)["delivered"] == 2
    assert sorted(received_ids(receiver)) == ["msg_0", "msg_1", "msg_2", "msg_3"]


def reference(count: int, chunk: str = "chunk_1") -> dict[str, Any]:
    return {"chunk": chunk, "task_id": "build", "map_index": -1, "count": count}


def test_a_chunk_that_is_referred_to(receiver: RunningSandbox) -> None:
    """The task reads its own chunk and delivers it. Airflow shows only the reference."""
    ti = TaskInstance(task_id="deliver")
    ti.others = {("build", "chunk_0"): payloads(2), ("build", "chunk_1"): payloads(3, 2)}
    with DAG("dag", schedule=None):
        mapped = WebhookOperator.partial(task_id="deliver").expand(payloads=[reference(2)])
    task: Any = mapped.unmap({"payloads": reference(3)})
    assert task.payloads.serialize() == reference(3)
    report = task.execute(run_context(ti=ti))
    assert (report["total"], report["delivered"]) == (3, 3)
    assert sorted(received_ids(receiver)) == ["msg_2", "msg_3", "msg_4"]


@pytest.mark.parametrize("found", [None, [], payloads(2)])
def test_a_chunk_that_is_gone(receiver: RunningSandbox, found: Any) -> None:
    """Nothing is sent, and the task fails without a retry. The error says what to clear."""
    ti = TaskInstance(task_id="deliver")
    ti.others = {("build", "chunk_1"): found}
    task: Any = WebhookOperator(task_id="deliver", payloads=reference(3))
    with pytest.raises(MissingChunkError) as caught:
        task.execute(run_context(ti=ti))
    assert caught.value.found == len(found or [])
    assert isinstance(caught.value, AirflowFailException)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 — made in the line itself
    assert "the XCom 'chunk_1' of the task 'build' should hold 3 payloads and holds" in str(caught.value)
    assert received_ids(receiver) == []
