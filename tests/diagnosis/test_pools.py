"""Findings about pools: pools that run nothing, and limits that tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from airflow.models.pool import Pool
from airflow.sdk import DAG
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.database.setup.pools import PooledTask, pool_slots, pooled_tasks
from airflow_insightly_hooks.diagnosis.diagnosis import diagnose
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding
from airflow_insightly_hooks.diagnosis.pools import check_pools, check_shared_limit
from airflow_insightly_hooks.operators.webhook import WebhookOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from tests.conftest import Connect
from tests.metadata_database import add_dag, metadata_database

SLOTS = {"default_pool": 128, "billing": 1, "four": 4, "closed": 0, "endless": -1}


@pytest.fixture
def session() -> Any:
    with metadata_database() as sessions, sessions() as session:
        yield session


def task(pool: str, dag_id: str = "d", conn_id: str = "billing") -> PooledTask:
    return PooledTask(dag_id, "deliver", pool, frozenset([conn_id]))


# --- pools that run nothing --------------------------------------------------------------------------------


def test_a_pool_that_is_missing() -> None:
    """It is a problem that names the DAGs, and the command that makes it."""
    tasks = [task("biling", f"d{number}") for number in range(7)] + [task("billing", "other")]
    (found,) = check_pools(tasks, SLOTS)
    assert found.subject == "pool biling"
    assert found.level == PROBLEM
    assert "'d0', 'd1', 'd2', 'd3', 'd4' and 2 more" in found.finding
    assert "airflow pools set biling 1" in found.what_to_do


def test_the_command_holds_for_any_name() -> None:
    """A name with blanks or a shell's special characters is quoted."""
    (found,) = check_pools([task("to billing; now")], SLOTS)
    assert found.what_to_do.startswith("Create it: airflow pools set 'to billing; now' 1 ")


def test_a_pool_without_slots() -> None:
    """A pool without slots runs nothing, either."""
    (found,) = check_pools([task("closed"), task("endless"), task("default_pool")], SLOTS)
    assert (found.subject, found.level) == ("pool closed", PROBLEM)
    assert "it has no slots" in found.finding


# --- limits that are shared --------------------------------------------------------------------------------


def shared_limit(connect: Connect, tasks: Sequence[PooledTask], per_second: float = 12.5) -> list[Finding]:
    connect("billing", host="https://billing.example.com", extra={"requests_per_second": per_second})
    return list(check_shared_limit("billing", tasks, SLOTS))


@pytest.mark.parametrize(
    ("pools", "level", "part"),
    [
        (["default_pool"], WARNING, "without a pool of their own"),
        (["billing", "default_pool"], WARNING, "without a pool of their own"),
        (["endless"], WARNING, "without a pool of their own"),
        (["billing", "four"], WARNING, "at most 5 tasks at a time: 62.5 a second, from 2 pools"),
        (["billing", "billing"], OK, "requests_per_second = 12.5, and at most 1 task at a time: 12.5 a"),
        (["four"], OK, "at most 4 tasks at a time: 50 a second"),
    ],
)
def test_a_limit_that_tasks_share(connect: Connect, pools: list[str], level: str, part: str) -> None:
    """The limit holds for all tasks only if they are in one pool."""
    (found,) = shared_limit(connect, [task(pool, pool) for pool in pools])
    assert (found.subject, found.level) == ("connection billing", level)
    assert part in found.finding


@pytest.mark.parametrize("tasks", [[], [task("default_pool", conn_id="other")], [task("closed")]])
def test_nothing_is_said_where_nobody_sends(connect: Connect, tasks: list[PooledTask]) -> None:
    """A receiver without tasks, or a pool with its own finding, has no finding here."""
    assert shared_limit(connect, tasks) == []


def test_nothing_is_said_without_a_limit(connect: Connect) -> None:
    """A connection that can't be used has no finding here, either, since another check reports it."""
    assert shared_limit(connect, [task("default_pool")], 0) == []
    assert list(check_shared_limit("missing", [task("default_pool", conn_id="missing")], SLOTS)) == []


# --- as the database has them ------------------------------------------------------------------------------


def test_tasks_of_the_database(session: Session) -> None:
    """Ordinary tasks, mapped tasks and whole workflows are found with their pools and receivers."""
    workflow = Workflow(
        name="w",
        record_type="Contacts",
        pool="crm",
        webhooks=[
            {"name": "A", "conn_id": "a", "pool": "billing"},
            {"name": "B", "uri": "https://b.example.com/"},
            {"name": "C", "conn_id": "{{ var.value.c }}"},
        ],
    )
    add_dag(session, workflow.to_dag(auto_register=False))
    untimed = Workflow(name="x", record_type="Notes", webhooks=[{"name": "A", "conn_id": "a"}])
    later = [{"name": "A", "conn_id": "a", "pool": "billing"}, {"name": "B", "conn_id": "b", "after": "1d"}]
    timed = Workflow(name="one", record_type="Notes", webhooks=later, mode="one_task")
    add_dag(session, timed.to_dag(auto_register=False))
    with DAG("own", schedule=None, auto_register=False) as own:
        WebhookOperator.partial(task_id="mapped", webhook_conn_id="m", pool="four").expand(payloads=[[]])
        InsightlyWorkflowOperator(task_id="whole", workflow=untimed, pool="endless")
    add_dag(session, own)
    found = {(one.dag_id, one.task_id): (one.pool, set(one.conn_ids)) for one in pooled_tasks(session)}
    assert found["w", "detect"] == ("crm", set())
    assert found["w", "deliver_a"] == ("billing", {"a"})
    assert found["w", "deliver_b"] == ("crm", set())
    assert found["w", "deliver_c"] == ("crm", set())
    assert found["one", "detect_and_deliver"] == ("billing", {"a"})
    assert found["own", "mapped"] == ("four", {"m"})
    assert found["own", "whole"] == ("endless", {"a"})


def test_pools_of_the_database(session: Session) -> None:
    """By name, with their slots."""
    for name, slots in (("billing", 1), ("endless", -1)):
        Pool.create_or_update_pool(name, slots, "", include_deferred=False, session=session)
    assert pool_slots(session) == {"billing": 1, "endless": -1}


def test_doctor_looks_at_pools(session: Session, connect: Connect) -> None:
    """It looks at all pools that tasks name, and at the limits of the checked receivers."""
    connect("billing", host="http://127.0.0.1:9", extra={"requests_per_second": 5, "timeout": 1})
    webhooks = [{"name": "A", "conn_id": "billing", "pool": "biling"}, {"name": "B", "conn_id": "billing"}]
    workflow = Workflow(name="w", record_type="Notes", webhooks=webhooks)
    add_dag(session, workflow.to_dag(auto_register=False))
    Pool.create_or_update_pool("default_pool", 128, "", include_deferred=False, session=session)
    session.commit()
    found = list(diagnose(receivers=["billing"]))
    assert [(one.subject, one.level) for one in found if one.subject.startswith("pool")] == [
        ("pool biling", PROBLEM)
    ]
    limits = [one for one in found if "requests_per_second" in one.finding]
    assert [(one.subject, one.level) for one in limits] == [("connection billing", WARNING)]
