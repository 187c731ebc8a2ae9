"""The ids of a workflow's DAGs: its own DAG, and the two DAGs that send its webhooks later."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["PENDING_SUFFIX", "RETRY_SUFFIX", "with_senders", "workflow_dag_id"]

PENDING_SUFFIX = "__pending"
"""The ending of the id of the DAG that sends the webhooks of time triggers."""
RETRY_SUFFIX = "__retry"
"""The ending of the id of the DAG that sends the messages that wait for a receiver that is down."""


def with_senders(dag_ids: Iterable[str]) -> list[str]:
    """Return the ids of workflows' DAGs, each followed by the DAGs that send its webhooks later."""
    return [f"{dag_id}{suffix}" for dag_id in dag_ids for suffix in ("", RETRY_SUFFIX, PENDING_SUFFIX)]


def workflow_dag_id(dag_id: str, dag_ids: Collection[str]) -> str:
    """Return the id of the workflow's own DAG, for any of its DAGs.

    :param dag_ids: the ids of the known DAGs. If the workflow's own DAG is not among them (for example
        because a user may not see it), the id is returned unchanged.
    """
    for suffix in (RETRY_SUFFIX, PENDING_SUFFIX):
        if dag_id.endswith(suffix) and dag_id.removesuffix(suffix) in dag_ids:
            return dag_id.removesuffix(suffix)
    return dag_id
