"""A workflow in the mode ``one_task`` -> the one task that does all of its work."""

from __future__ import annotations

from typing import Any

from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.task_ids import DETECT, DETECT_AND_DELIVER
from airflow_insightly_hooks.operators.common.mode_change import check_mode
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.runs.cursor_argument import may_have_intervals

__all__ = ["add_one_task"]

OVERLAPPING = (
    "at most 1 in the mode one_task: a run that waits for a retry has not moved the cursor yet, so the next "
    "run would read and send the same changes. To allow more, use a schedule with data intervals"
)
ONE_POOL = (
    "in the mode one_task, one task sends all webhooks without a time trigger, and a task has only one pool: "
    "give these webhooks the same pool"
)


def add_one_task(workflow: WorkflowDefinition, yaml: str) -> InsightlyWorkflowOperator:
    """Make the task, in the DAG and the group whose with statements are active.

    It has the same cursor as ``detect`` in the mode ``tasks``, so that the mode can be changed.

    :param yaml: the workflow's text, for pages that have no DAG file (``database.stored_workflows``).
    :raises InvalidWorkflow: if nothing can be sent to a receiver, or if runs of the DAG would read the same
        changes.
    """
    further: dict[str, Any] = {}
    if any(webhook.is_timed for webhook in workflow.webhooks):
        further["pending_dag_id"] = workflow.dag_id + PENDING_SUFFIX
    if (pool := _pool(workflow)) is not None:
        further["pool"] = pool
    task = InsightlyWorkflowOperator(
        task_id=DETECT_AND_DELIVER,
        workflow=workflow,
        cursor=workflow.cursor,
        doc_yaml=yaml,
        pre_execute=check_mode,
        **further,
    )
    if task.dag.max_active_runs > 1 and not may_have_intervals(task):
        raise InvalidWorkflow((("max_active_runs", OVERLAPPING),))
    if task.cursor is None and task.get_closest_mapped_task_group() is None:
        task.cursor = f"{task.dag_id}/{task.task_id.removesuffix(DETECT_AND_DELIVER)}{DETECT}"
    return task


def _pool(workflow: WorkflowDefinition) -> str | None:
    """Return the pool of the webhooks that the task itself sends; ``None`` if none of them names a pool.

    :raises InvalidWorkflow: if they have several pools, since a task has only one.
    """
    named = {
        index: webhook.pool or workflow.pool
        for index, webhook in enumerate(workflow.webhooks)
        if not webhook.is_timed  # tasks of the pending DAG send webhooks with a time trigger
    }
    first = next(iter(named.values()), workflow.pool)
    for index, pool in named.items():
        if pool != first:
            raise InvalidWorkflow(((f"webhooks[{index}].pool", ONE_POOL),))
    says = any(workflow.webhooks[index].pool is not None for index in named)
    return first if says else None  # default_args may have replaced the workflow's own pool
