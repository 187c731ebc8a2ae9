"""What changes when a workflow gets another mode: nothing. test_pytest_plugin.py runs these tests, too."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.operators.common.mode_change import OtherModeError
from airflow_insightly_hooks.testing.dag_sources import dags_in

CHAT = Webhook(name="Chat", conn_id="chat_webhook")
LATER = Webhook(name="Later", conn_id="later_webhook", after="1h")
MODES = ("tasks", "one_task", "tasks", "one_task")


@pytest.fixture(autouse=True)
def _changes_are_stored_at_once(monkeypatch):
    """A DAG that Airflow has stored less than half a minute ago it would leave as it is."""
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")


def workflow(mode, *webhooks, **keys):
    return Workflow(name="Call", record_type="Tasks", webhooks=[CHAT, *webhooks], mode=mode, **keys)


def posts(receiver):
    """How often each record came, and under how many ids."""
    sent = [
        (json.loads(r["body"])["entity"]["TASK_ID"], r["headers"]["webhook-id"]) for r in receiver.requests
    ]
    return Counter(record for record, _ in sent), len(set(sent))


def ids(receiver):
    return sorted((r["headers"]["webhook-id"], r["body"]) for r in receiver.requests)


def test_the_mode_is_changed_from_run_to_run(insightly_sandbox, insightly_connections, run_dag):
    """Each run goes on where the one before has ended: every change is sent once."""
    chat = insightly_connections.receiver("chat_webhook")
    created = []
    for mode in MODES:
        created += [insightly_sandbox.create("Tasks", TITLE=f"{mode} {n}")["TASK_ID"] for n in range(3)]
        outcome = run_dag(workflow(mode))
        assert (outcome.state, len(outcome.tasks)) == ("success", 1 if mode == "one_task" else 4)
    assert posts(chat) == (Counter(created), len(created))


def test_nothing_is_read_in_between(insightly_sandbox, insightly_connections, run_dag):
    """A run without changes moves the cursor in both modes; what was seen before is not told again."""
    chat = insightly_connections.receiver("chat_webhook")
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    for mode in MODES:
        run_dag(workflow(mode))
    assert len(chat.requests) == 1


def test_messages_are_the_same(insightly_sandbox, insightly_connections, run_dag):
    """The same change has the same id and the same body, whichever mode sends it."""
    chat = insightly_connections.receiver("chat_webhook")
    insightly_sandbox.create("Tasks", TITLE="Call Ada")
    run_dag(workflow("tasks"))
    sent = ids(chat)
    run_dag(workflow("one_task", cursor="anew"))
    assert len(sent) == 1
    assert ids(chat) == sorted(sent * 2)


@pytest.mark.parametrize("modes", [("tasks", "one_task"), ("one_task", "tasks")])
def test_what_has_triggered_is_remembered(insightly_sandbox, insightly_connections, run_dag, modes):
    """A record triggers once, whichever mode has seen it first."""
    chat = insightly_connections.receiver("chat_webhook")
    keys = {
        "evaluate": "until_triggered",
        "criteria": {"field": "TITLE", "operator": "starts_with", "value": "Call"},
    }
    first = insightly_sandbox.create("Tasks", TITLE="Call Ada")["TASK_ID"]
    waits = insightly_sandbox.create("Tasks", TITLE="Write to Bob")["TASK_ID"]
    run_dag(workflow(modes[0], **keys))
    for record in (first, waits):
        insightly_sandbox.update("Tasks", record, TITLE="Call again")
    run_dag(workflow(modes[1], **keys))
    assert posts(chat) == (Counter([first, waits]), 2)
    for record in (first, waits):
        insightly_sandbox.update("Tasks", record, TITLE="Call once more")
    run_dag(workflow(modes[0], **keys))
    assert len(chat.requests) == 2


@pytest.mark.parametrize("mode", ["tasks", "one_task"])
def test_a_receiver_that_fails_twice(insightly_sandbox, insightly_connections, run_dag, mode):
    """Both modes try what is not acknowledged three times, under one id, and leave alone what has arrived."""
    chat = insightly_connections.receiver("chat_webhook")
    chat.answer_with(status=503, times=2)
    for title in ("Call Ada", "Call Bob"):
        insightly_sandbox.create("Tasks", TITLE=title)
    outcome = run_dag(workflow(mode))
    counts, messages = posts(chat)
    assert (outcome.state, len(counts), messages, sum(counts.values())) == ("success", 2, 2, 4)


def test_what_waits_in_the_retry_dag_is_sent_in_the_other_mode(
    insightly_sandbox, insightly_connections, run_dag
):
    """A run leaves a message, since another one waits for the receiver; then the mode changes."""
    chat = insightly_connections.receiver("chat_webhook")
    chat.answer_with(status=503)
    failed = insightly_sandbox.create("Tasks", TITLE="Call Ada")["TASK_ID"]
    assert run_dag(workflow("tasks")).state == "failed"
    left = insightly_sandbox.create("Tasks", TITLE="Call Bob")["TASK_ID"]
    outcome = run_dag(workflow("tasks"))
    assert (outcome.state, outcome.xcom("deliver")["left"]) == ("success", 1)
    assert [run.dag_id for run in outcome.queued] == ["call__retry"]
    chat.answer_with(status=200)
    new = insightly_sandbox.create("Tasks", TITLE="Call Cleo")["TASK_ID"]
    assert run_dag(workflow("one_task")).state == "success"
    assert posts(chat) == (Counter({failed: 3, new: 1}), 2)
    insightly_sandbox.advance(minutes=5)
    (sent,) = run_dag.due()
    assert (sent.dag_id, sent.state) == ("call__retry", "success")
    assert posts(chat) == (Counter({failed: 3, new: 1, left: 1}), 3)


@pytest.mark.parametrize("modes", [("tasks", "one_task"), ("one_task", "tasks")])
def test_what_is_pending_is_sent_in_the_other_mode(insightly_sandbox, insightly_connections, run_dag, modes):
    """What one mode has scheduled is sent at its time, once; the other mode schedules what comes then."""
    later = insightly_connections.receiver("later_webhook")
    first = insightly_sandbox.create("Tasks", TITLE="Call Ada")["TASK_ID"]
    outcome = run_dag(workflow(modes[0], LATER))
    assert [(run.dag_id, run.state) for run in outcome.started] == [("call__pending", "success")]
    insightly_sandbox.advance(minutes=30)
    second = insightly_sandbox.create("Tasks", TITLE="Call Bob")["TASK_ID"]
    run_dag(workflow(modes[1], LATER))
    assert later.requests == []
    insightly_sandbox.advance(minutes=35)
    run_dag.due()
    assert posts(later) == (Counter([first]), 1)
    insightly_sandbox.advance(minutes=30)
    run_dag.due()
    assert posts(later) == (Counter([first, second]), 2)
    assert posts(insightly_connections.receivers["chat_webhook"]) == (Counter([first, second]), 2)


@pytest.mark.parametrize("mode", ["tasks", "one_task"])
def test_each_webhook_has_its_own_keys(insightly_sandbox, insightly_connections, run_dag, mode):
    """One is tried again, one is not and only reported, one is sent later: each as its keys say."""
    names = ("chat_webhook", "log_webhook", "later_webhook")
    chat, log, later = (insightly_connections.receiver(name) for name in names)
    chat.answer_with(status=503, times=1)
    log.answer_with(status=500)
    reported = Webhook(
        name="Log", conn_id="log_webhook", retries=0, on_undelivered="report", undelivered_asset="dead"
    )
    created = [insightly_sandbox.create("Tasks", TITLE=f"Call {n}")["TASK_ID"] for n in range(3)]
    outcome = run_dag(workflow(mode, reported, LATER))
    assert outcome.state == "success"
    counts, messages = posts(chat)
    assert (set(counts), messages, sum(counts.values())) == (set(created), 3, 4)
    assert posts(log) == (Counter(created), 3)
    assert [run.dag_id for run in outcome.started] == ["call__pending"]  # once, though one mode tries again
    insightly_sandbox.advance(minutes=61)
    run_dag.due()
    assert posts(later) == (Counter(created), 3)


def go_on(run_dag, run_id, made, *, clears=False):
    """Have a run go on with the DAG that a workflow makes now, as Airflow's scheduler does."""
    from airflow.models.dag_version import DagVersion
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run_dag._dags.update({dag.dag_id: dag for dag in dags_in(made, None)[1]})
    loop = run_dag._loop(60)
    loop.store_dags()
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == "call", DagRun.run_id == run_id)).one()
        run.dag = loop._serialized("call")
        if clears:
            run.dag.clear(run_id=run_id, only_failed=False, session=session)
        latest = DagVersion.get_latest_version("call", session=session)
        assert not run.check_version_id_exists_in_dr(latest.id, session=session)
        run.verify_integrity(dag_version_id=latest.id, session=session)
    return loop.finish("call", run_id)


