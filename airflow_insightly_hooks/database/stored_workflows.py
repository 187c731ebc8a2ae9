"""Read the workflows of DAGs from Airflow's database: the API server has no DAG files.

A workflow's ``evaluate`` task, and each ``InsightlyWorkflowOperator``, has the workflow's YAML as
``doc_yaml``, without values that may be secret. It is read from the latest version of the serialized DAG,
which isn't deserialized. The process keeps the workflows that it has read until the DAG changes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.serialized_dag import SerializedDagModel as Serialized
from sqlalchemy import Text, and_, cast, func, or_, select

from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.core.workflow.yaml_text import LONGEST_STORED, is_masked, too_long

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "WORKFLOW_OPERATOR",
    "StoredWorkflow",
    "dag_contents",
    "latest_dags",
    "stored_workflow",
    "stored_workflows",
]

EVALUATE = "EvaluateCriteriaOperator"
WORKFLOW_OPERATOR = "InsightlyWorkflowOperator"
"""The operator that carries out a whole workflow in one task."""
OF_WORKFLOWS = {"WorkflowWebhookOperator", "ScheduleWebhooksOperator"}
"""Operators that only workflows use."""
OUR_OPERATORS = "airflow_insightly_hooks.operators."
CHUNK = 100
"""How many serialized DAGs one query reads."""

OLD = (
    "an earlier version of this package has made its DAG: the workflow is shown once Airflow's DAG processor "
    "has read the DAG's file again"
)
TOO_LARGE = f"it has more than {LONGEST_STORED:,} characters, and Airflow's database doesn't store it"
MAPPED = "its task is mapped, and Airflow's database doesn't store the workflows of mapped tasks"
OTHER_VERSION = "it can't be read by this version of the package"


class StoredWorkflow(NamedTuple):
    """A workflow that tasks of a DAG carry out."""

    dag_id: str
    task_id: str
    """The task that evaluates the criteria; in a task group, the id begins with the group's id."""
    definition: WorkflowDefinition | None
    """``None`` if it can't be read. URIs and headers may be masked. Its ``dag_id`` is the workflow's own."""
    reason: str | None
    """Why the workflow can't be read, and what to do."""
    masked: frozenset[str] = frozenset()
    """The slugs of the webhooks that can't be sent from here, because their URI or headers are masked."""


_read: dict[str, tuple[str, tuple[StoredWorkflow, ...]]] = {}
"""By DAG id: the serialized DAG's hash, and its workflows."""


def stored_workflows(session: Session, dag_ids: Collection[str] | None) -> list[StoredWorkflow]:
    """Return the workflows of DAGs, by DAG and task. If a workflow can't be read, its ``reason`` says why.

    The result leaves out DAGs whose files are gone, and DAGs that were written without a workflow.

    :param dag_ids: the DAGs that the user may read; ``None`` for all.
    """
    latest = latest_dags(session, dag_ids)
    changed = {
        dag_id: serialized_id
        for dag_id, (serialized_id, dag_hash) in latest.items()
        if dag_id not in _read or _read[dag_id][0] != dag_hash
    }
    texts = dag_contents(session, list(changed.values())) if changed else {}
    for dag_id, serialized_id in changed.items():
        workflows = tuple(_workflows(dag_id, texts.get(serialized_id, {})))
        _read[dag_id] = latest[dag_id][1], workflows
    return [workflow for dag_id in sorted(latest) for workflow in _read[dag_id][1]]


def stored_workflow(session: Session, dag_id: str, task_id: str | None = None) -> StoredWorkflow | None:
    """Return one workflow of a DAG, or ``None`` if the DAG does not have it.

    :param task_id: the task that evaluates the workflow's criteria; ``None`` for the DAG's first workflow.
    """
    found = stored_workflows(session, {dag_id})
    return next((workflow for workflow in found if task_id in (None, workflow.task_id)), None)


def latest_dags(session: Session, dag_ids: Collection[str] | None) -> Mapping[str, tuple[Any, str]]:
    """Return the id and the hash of each DAG's latest version; DAGs whose files are gone are left out.

    :param dag_ids: the DAGs to look for; ``None`` for all.
    """
    newest = select(DagVersion.dag_id, func.max(DagVersion.version_number).label("number")).join(
        Serialized, Serialized.dag_version_id == DagVersion.id
    )
    if dag_ids is not None:
        newest = newest.where(DagVersion.dag_id.in_(dag_ids))
    of_newest = newest.group_by(DagVersion.dag_id).subquery()
    query = (
        select(Serialized.dag_id, Serialized.id, Serialized.dag_hash)
        .join(DagVersion, Serialized.dag_version_id == DagVersion.id)
        .join(
            of_newest,
            and_(DagVersion.dag_id == of_newest.c.dag_id, DagVersion.version_number == of_newest.c.number),
        )
        .join(DagModel, and_(DagModel.dag_id == Serialized.dag_id, DagModel.is_stale.is_(False)))
    )
    return {row[0]: (row[1], row[2]) for row in session.execute(query)}


def dag_contents(session: Session, serialized_ids: Sequence[Any]) -> Mapping[Any, Mapping[str, Any]]:
    """Return the serialized DAGs that use this package's operators, by id."""
    may_be_ours = or_(
        Serialized._data_compressed.is_not(None), cast(Serialized._data, Text).contains(OUR_OPERATORS)
    )
    found: dict[Any, Mapping[str, Any]] = {}
    for start in range(0, len(serialized_ids), CHUNK):
        query = select(Serialized.id, Serialized._data, Serialized._data_compressed).where(
            Serialized.id.in_(serialized_ids[start : start + CHUNK]), may_be_ours
        )
        for serialized_id, data, compressed in session.execute(query):
            found[serialized_id] = json.loads(zlib.decompress(compressed)) if data is None else data
    return found


def _workflows(dag_id: str, data: Mapping[str, Any]) -> Iterator[StoredWorkflow]:
    tasks = [task["__var"] for task in data.get("dag", {}).get("tasks", ())]
    ours = [task for task in tasks if task.get("_task_module", "").startswith(OUR_OPERATORS)]
    of_workflows = {_group(task) for task in ours if task["task_type"] in OF_WORKFLOWS}
    for task in sorted(ours, key=lambda task: task["task_id"]):
        text = (task.get("partial_kwargs") or task).get("doc_yaml")
        if task["task_type"] not in (EVALUATE, WORKFLOW_OPERATOR):
            continue
        if text is not None:
            yield _of_text(dag_id, task["task_id"], text)
        elif task["task_type"] == WORKFLOW_OPERATOR:
            reason = MAPPED if task.get("_is_mapped") else OLD
            yield StoredWorkflow(dag_id, task["task_id"], None, reason)
        elif _group(task) in of_workflows:  # else it was made without a workflow
            yield StoredWorkflow(dag_id, task["task_id"], None, OLD)


def _group(task: Mapping[str, Any]) -> str:
    """Return the id of a task's group, from the task's id; an empty text if the id names no group."""
    return str(task["task_id"]).rpartition(".")[0]


def _of_text(dag_id: str, task_id: str, text: str) -> StoredWorkflow:
    if text == too_long(LONGEST_STORED):
        return StoredWorkflow(dag_id, task_id, None, TOO_LARGE)
    try:
        (definition,) = read_workflows(text, dag_id, WorkflowDefinition)
    except (InvalidWorkflowFile, ValueError):  # another version or a user has written it
        return StoredWorkflow(dag_id, task_id, None, OTHER_VERSION)
    masked = frozenset(webhook.slug for webhook in definition.webhooks if is_masked(webhook))
    return StoredWorkflow(dag_id, task_id, definition, None, masked)
