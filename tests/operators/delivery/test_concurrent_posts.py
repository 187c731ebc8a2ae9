"""The deliver task's options: order, sending again, undelivered payloads, giving up; log and metrics."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks.core.delivery.report import HELD
from airflow_insightly_hooks.core.errors import InvalidState, UndeliveredError
from airflow_insightly_hooks.hooks.webhook import PostResult, WebhookHook
from airflow_insightly_hooks.operators.common import progress_timer
from airflow_insightly_hooks.operators.delivery import concurrent_posts, ledger_writer, metrics
from airflow_insightly_hooks.operators.delivery.outcome import MissingPayloadsError
from airflow_insightly_hooks.operators.delivery.post_threads import PostThreads
from airflow_insightly_hooks.operators.webhook import UndeliverableError, WebhookOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import Connect, Logged, run_context
from tests.deliveries import CANARY, ask_again, deliver, payloads, recorded, undelivered
from tests.servers import answer, serving

DEAD_LETTERS = Asset("dead_letters")


@pytest.fixture(autouse=True)
def _no_contents_logged(logged: Logged) -> Iterator[None]:
    """No log line contains a record's contents."""
    yield
    assert CANARY not in logged.text


@pytest.fixture
def receiver(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox, with ``webhook_default`` leading to its request bin ``out``."""
    connect("webhook_default", host=sandbox.bin_url("out"), extra={"timeout": 2})
    return sandbox


def received_ids(sandbox: RunningSandbox) -> list[str]:
    return [kept["headers"]["webhook-id"] for kept in sandbox.received("out")]


def changes_of(record_ids: str, first: int = 0) -> list[dict[str, Any]]:
    """Return a payload for each letter, a record's name, in the order of their times."""
    made = payloads(len(record_ids), first)
    for second, (payload, record) in enumerate(zip(made, record_ids, strict=True)):
        payload["record_id"] = ord(record)
        payload["changed_at"] = f"2017-03-10T08:00:{second:02}Z"
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        {"give_up_after": -1},
        {"on_undelivered": "ignore"},
        {"undelivered_asset": DEAD_LETTERS},
    ],
)
def test_arguments_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    """Invalid arguments are refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        WebhookOperator(task_id="deliver", payloads=[], **arguments)


def test_a_context_may_be_small(receiver: RunningSandbox) -> None:
    """A context needs nothing but a state store."""
    store = run_context()["task_state_store"]
    receiver.answer_with("out", status=500, times=2)
    for _ in range(2):
        undelivered({"task_state_store": store}, payloads(1))
    given = {"on_undelivered": "report", "undelivered_asset": DEAD_LETTERS}
    receiver.answer_with("out", status=500)
    report = deliver({"task_state_store": store}, payloads(1), **given)
    assert (report["delivered"], report["attempts"]) == (0, 3)


# --- order -----------------------------------------------------------------------------------------------


def test_ordered(connect: Connect) -> None:
    """A record's changes arrive in the order of their times, even if they are slow. Others go in parallel."""
    given = changes_of("aabbab")
    with serving([0.05, answer()]) as server:
        connect("webhook_default", host=server.url)
        started = time.monotonic()
        report = deliver(run_context(), given[::-1], ordered=True)
        elapsed = time.monotonic() - started
    assert report["delivered"] == 6
    arrived = [request.headers["webhook-id"] for request in server.requests]
    assert [m for m in arrived if m in ("msg_0", "msg_1", "msg_4")] == ["msg_0", "msg_1", "msg_4"]
    assert [m for m in arrived if m in ("msg_2", "msg_3", "msg_5")] == ["msg_2", "msg_3", "msg_5"]
    assert elapsed >= 0.15
    assert set(arrived[:2]) == {"msg_0", "msg_2"}


