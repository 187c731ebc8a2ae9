"""Killed tries of one task, in a CRM that keeps changing: what arrives, and how often."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from airflow_insightly_hooks import Webhook
from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.operators.one_task import batch_scheduling
from airflow_insightly_hooks.operators.webhook import UndeliverableError
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.conftest import AssetStateStores, TaskInstance, run_context
from tests.core.state.test_due_once import Power, PoweredStore
from tests.core.state.test_id_set import Crash
from tests.operators.one_task.test_resume import (
    _no_thread_is_left,
    _small_pages,
    add_contacts,
    crm,
    workflow,
)

__all__ = ["_no_thread_is_left", "_small_pages", "crm"]

SEEDS = range(12)
BATCH = 7
OUT = Webhook(name="Out", conn_id="out", concurrency=2, retries=20)
OTHER = Webhook(name="Other", conn_id="other", concurrency=2, retries=20, fields=["CONTACT_ID", "FIRST_NAME"])
LATER = Webhook(name="Later", conn_id="out", after="3d")
DAY = {"start": "2024-05-01T00:00:00Z", "end": "2024-05-02T00:00:00Z"}


class PoweredAssets(AssetStateStores):
    """A store for each asset. All stores share one Power."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self._power = power

    def __missing__(self, asset: Any) -> Any:
        return self.setdefault(asset, PoweredStore(self._power))


def posts(crm: RunningSandbox, name: str) -> Counter[tuple[int, str]]:
    """Return how often a receiver has acknowledged each message, with its record."""
    return Counter(
        (json.loads(kept["body"])["entity"]["CONTACT_ID"], kept["headers"]["webhook-id"])
        for kept in crm.received(name)
        if kept["acknowledged_with"] == 200
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost(crm: RunningSandbox, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Records are edited, deleted and added between and during tries, and the API's order changes."""
    chance = random.Random(seed)
    started: dict[str, Any] = {}
    power = Power()

    def start_run(dag_id: str, run_id: str, conf: dict[str, Any]) -> bool:
        power.spend()
        is_new = run_id not in started
        started.setdefault(run_id, conf)
        power.spend()
        return is_new

    monkeypatch.setattr(batch_scheduling, "start_run", start_run)
    evaluate = chance.choice(["created_and_edited", "until_triggered"])
    timed = [LATER] if chance.random() < 0.4 else []
    given = workflow(OUT, OTHER, *timed, evaluate=evaluate)
    stores = PoweredAssets(power)
    by_cursor = chance.random() < 0.5
    if by_cursor:
        run(run_context(ti=TaskInstance(run_id="scheduled__0"), asset_state_store=stores), given, None)
        crm.advance(seconds=5)
        ids = crm.create_many("Contacts", [{"FIRST_NAME": "old"}] * chance.randint(20, 90))
        crm.advance(seconds=5)
    else:
        ids = add_contacts(crm, chance.randint(20, 90))
    window = None if by_cursor else DAY
    stays = set(ids)  # nobody edits them
    edited: set[int] = set()
    deleted: set[int] = set()
    crm.configure(order=chance.choice(["id", "updated", "stable"]))
    if chance.random() < 0.5:
        some = str(chance.choice(ids))[:-1]  # ten of them, perhaps
        crm.answer_with("other", status=503, match=f'"CONTACT_ID":{some}', times=chance.randint(1, 30))
    began = crm.now().replace(microsecond=0)
    store = PoweredStore(power)
    context = run_context(task_state_store=store, asset_state_store=stores)
    kills = 0

    def edit() -> None:
        for _ in range(chance.randint(0, 6)):
            record_id = chance.choice(ids)
            if record_id in deleted:
                continue
            stays.discard(record_id)
            if chance.random() < 0.4:
                crm.delete("Contacts", record_id)
                deleted.add(record_id)
            else:
                crm.update("Contacts", record_id, FIRST_NAME=f"edited {chance.random()}")
                edited.add(record_id)
        if chance.random() < 0.5:
            edited.update(crm.create_many("Contacts", [{"FIRST_NAME": "new"}] * chance.randint(1, 5)))
        if chance.random() < 0.3:
            crm.configure(order=chance.choice(["id", "updated", "stable"]))

    for _ in range(chance.randint(1, 6)):
        power.calls_left = chance.randint(5, 150)
        try:
            run(context, given, window)
            break
        except Crash:
            kills += 1
        except UndeliverableError:
            break
        except UndeliveredError:
            pass
        finally:
            power.calls_left = None
        edit()
        crm.advance(seconds=5)  # just edited records keep a scan from ending
    else:
        finish(context, given, window)
    crm.advance(seconds=5)
    later = run_context(ti=TaskInstance(run_id="scheduled__2"), asset_state_store=stores)
    until = f"{crm.now():%Y-%m-%dT%H:%M:%SZ}"
    run(later, given, None if by_cursor else {"start": f"{began:%Y-%m-%dT%H:%M:%SZ}", "end": until})
    for name in ("out", "other"):
        sent = posts(crm, name)
        arrived = {record_id for record_id, _ in sent}
        assert stays <= arrived, (name, stays - arrived)
        assert edited - deleted <= arrived, (name, edited - deleted - arrived)
        extra = sum(sent.values()) - len(sent)
        assert extra <= kills * BATCH, (name, extra, kills)
        if evaluate == "until_triggered":
            assert max(Counter(record_id for record_id, _ in set(sent)).values()) == 1  # one message each
    if timed:
        counts = Counter(
            entry["record_id"] for conf in started.values() for entry in conf["pending"].get("later", ())
        )
        assert stays | (edited - deleted) <= set(counts)
        assert all(counts[record_id] == 1 for record_id in stays)


def finish(context: dict[str, Any], given: Any, window: dict[str, str] | None) -> None:
    """Run the task until it succeeds, or until Airflow would not try it again."""
    while True:
        try:
            run(context, given, window)
        except UndeliverableError:  # of a record that has left the window since
            return
        except UndeliveredError:
            continue
        return


def run(context: dict[str, Any], given: Any, window: dict[str, str] | None) -> Any:
    return InsightlyWorkflowOperator(
        task_id="flow",
        workflow=given,
        window=window,
        batch_size=BATCH,
        pending_dag_id="new_contacts__pending",
    ).execute(context)