@pytest.mark.parametrize("modes", [("tasks", "one_task"), ("one_task", "tasks")])
def test_a_run_that_is_active_while_the_mode_changes(
    insightly_sandbox, insightly_connections, run_dag, modes
):
    """It fails rather than forget what it has read; in its old mode, cleared, it sends what is missing."""
    chat = insightly_connections.receiver("chat_webhook")
    records = [insightly_sandbox.create("Tasks", TITLE=f"Call {n}")["TASK_ID"] for n in range(3)]
    chat.answer_with(status=503, match=f'"TASK_ID":{records[-1]},')
    with pytest.raises(TimeoutError, match="up_for_retry"):
        run_dag(workflow(modes[0], retries=900), timeout=15)
    tried = len(chat.requests) - 2
    chat.answer_with(status=200)
    (run_id,) = active_runs()
    outcome = go_on(run_dag, run_id, workflow(modes[1]))
    assert outcome.state == "failed"
    assert [type(error) for error in outcome.errors.values()] == [OtherModeError]
    assert posts(chat) == (Counter({records[0]: 1, records[1]: 1, records[2]: tried}), 3)
    new = insightly_sandbox.create("Tasks", TITLE="Call Ada")["TASK_ID"]
    run_dag(workflow(modes[1]))
    outcome = go_on(run_dag, run_id, workflow(modes[0]), clears=True)
    assert outcome.state == "success"
    assert posts(chat) == (Counter({records[0]: 1, records[1]: 1, records[2]: tried + 1, new: 1}), 4)


def active_runs():
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return session.scalars(select(DagRun.run_id).where(DagRun.dag_id == "call")).all()