def test_ordered_and_failing(connect: Connect) -> None:
    """If a change isn't delivered, later changes of its record stay unsent."""
    given = changes_of("aabba")
    context = run_context()
    with serving(lambda n: [answer("500 X" if n == 0 else "200 OK")]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(context, given, ordered=True, concurrency=1)
        assert [(i["message_id"], i["attempts"], i["error"]) for i in error.report["undelivered"]] == [
            ("msg_0", 1, "answered 500"),
            ("msg_1", 0, "not sent: an earlier change of the same record is undelivered"),
            ("msg_4", 0, "not sent: an earlier change of the same record is undelivered"),
        ]
        assert deliver(context, given, ordered=True)["delivered"] == 5
    arrived = [request.headers["webhook-id"] for request in server.requests]
    assert arrived[3:] == ["msg_0", "msg_1", "msg_4"]


def test_ordered_and_an_answer_after_giving_up(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late answer resumes sending, and the next change of its record is sent."""
    account, send = PostThreads._account, WebhookHook.send

    def slowly(*arguments: Any) -> None:
        time.sleep(0.2)  # in case the sender looks before all outcomes are recorded
        account(*arguments)

    def refused(self: WebhookHook, body: str, *, message_id: str, **arguments: Any) -> Any:
        if message_id != "msg_2":
            return send(self, body, message_id=message_id, **arguments)
        return PostResult(acknowledged=False, error="connection refused", sent=False)

    monkeypatch.setattr(PostThreads, "_account", slowly)
    monkeypatch.setattr(WebhookHook, "send", refused)
    with serving([0.3, answer()]) as server:
        connect("webhook_default", host=server.url)
        error = undelivered(run_context(), changes_of("aab"), ordered=True, concurrency=2, give_up_after=1)
    assert [request.headers["webhook-id"] for request in server.requests] == ["msg_0", "msg_1"]
    assert [item["error"] for item in error.report["undelivered"]] == ["connection refused"]


def test_ordered_behind_what_is_gone(receiver: RunningSandbox) -> None:
    """If the first change is refused for good, nothing is left to send, so there is no retry."""
    receiver.answer_with("out", status=410)
    assert isinstance(undelivered(run_context(), changes_of("aa"), ordered=True), UndeliverableError)
    assert received_ids(receiver) == ["msg_0"]


# --- sending again -------------------------------------------------------------------------------------


def test_what_was_asked_for_is_sent_again_once(receiver: RunningSandbox) -> None:
    """It is sent once more under the same id. A retry sends only what is missing of it.

    Other messages stay.
    """
    context = run_context()
    deliver(context, payloads(3))
    receiver.answer_with("out", status=500, match='"CONTACT_ID": 1,', times=1)
    ask_again(context, 0, 1)
    undelivered(context, payloads(3))
    assert sorted(received_ids(receiver)[3:]) == ["msg_0", "msg_1"]
    assert deliver(context, payloads(3))["delivered"] == 3
    assert received_ids(receiver)[5:] == ["msg_1"]
    context["ti"].max_tries += 3
    assert deliver(context, payloads(3))["delivered"] == 3
    assert len(received_ids(receiver)) == 6


def test_others_that_are_undelivered_stay_so(receiver: RunningSandbox, logged: Logged) -> None:
    """A task that was cleared for one message sends only that one, and reports the others.

    A clear sends them.
    """
    context = run_context()
    receiver.answer_with("out", status=500)
    for _ in range(3):
        undelivered(context, payloads(3))
    receiver.answer_with("out", status=200)
    ask_again(context, 1)
    report = undelivered(context, payloads(3)).report
    assert received_ids(receiver)[9:] == ["msg_1"]
    assert [item["error"] for item in report["undelivered"]] == [HELD, HELD]
    assert "1 message was asked to be sent again. Nothing else is sent" in logged.text
    context["ti"].max_tries += 3
    assert deliver(context, payloads(3))["delivered"] == 3
    assert sorted(received_ids(receiver)[10:]) == ["msg_0", "msg_2"]


def test_a_request_that_a_retry_takes_along(receiver: RunningSandbox) -> None:
    """A task that waits for its retry sends its own messages and the requested ones."""
    context = run_context()
    receiver.answer_with("out", status=500, match='"CONTACT_ID": 1,', times=1)
    undelivered(context, payloads(3))
    ask_again(context, 0, clears=False)
    assert deliver(context, payloads(3))["delivered"] == 3
    assert sorted(received_ids(receiver)[3:]) == ["msg_0", "msg_1"]


def test_two_requests_at_once(receiver: RunningSandbox) -> None:
    """Both are carried out: the one that clears the task, and the one that comes before its next try."""
    context = run_context()
    deliver(context, payloads(4))
    ask_again(context, 0)
    ask_again(context, 2, 0, clears=False)
    deliver(context, payloads(4))
    assert sorted(received_ids(receiver)[4:]) == ["msg_0", "msg_2"]


def test_what_is_gone_gets_new_attempts(receiver: RunningSandbox) -> None:
    """If the receiver has answered 410, a user's request sends the message once more."""
    context = run_context()
    receiver.answer_with("out", status=410, match='"CONTACT_ID": 1,')
    undelivered(context, payloads(2))
    receiver.answer_with("out", status=200)
    undelivered(context, payloads(2))
    ask_again(context, 1)
    assert deliver(context, payloads(2))["delivered"] == 2
    assert sorted(received_ids(receiver)) == ["msg_0", "msg_1", "msg_1"]


def test_a_message_whose_payload_is_gone(receiver: RunningSandbox) -> None:
    """A message that can't be sent again fails the task, with advice. The others are sent."""
    context = run_context()
    deliver(context, payloads(3))
    ask_again(context, 0, 2)
    with pytest.raises(MissingPayloadsError, match=r"\(msg_2\): .* Clear the run's first task") as caught:
        deliver(context, payloads(2))
    assert caught.value.messages == ["msg_2"]
    assert received_ids(receiver)[3:] == ["msg_0"]
    assert context["ti"].xcom["return_value"]["delivered"] == 2


def test_no_payloads_where_messages_were_asked_for(receiver: RunningSandbox) -> None:
    """An empty list is then no success. The error is reported once."""
    context = run_context()
    deliver(context, payloads(2))
    ask_again(context, 1)
    with pytest.raises(MissingPayloadsError):
        deliver(context, [])
    context["ti"].max_tries += 3
    assert deliver(context, [])["total"] == 0


def test_a_payload_whose_time_is_none(receiver: RunningSandbox) -> None:
    """The payload is delivered, and its stored record has no time."""
    (given,) = payloads(1)
    assert deliver(run_context(), [given | {"changed_at": None}])["delivered"] == 1


def test_a_request_that_cannot_be_read(receiver: RunningSandbox) -> None:
    """If the request can't be read, nothing is sent by mistake."""
    context = run_context()
    deliver(context, payloads(1))
    ask_again(context, 0)
    (key,) = [key for key in context["task_state_store"].values if key.startswith("resend/")]
    context["task_state_store"].delete(key)
    with pytest.raises(InvalidState, match="what to send again"):
        deliver(context, payloads(1))
    assert len(received_ids(receiver)) == 1


# --- what happens to undelivered payloads --------------------------------------------------------------


class Events(dict[Any, SimpleNamespace]):
    """``context["outlet_events"]``."""

    def __missing__(self, asset: Any) -> SimpleNamespace:
        return self.setdefault(asset, SimpleNamespace(extra={}))


def test_report_after_the_last_try(receiver: RunningSandbox) -> None:
    """Before the last try the task fails.

    In the last try it succeeds, and the asset's event has the report.
    """
    receiver.answer_with("out", status=500, match='"CONTACT_ID": 1,')
    context = run_context(outlet_events=Events())
    arguments = {"on_undelivered": "report", "undelivered_asset": DEAD_LETTERS}
    for number in (1, 2):
        context["ti"].try_number = number
        undelivered(context, payloads(3), **arguments)
    assert context["outlet_events"] == {}
    context["ti"].try_number = 3
    operator = WebhookOperator(task_id="deliver", payloads=payloads(3), **arguments)
    report = operator.execute(context)
    assert (report["total"], report["delivered"], report["undelivered"][0]["record_id"]) == (3, 2, 1)
    extra = context["outlet_events"][DEAD_LETTERS].extra
    assert extra == report
    assert CANARY not in json.dumps(extra)
    assert operator.outlets == [DEAD_LETTERS]


def test_report_of_what_was_never_sent(connect: Connect) -> None:
    """In the last try, payloads that could not be sent at all are also reported."""
    with serving([]) as server:
        pass
    connect("webhook_default", host=server.url)
    context = run_context()
    context["ti"].try_number = 3
    assert deliver(context, payloads(1), on_undelivered="report")["delivered"] == 0


def test_no_event_when_all_is_delivered(receiver: RunningSandbox) -> None:
    """Airflow emits an event for each outlet that exists at the end, so the asset is removed."""
    operator = WebhookOperator(
        task_id="deliver",
        payloads=payloads(1),
        outlets=[Asset("other")],
        on_undelivered="report",
        undelivered_asset=DEAD_LETTERS,
    )
    assert operator.outlets == [Asset("other"), DEAD_LETTERS]
    operator.execute(run_context(outlet_events=Events()))
    assert operator.outlets == [Asset("other")]


def test_a_killed_task_is_not_reported_as_done(connect: Connect) -> None:
    """Payloads that a kill has left unsent fail the task, even in its last try."""
    context = run_context()
    context["ti"].try_number = 3
    operator = WebhookOperator(
        task_id="deliver", payloads=payloads(9), on_undelivered="report", concurrency=1
    )
    with serving([lambda _: operator.on_kill(), answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError):
            operator.execute(context)


def test_mapped_tasks_have_the_asset_as_outlet(receiver: RunningSandbox) -> None:
    """The asset is an outlet once, in a DAG with a mapped task and in each of the mapped tasks."""
    with DAG("dag", schedule=None) as dag:
        mapped = WebhookOperator.partial(
            task_id="deliver",
            on_undelivered="report",
            undelivered_asset=DEAD_LETTERS,
            outlets=Asset("other"),
        ).expand(payloads=[payloads(1)])
    assert mapped.outlets == [Asset("other"), DEAD_LETTERS]
    DagSerialization.validate_schema(DagSerialization.to_dict(dag))
    task = mapped.unmap({"payloads": payloads(1)})
    assert task.outlets == [Asset("other"), DEAD_LETTERS]
    task.execute(run_context())
    assert task.outlets == [Asset("other")]


# --- concurrency, log, metrics ---------------------------------------------------------------------------


def test_an_overrun_receiver_gets_less_at_once(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, and 503 with Retry-After, halve the number of POSTs at once. A 503 alone doesn't."""
    limits: list[int] = []
    note = concurrent_posts.ConcurrentPosts._note

    def noted(self: concurrent_posts.ConcurrentPosts, future: Any) -> None:
        note(self, future)
        limits.append(self._receiver_limit.limit)

    monkeypatch.setattr(concurrent_posts.ConcurrentPosts, "_note", noted)
    for first, lowest in (["503 X"], 8), (["503 X", "Retry-After: 1"], 4), (["429 X"], 4):
        limits.clear()
        script = [answer(*first), *[answer()] * 39]
        with serving(lambda n, script=script: [0.02, script[n]]) as server:
            connect("webhook_default", host=server.url)
            undelivered(run_context(), payloads(40), concurrency=8)
        assert min(limits) == lowest
        assert limits[-1] > 4


@pytest.mark.parametrize(("share", "at_once"), [(0, 8), (1, 2)])
def test_as_many_threads_as_the_processor_has_use_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, share: int, at_once: int
) -> None:
    """If threads use up a processor, fewer of them POST. Otherwise as many POST as are allowed."""
    connect("webhook_default", host="http://127.0.0.1:1")
    under_way: list[int] = []
    seen: list[int] = []

    def send(*_: Any, **__: Any) -> PostResult:
        under_way.append(1)
        seen.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()
        return PostResult(acknowledged=True, status=200, elapsed=0.01)

    monkeypatch.setattr(WebhookHook, "send", send)
    monkeypatch.setattr(time, "process_time", lambda: share * time.monotonic())
    assert deliver(run_context(), payloads(200), concurrency=8)["delivered"] == 200
    assert max(seen[-50:]) == at_once


def test_threads_come_back_when_the_receiver_slows_down(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If answers become slow, as many threads as allowed POST before the first slow answer has come."""
    connect("webhook_default", host="http://127.0.0.1:1")
    operator = WebhookOperator(task_id="deliver", payloads=payloads(2_000), concurrency=8)
    under_way: list[int] = []
    all_at_once = threading.Event()
    until = time.monotonic() + 0.5

    def send(*_: Any, **__: Any) -> PostResult:
        under_way.append(1)
        if time.monotonic() < until:
            time.sleep(0.005)
        else:
            if len(under_way) == 8:
                all_at_once.set()
            all_at_once.wait(5)
            operator.on_kill()
        under_way.pop()
        return PostResult(acknowledged=True, status=200, elapsed=0.01)

    monkeypatch.setattr(WebhookHook, "send", send)
    monkeypatch.setattr(time, "process_time", lambda: min(time.monotonic(), until))
    with pytest.raises(UndeliveredError):
        operator.execute(run_context())
    assert all_at_once.is_set()


@pytest.mark.parametrize("ordered", [False, True])
def test_little_is_in_doubt_when_the_receiver_slows_down(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    """Messages that won't be sent within seconds are not in doubt if the task is killed. All are sent."""
    connect("webhook_default", host="http://127.0.0.1:1")
    context = run_context()
    given = payloads(1_500)
    operator = WebhookOperator(task_id="deliver", payloads=given, concurrency=8, ordered=ordered)
    sent: list[str] = []
    unsent: list[set[str]] = []

    def send(*_: Any, message_id: str, **__: Any) -> PostResult:
        sent.append(message_id)
        if len(sent) > 340 and not unsent:
            time.sleep(0.5)
        if len(sent) == 384 and not unsent:  # 2.5 s after the last fast one
            stored = recorded(context["task_state_store"])
            unsent.append({m for m, state in stored.items() if state[0] != "A"} - set(sent))
        return PostResult(acknowledged=True, status=200, elapsed=0.01)

    monkeypatch.setattr(WebhookHook, "send", send)
    assert operator.execute(context)["delivered"] == 1_500
    assert sorted(sent) == sorted(payload["message_id"] for payload in given)
    assert len(unsent[0]) <= 100  # a receiver of 16 a second; without the limit, a thousand


def test_a_machine_that_starts_few_threads(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If few threads start, they do all the work. If none starts, the error names this worker."""
    start = threading.Thread.start
    left = [2]

    def few(thread: threading.Thread) -> None:
        if thread.name.startswith("webhook_"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    with serving([answer()]) as server:
        connect("webhook_default", host=server.url)
        assert deliver(run_context(), payloads(30))["delivered"] == 30
        error = undelivered(run_context(), payloads(2))
        assert len(server.requests) == 30
    items = error.report["undelivered"]
    assert [(item["error"], item["attempts"]) for item in items] == [
        ("not sent: this worker has no more threads", 0)
    ] * 2


def test_ten_thousand_failures_make_a_short_log(receiver: RunningSandbox, logged: Logged) -> None:
    """Twenty failures are logged one by one. Then they are counted, and a table shows their kinds."""
    receiver.answer_with("out", status=500)
    undelivered(run_context(), payloads(300), concurrency=16)
    warnings = logged.messages("warning")
    assert len(warnings) == 21
    assert warnings[-1].startswith("Further failures are only counted")
    assert "Not acknowledged, by kind:\n      300  answered 500" in logged.text


def test_progress_is_logged(connect: Connect, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """During the work, a line every few seconds shows the progress."""
    monkeypatch.setattr(progress_timer, "PROGRESS_INTERVAL", 0.1)
    monkeypatch.setattr(ledger_writer, "LEDGER_INTERVAL", 0.1)
    with serving([0.1, answer()]) as server:
        connect("webhook_default", host=server.url)
        deliver(run_context(), payloads(6), concurrency=2)
    lines = [line for line in logged.messages("info") if " of 6 payloads sent, " in line]
    assert 1 <= len(lines) <= 4
    assert "0 failing" in lines[0]
    assert "s left" in lines[-1]


def test_metrics(receiver: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are counters and a timing, with the same tags as Airflow's own metrics of the task."""
    sent_metrics: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        metrics.stats, "incr", lambda name, count=1, *, tags: sent_metrics.append((name, count, tags))
    )
    monkeypatch.setattr(
        metrics.stats, "timing", lambda name, dt, *, tags: sent_metrics.append((name, dt, tags))
    )
    context = run_context()
    context["ti"].stats_tags = {"dag_id": "dag"}
    context["task_state_store"].set("delivery/0", {"msg_0": "D1"})
    context["task_state_store"].set("delivery", {"version": 1, "generation": 2, "blocks": 1})
    receiver.answer_with("out", status=500, match='"CONTACT_ID": 1,')
    undelivered(context, payloads(3))
    assert {tags["dag_id"] for *_, tags in sent_metrics} == {"dag"}
    assert {name: count for name, count, _ in sent_metrics if "latency" not in name} == {
        "insightly_webhook.in_doubt": 1,
        "insightly_webhook.delivered": 2,
        "insightly_webhook.undelivered": 1,
        "insightly_webhook.attempts": 3,
    }
    latencies = [dt for name, dt, _ in sent_metrics if name == "insightly_webhook.latency"]
    assert len(latencies) == 3
    assert all(0 < dt.total_seconds() < 5 for dt in latencies)


def test_a_report_that_cannot_be_stored(receiver: RunningSandbox, logged: Logged) -> None:
    """The task's own error is raised, not the failure to store the report in XCom."""
    receiver.answer_with("out", status=500)
    context = run_context()

    def fail(**_: Any) -> None:
        raise ConnectionError("secret")

    context["ti"].xcom_push = fail
    undelivered(context, payloads(1))
    (warning,) = [line for line in logged.messages("warning") if "stored" in line]
    assert warning.startswith("The report can't be stored: ConnectionError at test_concurrent_posts.py:")


def test_what_is_not_come_to_burns_no_attempt(connect: Connect) -> None:
    """Messages that were noted as about to be sent when the task was stopped are unsent again."""
    context = run_context()
    operator = WebhookOperator(task_id="deliver", payloads=payloads(50), concurrency=4)
    with serving([lambda _: operator.on_kill(), answer()]) as server:
        connect("webhook_default", host=server.url)
        with pytest.raises(UndeliveredError):
            operator.execute(context)
    assert 1 <= len(server.requests) <= 4
    assert recorded(context["task_state_store"]) == {f"msg_{n}": "A1" for n in range(len(server.requests))}
