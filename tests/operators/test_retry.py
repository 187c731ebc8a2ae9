"""When a deliver task is tried again."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, RetryDecision
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks.core.errors import UndeliveredError
from airflow_insightly_hooks.operators.retry import RetryAfterPolicy
from airflow_insightly_hooks.operators.webhook import WebhookOperator

REPORT: dict[str, Any] = {"total": 1, "delivered": 0, "undelivered": []}


@pytest.mark.parametrize(
    ("asked", "retry_delay", "delay"),
    [
        (0, 60, 60),
        (30, 60, 60),
        (61.5, 60, 61.5),
        (3600, 60, 3600),
        (3601, 60, 3600),
        (99_999_999_999.0, 60, 3600),
        (5, 7200, 7200),
        (0, 0, 0),
    ],
)
def test_delay(asked: float, retry_delay: float, delay: float) -> None:
    """The receiver's wish counts up to an hour, but never less than the task's own delay."""
    context: Any = {"task": SimpleNamespace(retry_delay=timedelta(seconds=retry_delay))}
    decision = RetryAfterPolicy().evaluate(UndeliveredError(REPORT, asked), 1, 2, context)
    assert decision.action.value == "retry"
    assert decision.retry_delay == timedelta(seconds=delay)
    assert "Retry-After" in (decision.reason or "")


@pytest.mark.parametrize("error", [UndeliveredError(REPORT), ValueError("x"), KeyboardInterrupt()])
def test_leaves_it_to_the_task(error: BaseException) -> None:
    """If the receiver asks for nothing, the task's own delay counts."""
    assert RetryAfterPolicy().evaluate(error, 1, 2, None) == RetryDecision.default()


def test_without_a_context() -> None:
    """Without a context only the receiver's wish counts."""
    decision = RetryAfterPolicy().evaluate(UndeliveredError(REPORT, 5), 1, 2)
    assert decision.retry_delay == timedelta(seconds=5)


def test_serialization() -> None:
    """The policy survives Airflow's serialization, and a DAG with it can be stored."""
    policy = RetryAfterPolicy()
    assert isinstance(RetryAfterPolicy.deserialize(policy.serialize()), RetryAfterPolicy)
    with DAG("dag", schedule=None) as dag:
        WebhookOperator(task_id="deliver", payloads=[])
    stored = DagSerialization.to_dict(dag)
    DagSerialization.validate_schema(stored)
    task = DagSerialization.from_dict(stored).get_task("deliver")
    assert (task.retries, task.retry_delay) == (2, timedelta(seconds=60))
    assert task.has_retry_policy


# --- jitter ----------------------------------------------------------------------------------------------


def context_of(run_id: str = "run", **task: Any) -> Any:
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id=run_id, map_index=-1)
    return {"task": SimpleNamespace(retry_delay=timedelta(seconds=60), **task), "ti": ti}


def delay_of(context: Any, asked: float | None = None, try_number: int = 1) -> float:
    decision = RetryAfterPolicy().evaluate(UndeliveredError(REPORT, asked), try_number, 2, context)
    assert decision.retry_delay is not None
    return decision.retry_delay.total_seconds()


@pytest.mark.parametrize("asked", [None, 90])
def test_jitter(asked: float | None) -> None:
    """Up to a fifth is added: different for each run and try, and the same each time it is computed."""
    delays = [delay_of(context_of(f"run {number}"), asked) for number in range(100)]
    base = asked or 60
    assert base <= min(delays) < base * 1.05
    assert base * 1.15 < max(delays) <= base * 1.2
    assert len(set(delays)) == 100
    assert delays[0] == delay_of(context_of("run 0"), asked)
    assert delays[0] != delay_of(context_of("run 0"), asked, try_number=2)


def test_jitter_stays_within_the_clamp() -> None:
    """Even with jitter, an hour is the longest. A ``retry_delay`` beyond it stays as it is."""
    assert delay_of(context_of(), 3600) == 3600
    assert delay_of(context_of(), 3500) <= 3600


def test_exponential_backoff_is_left_to_airflow() -> None:
    """A task with its own backoff keeps it, unless the receiver asks for a time."""
    context = context_of(retry_exponential_backoff=2.0)
    assert RetryAfterPolicy().evaluate(UndeliveredError(REPORT), 1, 2, context) == RetryDecision.default()
    assert delay_of(context, 90) >= 90
