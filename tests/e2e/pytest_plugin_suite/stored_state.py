"""Which keys real runs store: tests that test_stored_state.py runs, in a pytest session of its own."""

from __future__ import annotations

from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.utils.session import create_session
from blocks import state
from sqlalchemy import select

from airflow_insightly_hooks import Webhook, Workflow

CHAT = Webhook(name="Chat", conn_id="chat_webhook")
LATER = Webhook(name="Later", conn_id="later_webhook", after="1h")
MODELS = {"asset": AssetStateStoreModel, "task": TaskStateStoreModel}
FIRST_PARTS = {
    "asset": {"cursor", "cursors", "pending", "receiver", "retry", "triggered"},
    "task": {
        *(
            "chat",
            "checkpoint",
            "decided",
            "delivery",
            "entered",
            "left",
            "looked_at",
            "reading",
            "run_counts",
        ),
        *("scheduled_records", "taken", "told", "triggered", "window"),
    },
}
"""What the keys begin with that these runs are there to store; without them, the test would say nothing."""


def workflow(name, mode):
    return Workflow(
        name=name, record_type="Tasks", webhooks=[CHAT, LATER], mode=mode, evaluate="until_triggered"
    )


def stored(store):
    with create_session() as session:
        return set(session.scalars(select(MODELS[store].key)))


def test_every_key_is_one_that_the_reference_lists(insightly_sandbox, insightly_connections, run_dag):
    """Both modes, a receiver that is down, messages that are left, webhooks with a time trigger."""
    chat = insightly_connections.receiver("chat_webhook")
    found = {"asset": set(), "task": set()}

    def run(name, mode):
        insightly_sandbox.create("Tasks", TITLE="Call Ada")
        outcome = run_dag(workflow(name, mode))
        note()
        return outcome

    def note():
        for store, keys in found.items():
            keys |= stored(store)

    chat.answer_with(status=503)
    assert run("Down", "tasks").state == "failed"
    assert run("Down", "tasks").xcom("deliver_chat")["left"] == 1
    assert run("All", "one_task").state == "failed"
    chat.answer_with(status=200)
    assert run("Down", "tasks").state == run("All", "one_task").state == "success"
    insightly_sandbox.advance(hours=2)
    assert {outcome.state for outcome in run_dag.due()} == {"success"}
    note()
    for store, keys in found.items():
        assert sorted(key for key in keys if not state.described(store, key)) == []
        assert FIRST_PARTS[store] - {key.partition("/")[0] for key in keys} == set()
