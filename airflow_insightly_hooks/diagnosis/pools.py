"""Check Airflow's pools: pools that can't run their tasks, and limits that tasks share without a pool."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.diagnosis.connections import CONNECTION_ERRORS
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding

if TYPE_CHECKING:
    from airflow_insightly_hooks.database.setup.pools import PooledTask

__all__ = ["check_pools", "check_shared_limit"]

MOST_SHOWN = 5
"""The most DAGs that a finding names."""


def check_pools(tasks: Sequence[PooledTask], slots: Mapping[str, int]) -> Iterator[Finding]:
    """Yield a finding for each pool that has tasks and can't run them.

    :param tasks: this package's tasks.
    :param slots: how many slots each pool has.
    """
    for pool in sorted({task.pool for task in tasks}):
        if slots.get(pool):
            continue
        dags = {task.dag_id for task in tasks if task.pool == pool}
        found = "it doesn't exist" if pool not in slots else "it has no slots"
        command = f"airflow pools set {shlex.quote(pool)} 1 'Sends to one receiver'"
        yield Finding(
            f"pool {pool}",
            PROBLEM,
            f"{found}, so the tasks of {_named(dags)} in it stay scheduled, and never run",
            f"Create it: {command}" if pool not in slots else f"Give it slots: {command}",
        )


def check_shared_limit(
    conn_id: str, tasks: Sequence[PooledTask], slots: Mapping[str, int]
) -> Iterator[Finding]:
    """Yield a finding on whether a receiver's limit holds when several tasks send to it at the same time.

    :param conn_id: an Airflow connection of type ``insightly_webhook``.
    :param tasks: this package's tasks.
    :param slots: how many slots each pool has; -1 for no limit.
    """
    sending = [task for task in tasks if conn_id in task.conn_ids]
    per_second = _requests_per_second(conn_id) if sending else 0
    if not per_second:
        return
    from airflow_insightly_hooks.database.setup.pools import DEFAULT_POOL

    subject, what = f"connection {conn_id}", f"requests_per_second = {per_second:g}"
    pools = {task.pool for task in sending}
    pooled = [pool for pool in sorted(pools) if pool != DEFAULT_POOL and slots.get(pool, 0) >= 0]
    todo = "Put all tasks that send to it into one pool: set the key pool of its webhooks, or the operator's."
    if len(pooled) < len(pools):
        without = {task.dag_id for task in sending if task.pool not in pooled}
        yield Finding(
            subject,
            WARNING,
            f"{what} is the limit of each task, and tasks of {_named(without)} send to it without a pool of "
            "their own: if several run at the same time, they send more",
            todo,
        )
        return
    number = sum(slots.get(pool, 0) for pool in pooled)
    together = f"{what}, and at most {counted(number, 'task')} at a time: {number * per_second:g} a second"
    if len(pooled) > 1:
        yield Finding(subject, WARNING, f"{together}, from {counted(len(pooled), 'pool')}", todo)
    elif number:  # otherwise the pool has its own finding
        yield Finding(subject, OK, together)


def _requests_per_second(conn_id: str) -> float:
    """Return a connection's limit; 0 if it has no limit or can't be used."""
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    try:
        return WebhookHook(conn_id).rate_limit.per_second
    except CONNECTION_ERRORS:  # the receiver has its own finding
        return 0.0


def _named(dag_ids: Collection[str]) -> str:
    shown = sorted(dag_ids)[:MOST_SHOWN]
    more = len(dag_ids) - len(shown)
    listed = ", ".join(repr(dag_id) for dag_id in shown)
    return f"DAG{'s' if len(dag_ids) > 1 else ''} {listed}{f' and {more} more' if more else ''}"
