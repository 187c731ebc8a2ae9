"""Deliver tasks of several runs with one receiver: one waits, the others leave their messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, XComArg
from airflow.sdk.exceptions import DagRunTriggerException, DownstreamTasksSkipped

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.delivery.stored_deliveries import StoredLedger
from airflow_insightly_hooks.core.errors import (
    InvalidConnection,
    InvalidPayload,
    InvalidState,
    UndeliveredError,
)
from airflow_insightly_hooks.core.state.retry_queue import MessageSource, RetryQueue
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.delivery import metrics
from airflow_insightly_hooks.operators.pending import WakeUpOperator
from airflow_insightly_hooks.operators.retry_queue import (
    CollectRetriesOperator,
    LostPayloadsError,
    OrphanedMessagesError,
    RetryWebhookOperator,
    UnreadableQueueError,
)
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from airflow_insightly_hooks.operators.workflow_delivery import WorkflowWebhookOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import AssetStateStores, Connect, Logged, TaskInstance, run_context
from tests.deliveries import CANARY, ask_again, payloads

ASSET = records_asset("insightly_default", "Contacts")
WEBHOOK = "flow/out"
STATUS = f"receiver/{WEBHOOK}"
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_contents_logged(logged: Logged) -> Iterator[None]:
    yield
    assert CANARY not in logged.text


@pytest.fixture
def receiver(sandbox: RunningSandbox, connect: Connect) -> RunningSandbox:
    """The sandbox, with ``webhook_default`` leading to its request bin ``out``."""
    connect("webhook_default", host=sandbox.bin_url("out"), extra={"timeout": 2})
    return sandbox


@pytest.fixture
def assets() -> AssetStateStores:
    """The asset's state, shared by all runs."""
    return AssetStateStores()


def in_run(number: int, assets: AssetStateStores, dag_id: str = "flow", **conf: Any) -> dict[str, Any]:
    """Return the context of a run."""
    return run_context(
        ti=TaskInstance(dag_id, "deliver", f"run_{number}"),
        asset_state_store=assets,
        dag_run=SimpleNamespace(run_type="scheduled", run_after=datetime.now(timezone.utc), conf=conf),
    )


def deliver(context: dict[str, Any], given: Any, **arguments: Any) -> Any:
    operator = WorkflowWebhookOperator(
        task_id="deliver",
        payloads=given,
        payloads_task_id="build",
        retry_dag_id="flow__retry",
        asset=ASSET,
        webhook=WEBHOOK,
        **arguments,
    )
    return operator.execute(context)


def left(context: dict[str, Any], given: Any, **arguments: Any) -> DagRunTriggerException:
    """Run a deliver task that leaves its messages; return how it ends."""
    with pytest.raises(DagRunTriggerException) as caught:
        deliver(context, given, **arguments)
    assert caught.value.trigger_dag_id == "flow__retry"
    return caught.value


def fails(context: dict[str, Any], given: Any, **arguments: Any) -> UndeliveredError:
    with pytest.raises(UndeliveredError) as caught:
        deliver(context, given, **arguments)
    return caught.value


def status(assets: AssetStateStores) -> dict[str, Any]:
    return assets[ASSET].get(STATUS)


def sent(sandbox: RunningSandbox) -> list[str]:
    return [kept["headers"]["webhook-id"] for kept in sandbox.received("out")]


# --- the deliver task --------------------------------------------------------------------------------------


def test_one_run_waits_and_the_next_one_leaves_its_messages(
    receiver: RunningSandbox, assets: AssetStateStores, logged: Logged
) -> None:
    """It makes no POST: the receiver is down, and has asked to wait."""
    receiver.answer_with("out", status=503, headers={"Retry-After": "600"})
    before = datetime.now(timezone.utc)
    fails(in_run(1, assets), payloads(1))
    found = status(assets)
    assert (found["waiting"], found["is_down"]) == ("flow/run_1", True)
    assert api_time(found["retry_at"]) >= before + timedelta(seconds=600 * 1.2)
    second = in_run(2, assets)
    trigger = left(second, payloads(2, first=1))
    assert sent(receiver) == ["msg_0"]
    assert trigger.conf == {
        "left_by": {
            "dag_id": "flow",
            "run_id": "run_2",
            "task_id": "deliver",
            "map_index": -1,
            "payloads_task_id": "build",
            "messages": 2,
            "webhook": WEBHOOK,
            "not_before": found["retry_at"],
        }
    }
    assert second["ti"].xcom["unacknowledged"] == {"msg_1": "", "msg_2": ""}
    report = second["ti"].xcom["return_value"]
    assert (report["total"], report["delivered"], report["undelivered"], report["left"]) == (2, 0, [], 2)
    assert "has been failing since" in logged.text
    assert "Left to DAG 'flow__retry': 2 messages" in logged.text


