"""The workflows of DAGs, as the metadata database holds them, through Airflow's own serialization."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from airflow.models import DagModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from hypothesis import given, settings
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.core.workflow.yaml_text import LONGEST_STORED, MASK
from airflow_insightly_hooks.database import stored_workflows as module
from airflow_insightly_hooks.database.stored_workflows import (
    MAPPED,
    OLD,
    OTHER_VERSION,
    TOO_LARGE,
    StoredWorkflow,
    stored_workflow,
    stored_workflows,
)
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from tests.metadata_database import add_again, add_dag
from tests.strategies import workflow_files

ROOT = Path(__file__).parent.parent.parent
SECRET = "hunter2-secret"


def workflow(**arguments: Any) -> Workflow:
    webhook = {"name": "Billing", "conn_id": "billing"}
    return Workflow(**{"name": "New contact", "record_type": "Contacts", "webhooks": [webhook], **arguments})


def on_failure(context: Any, x: Any = None) -> None:
    """The callback of a workflow for a failed run."""


@pytest.fixture
def statements(session: Session) -> Iterator[list[str]]:
    """The statements that go to the database."""
    sent: list[str] = []

    def keep(*arguments: Any) -> None:
        sent.append(arguments[2])

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", keep)
    yield sent
    event.remove(engine, "before_cursor_execute", keep)


EXAMPLES = [
    example
    for path in sorted((ROOT / "dags" / "workflows").glob("*.yaml"))
    for example in read_workflows(path.read_text("utf-8"), path.name, Workflow)
]


def test_the_examples_are_stored(session: Session) -> None:
    """Each stored workflow is the same except for a header's value, by its DAG and its task."""
    for example in EXAMPLES:
        add_dag(session, example.to_dag(auto_register=False))
    found = stored_workflows(session, None)
    by_id = {example.dag_id: example for example in EXAMPLES}
    assert len(by_id) > 5
    assert [stored.dag_id for stored in found] == sorted(by_id)
    for stored in found:
        assert (stored.task_id, stored.reason) == ("evaluate", None)
        assert stored.definition is not None
        whole = by_id[stored.dag_id].model_dump()
        for webhook in whole["webhooks"]:
            webhook["headers"] = dict.fromkeys(webhook["headers"], MASK)
        assert stored.definition.model_dump() == whole
    assert {stored.dag_id: stored.masked for stored in found if stored.masked} == {
        "ticket_escalated": {"on_call"}
    }


@settings(max_examples=50)
@given(workflow_files())
def test_any_workflow_is_stored(keys: dict[str, Any]) -> None:
    """All is stored except masked values, and the webhooks that lack something are marked."""
    if "on_failure" in keys:  # a function that is there
        given = keys["on_failure"] if isinstance(keys["on_failure"], dict) else {}
        keys = {**keys, "on_failure": {**given, "callback": f"{__name__}.on_failure"}}
    made = Workflow(**keys)
    (stored,) = module._workflows("dag", DagSerialization.to_dict(made.to_dag(auto_register=False)))
    assert stored.reason is None
    assert stored.definition is not None
    whole, kept = made.model_dump(), stored.definition.model_dump()
    if made.on_failure is not None:
        assert kept["on_failure"].pop("arguments").keys() == whole["on_failure"].pop("arguments").keys()
    for webhook, was, now in zip(made.webhooks, whole["webhooks"], kept["webhooks"], strict=True):
        uri, headers = (was.pop("uri"), now.pop("uri")), (was.pop("headers"), now.pop("headers"))
        assert headers[0].keys() == headers[1].keys()
        is_whole = uri[0] == uri[1] and not headers[0]
        assert (webhook.slug in stored.masked) is not is_whole
    assert kept == whole


@pytest.mark.parametrize(
    "uri",
    [
        f"https://h/?key={SECRET}",
        "https://h/?key={{ var.value.key }}",  # it would be sent to an address without the key
        f"https://h/{{{{ var.value.get('{SECRET}') }}}}",
        "https://{{ var.value.user }}@h/",
    ],
)
def test_secrets_are_not_stored(session: Session, uri: str) -> None:
    """Their webhook is marked, since it can't be sent from the stored workflow."""
    masked = {"name": "A", "uri": uri}
    also = {"name": "B", "conn_id": "b", "headers": {"X-Key": SECRET}}
    whole = {"name": "C", "uri": "https://h/{{ var.value.path }}"}
    add_dag(session, workflow(webhooks=[masked, also, whole]).to_dag(auto_register=False))
    (stored,) = stored_workflows(session, None)
    assert stored.masked == {"a", "b"}
    assert stored.definition is not None
    assert stored.definition.webhooks[2].uri == whole["uri"]
    assert SECRET not in str(session.scalar(select(SerializedDagModel._data)))


def test_what_was_read_is_kept_until_the_dag_changes(session: Session, statements: list[str]) -> None:
    """The second time, one query finds that nothing has changed. The latest of several versions counts."""
    for number in range(50):
        add_dag(session, workflow(name=f"Workflow {number}").to_dag(auto_register=False))
    first = stored_workflows(session, None)
    statements.clear()
    again = stored_workflows(session, None)
    assert len(statements) == 1
    assert [id(stored.definition) for stored in again] == [id(stored.definition) for stored in first]
    add_again(session, workflow(name="Workflow 7", active=False).to_dag(auto_register=False))
    changed = {stored.dag_id: stored.definition for stored in stored_workflows(session, None)}
    assert [dag_id for dag_id, definition in changed.items() if not (definition and definition.active)] == [
        "workflow_7"
    ]


