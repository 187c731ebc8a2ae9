"""Which names a cursor may have."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.detection.cursor_name import check_cursor_name
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.operators.workflow import InsightlyWorkflowOperator
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor

REFUSED = [
    ("", "1 to 502 characters"),
    (" \n", "1 to 502 characters"),
    ("x" * 503, "1 to 502 characters, not 503"),
    ("a\x00b", "cursor must not hold control characters"),
]
TEMPLATES = ["{{ dag.dag_id }}/v1", "{% raw %}"]


def workflow(**arguments: Any) -> Workflow:
    webhooks = [Webhook(name="w", conn_id="c")]
    return Workflow(name="New contacts", record_type="Contacts", webhooks=webhooks, **arguments)


@pytest.mark.parametrize("name", ["c", "contacts", "old_dag/group.detect", "x" * 502, "é/?#%&="])
def test_names(name: str) -> None:
    """A name is used as it is, without white space around it. It may be the name of another task's cursor."""
    assert check_cursor_name(f" {name}\n") == name
    assert workflow(cursor=f" {name} ").cursor == name
    assert InsightlyRecordChangeSensor(task_id="t", record_type="Tasks", cursor=f" {name} ").cursor == name
    assert InsightlyWorkflowOperator(task_id="t", workflow=workflow(), cursor=f" {name} ").cursor == name


@pytest.mark.parametrize(("name", "reason"), [*REFUSED, (5, "a text, not int"), (["a"], "a text, not list")])
def test_refused(name: Any, reason: str) -> None:
    """Anything else is refused when the DAG is parsed, wherever it is given."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_cursor_name(name)
    with pytest.raises(ValueError, match=re.escape(reason)):
        InsightlyRecordChangeSensor(task_id="t", record_type="Tasks", cursor=name)
    with pytest.raises(ValueError, match=re.escape(reason)):
        InsightlyWorkflowOperator(task_id="t", workflow=workflow(), cursor=name)
    with pytest.raises(InvalidWorkflow) as caught:
        workflow(cursor=name)
    assert [path for path, _ in caught.value.problems] == ["cursor"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates(name: str) -> None:
    """A task's argument may have a template. A workflow's name may not, since it is checked earlier."""
    assert InsightlyRecordChangeSensor(task_id="t", record_type="Tasks", cursor=name).cursor == name
    assert InsightlyWorkflowOperator(task_id="t", workflow=workflow(), cursor=name).cursor == name
    with pytest.raises(ValueError, match="must not be a template"):
        check_cursor_name(name)
    with pytest.raises(InvalidWorkflow, match="must not be a template"):
        workflow(cursor=name)