def test_the_run_that_waits_goes_on(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """Its retry POSTs. Once the receiver is up, later runs POST at once."""
    receiver.answer_with("out", status=503, times=1)
    first = in_run(1, assets)
    fails(first, payloads(1))
    assert deliver(first, payloads(1))["delivered"] == 1
    assert status(assets)["is_down"] is False
    assert deliver(in_run(2, assets), payloads(1, first=1))["delivered"] == 1


def test_a_message_that_is_refused_holds_up_no_other(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """The receiver isn't down, so other runs POST. Their undelivered messages wait in the retry DAG."""
    receiver.answer_with("out", status=422, times=2)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    before = datetime.now(timezone.utc)
    trigger = left(second, payloads(2, first=1), concurrency=1)
    assert second["ti"].xcom["unacknowledged"] == {"msg_1": "F1"}
    assert second["ti"].xcom["return_value"]["delivered"] == 1
    assert api_time(trigger.conf["left_by"]["not_before"]) >= before + MINUTE
    assert sent(receiver) == ["msg_0", "msg_1", "msg_2"]


def test_a_status_that_is_out_of_date_keeps_nobody(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """The task that waited ended long ago."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1), retry_delay=timedelta(0))
    assert deliver(in_run(2, assets), payloads(1, first=1))["delivered"] == 1


def test_what_may_not_be_sent_again_fails_at_once(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """Another DAG could not send it either."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    assets[ASSET].set(STATUS, {**status(assets), "is_down": False})
    receiver.answer_with("out", status=410)
    assert isinstance(fails(in_run(2, assets), payloads(1, first=1)), UndeliverableError)


def test_a_connection_that_cannot_be_used(
    receiver: RunningSandbox, assets: AssetStateStores, connect: Connect
) -> None:
    """Only one run's task waits for it. The messages that others leave have made no attempt."""
    connect("webhook_default", host="ftp://receiver.example.com")
    with pytest.raises(InvalidConnection):
        deliver(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    left(second, payloads(1, first=1))
    assert second["ti"].xcom["unacknowledged"] == {"msg_1": ""}
    assert second["ti"].xcom["return_value"]["left"] == 1


def test_a_dry_run_leaves_nothing_and_tells_no_other_run(assets: AssetStateStores, connect: Connect) -> None:
    """An unusable connection fails it, and the retry DAG, which is a real run, gets nothing to send."""
    connect("webhook_default", host="ftp://receiver.example.com")
    with pytest.raises(InvalidConnection):
        deliver(in_run(1, assets), payloads(1))
    before = dict(assets[ASSET].values)
    second = in_run(2, assets)
    with pytest.raises(InvalidConnection):
        deliver(second, payloads(1, first=1), is_dry_run=True)
    assert assets[ASSET].values == before
    assert not [key for key in second["task_state_store"].values if key.startswith("left")]
    ledger = StoredLedger.find(second["task_state_store"].get)
    assert ledger is not None
    assert [m.state for m in ledger.messages(second["task_state_store"].get)] == ["dry run"]


def test_what_is_left_is_not_told_of_as_undelivered(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """Airflow emits an event for each outlet of a successful task, but the retry DAG may still deliver."""
    receiver.answer_with("out", status=503)
    fails(in_run(1, assets), payloads(1))
    undelivered = Asset(name="undelivered")
    operator = WorkflowWebhookOperator(
        task_id="deliver",
        payloads=payloads(1, first=1),
        payloads_task_id="build",
        retry_dag_id="flow__retry",
        asset=ASSET,
        webhook=WEBHOOK,
        on_undelivered="report",
        undelivered_asset=undelivered,
    )
    assert undelivered in operator.outlets
    with pytest.raises(DagRunTriggerException):
        operator.execute(in_run(2, assets))
    assert undelivered not in operator.outlets


def test_a_task_that_is_told_to_end_leaves_nothing(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """It fails: a user who stops it doesn't want another task to send."""
    receiver.answer_with("out", status=503)
    fails(in_run(1, assets), payloads(1))
    operator = WorkflowWebhookOperator(
        task_id="deliver",
        payloads=payloads(1),
        payloads_task_id="build",
        retry_dag_id="flow__retry",
        asset=ASSET,
        webhook=WEBHOOK,
    )
    operator.on_kill()
    with pytest.raises(UndeliveredError):
        operator.execute(in_run(2, assets))


def test_a_left_message_that_is_sent_again_before_the_retry_dag_has_sent(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """The delivery record says that messages are left. The retry DAG finds all of them, one acknowledged."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    left(second, payloads(2, first=1))
    ledger = StoredLedger.find(second["task_state_store"].get)
    assert ledger is not None
    assert {m.state for m in ledger.messages(second["task_state_store"].get)} == {"left"}
    ask_again(second, 1)
    left(second, payloads(2, first=1))
    assert sent(receiver) == ["msg_0", "msg_1"]
    assert second["ti"].xcom["unacknowledged"] == {"msg_1": "A1", "msg_2": ""}


def test_a_cleared_task_leaves_the_same(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """It triggers the same run, which exists once, so nothing is sent twice. On request, it sends."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    first = left(second, payloads(1, first=1))
    second["ti"].max_tries = 5
    assets[ASSET].delete(STATUS)  # meanwhile the receiver is up
    again = left(second, payloads(1, first=1))
    assert (again.dag_run_id, again.conf) == (first.dag_run_id, first.conf)
    assert again.skip_when_already_exists
    ask_again(second, 1)
    assert deliver(second, payloads(1, first=1))["delivered"] == 1
    assert sent(receiver) == ["msg_0", "msg_1"]


@pytest.mark.parametrize("damage", [None, "text", {"msg_1": ""}])
def test_a_part_of_what_was_left_is_missing(
    receiver: RunningSandbox, assets: AssetStateStores, damage: Any
) -> None:
    """Otherwise the task would send what the retry DAG sends, too."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    left(second, payloads(1, first=1))
    assets[ASSET].delete(STATUS)
    if damage is None:
        second["task_state_store"].delete("left/0")
    else:
        second["task_state_store"].set("left/0", damage)
    with pytest.raises(InvalidState, match="'left/0': it is missing, so it is not known what was left"):
        deliver(second, payloads(1, first=1))
    assert sent(receiver) == ["msg_0"]


def test_a_cleared_task_sends_what_is_new(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """A run that was cleared from its start may read more. Nobody has these messages yet."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    first = left(second, payloads(800, first=1))
    second["ti"].max_tries = 5
    assets[ASSET].delete(STATUS)
    receiver.answer_with("out", status=503, times=1)
    second["ti"].xcom.clear()
    fails(second, payloads(801, first=1))
    assert len(second["ti"].xcom["unacknowledged"]) == 800  # the retry DAG may not have read them yet
    again = left(second, payloads(801, first=1))
    assert again.dag_run_id == first.dag_run_id
    assert second["ti"].xcom["unacknowledged"].keys() == {f"msg_{n}" for n in range(1, 801)}
    assert sent(receiver) == ["msg_0", "msg_801", "msg_801"]


def test_a_cleared_task_with_new_payloads_fails_where_the_connection_cannot_be_used(
    receiver: RunningSandbox, assets: AssetStateStores, connect: Connect
) -> None:
    """Leaving them again would only leave the earlier messages."""
    receiver.answer_with("out", status=503)
    fails(in_run(1, assets), payloads(1))
    second = in_run(2, assets)
    left(second, payloads(1, first=1))
    connect("webhook_default", host="ftp://receiver.example.com")
    with pytest.raises(InvalidConnection):
        deliver(second, payloads(2, first=1))


def test_what_is_known_of_the_receiver_decides_nothing_else(
    receiver: RunningSandbox, assets: AssetStateStores, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it can't be read or stored, messages are still sent, tried again and reported."""

    def broken(*_given: Any) -> Any:
        raise ConnectionError("the API server is gone: secret")

    for name in ("get", "set"):
        monkeypatch.setattr(assets[ASSET], name, broken)
    receiver.answer_with("out", status=503, times=1)
    first = in_run(1, assets)
    fails(first, payloads(1))
    assert deliver(first, payloads(1))["delivered"] == 1
    assert "The receiver's status can't be kept for other runs: ConnectionError" in logged.text
    assert "secret" not in logged.text


def test_a_record_that_cannot_be_sent_says_nothing_of_the_receiver(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """Other runs' tasks neither wait for it nor leave their messages."""
    bad = {**payloads(1)[0], "body": "", "undeliverable": "its CUSTOMFIELDS are no list"}
    assert isinstance(fails(in_run(1, assets), [bad, *payloads(1, first=1)]), UndeliverableError)
    assert status(assets) is None
    assert sent(receiver) == ["msg_1"]


def test_a_test_run_leaves_nothing(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """It acts as if there were no other runs, for itself and for them."""
    receiver.answer_with("out", status=503)
    fails(in_run(1, assets), payloads(1))
    before = dict(assets[ASSET].values)
    context = in_run(2, assets)
    context["dag_run"].run_id = "__airflow_temporary_run_x"
    assert fails(context, payloads(1, first=1)).report["attempts"] == 1
    assert assets[ASSET].values == before


def test_metrics(receiver: RunningSandbox, assets: AssetStateStores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gauge shows for how long a receiver has been down."""
    gauges: list[tuple[str, float, str]] = []
    monkeypatch.setattr(
        metrics.stats, "gauge", lambda name, value, tags: gauges.append((name, value, tags["webhook"]))
    )
    receiver.answer_with("out", status=503, times=1)
    first = in_run(1, assets)
    fails(first, payloads(1))
    deliver(first, payloads(1))
    assert [(name, webhook) for name, _, webhook in gauges] == [
        ("insightly_webhook.failing_seconds", WEBHOOK)
    ] * 2
    assert gauges[-1][1] == 0


# --- the retry DAG -----------------------------------------------------------------------------------------


BOTH = {WEBHOOK: "deliver", "flow/other": "deliver_other"}


def retry_tasks(
    webhooks: dict[str, str] = BOTH, **arguments: Any
) -> tuple[CollectRetriesOperator, RetryWebhookOperator]:
    with DAG("flow__retry", schedule=None):
        collect = CollectRetriesOperator(task_id="collect", asset=ASSET, deliver_task_ids=webhooks)
        send = RetryWebhookOperator(
            task_id="deliver",
            payloads=XComArg(collect, key="payloads_deliver"),
            collect_task_id="collect",
            asset=ASSET,
            webhook=WEBHOOK,
            **arguments,
        )
        other = RetryWebhookOperator(
            task_id="deliver_other", payloads=[], collect_task_id="collect", asset=ASSET, webhook="flow/other"
        )
        collect >> [other, WakeUpOperator(task_id="wake_up", trigger_rule="all_done")]
    return collect, send


def collected(context: dict[str, Any], *, is_queued: bool = False) -> set[str]:
    """Run the collecting task; return the tasks that it has skipped."""
    context["ti"].get_dr_count = lambda **_asked: int(is_queued)
    collect, _ = retry_tasks()
    try:
        collect.execute(context)
    except DownstreamTasksSkipped as skipped:
        return set(skipped.tasks)
    return set()


def brings(number: int, assets: AssetStateStores, trigger: DagRunTriggerException) -> dict[str, Any]:
    """Return the context of the retry DAG's run that a deliver task has triggered."""
    assert trigger.conf
    return in_run(number, assets, "flow__retry", **trigger.conf)


def hand_over(context: dict[str, Any], of: dict[str, Any], given: Any) -> None:
    """Give a task of the retry DAG access to what a run of the workflow has in XCom."""
    run_id = of["ti"].run_id
    others = context["ti"].others
    if "unacknowledged" in of["ti"].xcom:
        others[run_id, "deliver", "unacknowledged"] = of["ti"].xcom["unacknowledged"]
    if given is not None:
        others[run_id, "build", "return_value"] = given


def test_messages_wait_and_are_sent_at_their_time(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """Each run that brings messages ends. One run sends all of them at their time."""
    receiver.answer_with("out", status=503, times=1, headers={"Retry-After": "600"})
    fails(in_run(1, assets), payloads(1))
    runs = [(in_run(n, assets), payloads(2, first=10 * n)) for n in (2, 3)]
    for context, given in runs:
        trigger = left(context, given)
        entering = brings(10 + context["ti"].xcom["return_value"]["left"], assets, trigger)
        entering["ti"].run_id = trigger.dag_run_id
        assert collected(entering) == {"deliver", "deliver_other"}
        assert collected(entering) == {"deliver", "deliver_other"}  # cleared, it adds nothing again
    assert entering["ti"].xcom["waiting"] == {
        WEBHOOK: {"messages": 4, "until": trigger.conf["left_by"]["not_before"]}
    }
    assert entering["ti"].xcom["next_due"] == trigger.conf["left_by"]["not_before"]
    assert collected(entering, is_queued=True) == {"deliver", "deliver_other", "wake_up"}

    due = in_run(20, assets, "flow__retry")
    due["dag_run"].run_after += timedelta(hours=1)
    for context, given in runs:
        hand_over(due, context, given)
    assert collected(due) == {"deliver_other", "wake_up"}
    found = due["ti"].xcom["payloads_deliver"]
    assert [payload["message_id"] for payload in found] == ["msg_20", "msg_21", "msg_30", "msg_31"]
    assert collected(due) == {"deliver_other", "wake_up"}  # cleared, it passes on the same
    assert due["ti"].xcom["payloads_deliver"] == found
    assert retry_send(due, found)["delivered"] == 4
    assert status(assets)["is_down"] is False


def retry_send(context: dict[str, Any], found: Any, **arguments: Any) -> Any:
    _, send = retry_tasks(**arguments)
    context["ti"].task_id = "deliver"
    if "lost_deliver" in context["ti"].xcom:
        context["ti"].others["collect", "lost_deliver"] = context["ti"].xcom["lost_deliver"]
    send.payloads = found
    return send.execute(context)


def test_what_waits_for_a_webhook_that_is_renamed(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """They are reported at their time, once, and don't stop other messages.

    Under the old name they can be sent.
    """
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    runs = [in_run(number, assets) for number in (2, 3)]
    for number, context in enumerate(runs, 2):
        trigger = left(context, payloads(1, first=number))
        assert trigger.conf
        if number == 2:  # for a webhook that no longer exists
            old = RetryQueue(assets[ASSET], "retry/flow/old")
            source = {name: trigger.conf["left_by"][name] for name in MessageSource._fields}
            old.enter(MessageSource.of(source), "run_12", api_time(trigger.conf["left_by"]["not_before"]))
            assets[ASSET].set("retry/flow__retry", ["flow/old"])
        else:
            collected(brings(13, assets, trigger))
    assert assets[ASSET].get("retry/flow__retry") == ["flow/old", WEBHOOK]
    first, second, third = (in_run(number, assets, "flow__retry") for number in (20, 21, 22))
    for context in (first, second, third):
        context["dag_run"].run_after += timedelta(hours=1)
        for of in runs:
            hand_over(context, of, payloads(1, first=int(of["ti"].run_id[-1])))
    assert collected(first) == {"deliver_other"}  # messages for other webhooks go first
    for _ in range(2):  # cleared, it finds the same
        with pytest.raises(
            OrphanedMessagesError, match=r"1 message waits for 'flow/old', of 1 run \(run_2\)"
        ):
            collected(second)
    assert collected(third) == {"deliver", "deliver_other", "wake_up"}
    renamed, _ = retry_tasks({"flow/old": "deliver"})
    with pytest.raises(DownstreamTasksSkipped):
        renamed.execute(second)
    assert [payload["message_id"] for payload in second["ti"].xcom["payloads_deliver"]] == ["msg_2"]


def test_a_test_takes_nothing(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """``airflow tasks test`` deletes its run, so no run would send the messages that it took."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    good = in_run(2, assets)
    collected(brings(12, assets, left(good, payloads(1, first=1))))
    before = dict(assets[ASSET].values)
    due = in_run(20, assets, "flow__retry")
    for run_id in ("__airflow_temporary_run_x", "run_20"):
        due["dag_run"].run_id = run_id
        due["dag_run"].run_after += timedelta(hours=1)
        hand_over(due, good, payloads(1, first=1))
        collected(due)
        assert [payload["message_id"] for payload in due["ti"].xcom["payloads_deliver"]] == ["msg_1"]
        assert (assets[ASSET].values == before) is (run_id != "run_20")


def test_a_wait_that_was_asked_for_is_not_shortened(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """One of several servers behind an address asks to wait for an hour, and another doesn't ask."""
    receiver.answer_with("out", status=503, times=1, headers={"Retry-After": "3600"})
    fails(in_run(1, assets), payloads(1))
    before = status(assets)
    receiver.answer_with("out", status=503)
    with pytest.raises(UndeliveredError):
        retry_send(in_run(2, assets, "flow__retry"), payloads(1, first=1))
    assert status(assets)["retry_at"] == before["retry_at"]
    trigger = left(in_run(3, assets), payloads(1, first=2))
    assert trigger.conf
    assert trigger.conf["left_by"]["not_before"] == before["retry_at"]


@pytest.mark.parametrize(
    ("retries", "posts"),
    [(0, [1]), (1, [2, 3]), (2, [3, 5, 6]), (5, [3, 6, 9, 12, 14, 15])],
)
def test_attempts_are_counted_on(
    receiver: RunningSandbox, assets: AssetStateStores, retries: int, posts: list[int]
) -> None:
    """There are ``1 + retries`` attempts in all, whichever task makes them. A clear begins another round."""
    receiver.answer_with("out", status=503)
    context = in_run(1, assets, "flow__retry")
    found = [
        {**payload, "earlier": earlier}
        for payload, earlier in zip(payloads(4), ("", "F1", "D2", "G1"), strict=True)
    ]
    for so_far in posts:
        with pytest.raises(UndeliveredError) as caught:
            retry_send(context, found, retries=retries)
        assert len(sent(receiver)) == so_far
    attempts = {item["message_id"]: item["attempts"] for item in caught.value.report["undelivered"]}
    allowed = 1 + retries
    assert attempts == {"msg_0": allowed, "msg_1": allowed, "msg_2": max(allowed, 2), "msg_3": 1}
    assert isinstance(caught.value, UndeliverableError)
    context["ti"].max_tries = 9
    with pytest.raises(UndeliveredError):
        retry_send(context, found, retries=retries)
    assert len(sent(receiver)) == posts[-1] + 4


def test_one_attempt_in_all(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """Without retries no message is sent twice: sent ones fail, and unsent ones are left and sent."""
    receiver.answer_with("out", status=503)
    assert isinstance(fails(in_run(1, assets), payloads(1), retries=0), UndeliverableError)
    second = in_run(2, assets)
    trigger = left(second, payloads(2, first=1), retries=0)
    assert sent(receiver) == ["msg_0"]
    due = brings(3, assets, trigger)
    due["dag_run"].run_after += timedelta(hours=1)
    hand_over(due, second, payloads(2, first=1))
    collected(due)
    with pytest.raises(UndeliverableError):
        retry_send(due, due["ti"].xcom["payloads_deliver"], retries=0)
    assert sorted(sent(receiver)) == ["msg_0", "msg_1", "msg_2"]


def test_payloads_that_are_gone_are_reported(receiver: RunningSandbox, assets: AssetStateStores) -> None:
    """Deleting a run deletes its payloads. All others are sent, and then the task fails."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    for number, given in ((2, payloads(1, first=2)), (3, None)):
        context = in_run(number, assets)
        trigger = left(context, payloads(1, first=number))
        due = brings(10 + number, assets, trigger)
        due["dag_run"].run_after += timedelta(hours=1) * (number == 3)
        if number == 2:
            first = context
            collected(due)
        else:
            hand_over(due, first, payloads(1, first=2))
            hand_over(due, context, given)
            collected(due)
    with pytest.raises(LostPayloadsError, match=r"1 payload is undelivered.*'run_3' of 'flow'"):
        retry_send(due, due["ti"].xcom["payloads_deliver"])
    assert sent(receiver) == ["msg_0", "msg_2"]
    assert due["ti"].xcom["return_value"]["delivered"] == 1


def test_a_conf_made_by_hand_takes_nothing_from_others(
    receiver: RunningSandbox, assets: AssetStateStores
) -> None:
    """If the conf points at something other than payloads, they count as lost, and all others are sent."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    good = in_run(2, assets)
    trigger = left(good, payloads(1, first=1))
    collected(brings(12, assets, trigger))
    assert trigger.conf
    found: list[tuple[Any, Any]] = [
        ([], []),
        ({"x": ""}, [{"record_id": 3}]),
        ({"msg_9": 3}, payloads(1, first=9)),
        ({"msg_9": ""}, None),
    ]
    due = in_run(20, assets, "flow__retry")
    due["dag_run"].run_after += timedelta(hours=1)
    for number, (unacknowledged, given) in enumerate(found, 30):
        by_hand = {**trigger.conf["left_by"], "run_id": f"run_{number}"}
        collected(in_run(number, assets, "flow__retry", left_by=by_hand))
        due["ti"].others[f"run_{number}", "deliver", "unacknowledged"] = unacknowledged
        due["ti"].others[f"run_{number}", "build", "return_value"] = given
    hand_over(due, good, payloads(1, first=1))
    collected(due)
    with pytest.raises(LostPayloadsError, match="4 payloads are undelivered"):
        retry_send(due, due["ti"].xcom["payloads_deliver"])
    assert sent(receiver) == ["msg_0", "msg_1"]


@pytest.mark.parametrize("broken", [WEBHOOK, "flow/other"])
def test_what_waits_for_one_receiver_cannot_be_read(
    receiver: RunningSandbox, assets: AssetStateStores, broken: str
) -> None:
    """Its task fails, and says what to do. Messages for other receivers are sent."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    good = in_run(2, assets)
    collected(brings(12, assets, left(good, payloads(1, first=1))))
    assets[ASSET].delete(f"retry/{broken}")
    assets[ASSET].set(f"retry/{broken}/0", [])
    due = in_run(20, assets, "flow__retry")
    due["dag_run"].run_after += timedelta(hours=1)
    hand_over(due, good, payloads(1, first=1))
    assert collected(due) == ({"deliver_other", "wake_up"} if broken == WEBHOOK else {"wake_up"})
    for key, value in due["ti"].xcom.items():
        due["ti"].others["collect", key] = value
    _, send = retry_tasks()
    due["ti"].task_id = "deliver" if broken == WEBHOOK else "deliver_other"
    send.payloads = []
    with pytest.raises(UnreadableQueueError, match=rf"'retry/{broken}'.*Then clear task 'collect'"):
        send.execute(due)
    if broken != WEBHOOK:
        assert retry_send(due, due["ti"].xcom["payloads_deliver"])["delivered"] == 1


@pytest.mark.parametrize(
    ("part", "value"), [("/0", None), ("/0", "text"), ("/0", [{"run_id": "run_2"}]), ("", "text")]
)
def test_a_part_of_what_a_run_has_taken_is_missing(
    receiver: RunningSandbox, assets: AssetStateStores, part: str, value: Any
) -> None:
    """The task of that receiver fails: otherwise its messages would be lost, and nobody would be told."""
    receiver.answer_with("out", status=503, times=1)
    fails(in_run(1, assets), payloads(1))
    good = in_run(2, assets)
    collected(brings(12, assets, left(good, payloads(1, first=1))))
    due = in_run(20, assets, "flow__retry")
    due["dag_run"].run_after += timedelta(hours=1)
    hand_over(due, good, payloads(1, first=1))
    collected(due)
    key = f"taken/{WEBHOOK}{part}"
    if value is None:
        due["task_state_store"].delete(key)
    else:
        due["task_state_store"].set(key, value)
    collected(due)  # once it was cleared
    assert due["ti"].xcom["payloads_deliver"] == []
    assert f"state {key!r}" in due["ti"].xcom["unreadable_deliver"]


@pytest.mark.parametrize(
    "conf", [3, {}, {"webhook": WEBHOOK}, {"webhook": "no/such"}, {"not_before": "soon", "messages": "x"}]
)
def test_a_conf_made_by_hand(assets: AssetStateStores, conf: Any) -> None:
    """One of our errors is raised, and nothing is added."""
    context = in_run(1, assets, "flow__retry", left_by=conf)
    with pytest.raises(InvalidPayload):
        collected(context)
    assert RetryQueue(assets[ASSET], f"retry/{WEBHOOK}").waiting == 0