def test_only_dags_that_may_be_read(session: Session, statements: list[str]) -> None:
    """Other DAGs are not read, and neither are DAGs whose file is gone."""
    for name in ("a", "b", "c"):
        add_dag(session, workflow(name=name).to_dag(auto_register=False))
    session.execute(update(DagModel).where(DagModel.dag_id == "c").values(is_stale=True))
    assert [stored.dag_id for stored in stored_workflows(session, {"a", "c"})] == ["a"]
    assert stored_workflows(session, set()) == []
    assert stored_workflow(session, "b") is not None
    assert stored_workflow(session, "b", "evaluate") is not None
    assert stored_workflow(session, "b", "other") is None
    assert stored_workflow(session, "nothing") is None


def test_dags_of_others_are_not_loaded(session: Session, statements: list[str]) -> None:
    """The database searches for this package's operators. A DAG without them is looked at once."""
    from airflow.providers.standard.operators.empty import EmptyOperator

    with DAG("other", schedule=None) as dag:
        EmptyOperator(task_id="evaluate", doc_yaml="name: x")
    add_dag(session, dag)
    assert stored_workflows(session, None) == []
    statements.clear()
    assert stored_workflows(session, None) == []
    assert len(statements) == 1


def test_compressed_dags_are_read(session: Session) -> None:
    """Serialized DAGs that Airflow has compressed can be read."""
    with patch("airflow.models.serialized_dag._COMPRESS_SERIALIZED_DAGS", True):
        add_dag(session, workflow().to_dag(auto_register=False))
    compressed = session.scalar(select(SerializedDagModel._data_compressed))
    assert compressed is not None
    assert b"New contact" in zlib.decompress(compressed)
    assert stored_workflow(session, "new_contact") is not None


def tasks_of(session: Session, dag: DAG) -> list[StoredWorkflow]:
    add_dag(session, dag)
    return stored_workflows(session, {dag.dag_id})


def test_workflows_in_a_dag_of_ones_own(session: Session) -> None:
    """Workflows in task groups and single tasks are found by their tasks."""
    with DAG("mine", schedule=None) as dag:
        workflow(name="In a group").task_group()
        InsightlyWorkflowOperator(task_id="whole", workflow=workflow(name="In one task"))
        InsightlyWorkflowOperator(task_id="documented", workflow=workflow(), doc_yaml="[Mine.]")
        InsightlyWorkflowOperator.partial(task_id="mapped", workflow=workflow()).expand(
            window=[["2026-01-01", "2026-01-02"]]
        )
    found = {stored.task_id: stored for stored in tasks_of(session, dag)}
    assert {task_id: stored.definition and stored.definition.name for task_id, stored in found.items()} == {
        "in_a_group.evaluate": "In a group",
        "whole": "In one task",
        "documented": None,
        "mapped": None,
    }
    assert (found["documented"].reason, found["mapped"].reason) == (OTHER_VERSION, MAPPED)


def test_a_workflow_in_one_task(session: Session) -> None:
    """It is found by its task, with its mode. After a change of mode it is found by its new tasks."""
    add_dag(session, workflow(mode="one_task").to_dag(auto_register=False))
    stored = stored_workflow(session, "new_contact", "detect_and_deliver")
    assert stored is not None
    assert stored.definition is not None
    assert (stored.definition.mode, stored.definition.dag_id) == ("one_task", "new_contact")
    add_again(session, workflow(mode="one_task").to_dag(auto_register=False, mode="tasks"))
    (stored,) = stored_workflows(session, None)
    assert stored.definition is not None
    assert (stored.task_id, stored.definition.mode) == ("evaluate", "tasks")


def test_a_dag_of_an_earlier_version(session: Session) -> None:
    """It has no definition, and the reason says when it will. A DAG made task by task is not a workflow."""
    dag = workflow().to_dag(auto_register=False)
    dag.task_dict["evaluate"].doc_yaml = None
    (stored,) = tasks_of(session, dag)
    assert (stored.definition, stored.reason) == (None, OLD)
    with DAG("by_hand", schedule=None) as dag:
        EvaluateCriteriaOperator(task_id="evaluate", changes=[], criteria=None)
    assert tasks_of(session, dag) == []


def test_a_large_workflow(session: Session) -> None:
    """Up to a limit it is stored, although its page doesn't show it. Beyond the limit, a reason says so."""
    for number, expected in ((2_000, None), (LONGEST_STORED // 10, TOO_LARGE), (LONGEST_STORED, TOO_LARGE)):
        values = [f"value {n:08}" for n in range(number)]
        criteria = {"field": "FIRST_NAME", "operator": "in", "value": values}
        large = workflow(name=f"n{number}", criteria=criteria)
        dag = large.to_dag(auto_register=False)
        assert "# The YAML has more than 20,000 characters." in str(dag.doc_md)
        (stored,) = tasks_of(session, dag)
        assert stored.reason == expected
        if expected is None:
            assert isinstance(stored.definition, WorkflowDefinition)
            assert stored.definition.model_dump() == large.model_dump()


def test_a_text_that_this_version_cannot_read(session: Session) -> None:
    """A text with keys of a later version gives a reason instead of an error."""
    dag = workflow().to_dag(auto_register=False)
    dag.task_dict["evaluate"].doc_yaml = f"name: w\nlater: {SECRET}\n"
    (stored,) = tasks_of(session, dag)
    assert (stored.definition, stored.reason) == (None, OTHER_VERSION)
