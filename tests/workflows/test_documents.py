"""The documents about workflows are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "reference" / "workflow-files.md").read_text(encoding="utf-8")
PARITY = (ROOT / "docs" / "explanation" / "parity.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = GUIDE) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def test_the_yaml_is_a_workflow() -> None:
    """The shown error is the error of the shown mistake."""
    text, pools, on_failure, criteria, in_one_task = blocks("yaml")
    start, end = text.partition("criteria:")[0], "webhooks: [{name: w, conn_id: c}]"
    assert read_workflows(f"{start}{criteria}{end}", "w.yaml", Workflow)
    assert read_workflows(f"{text}{on_failure}", "opportunity_won.yaml", Workflow)[0].on_failure
    (workflow,) = read_workflows(text, "opportunity_won.yaml", Workflow)
    assert workflow.dag_id == "opportunity_won"
    (pooled,) = read_workflows(f"name: w\nrecord_type: Notes\n{pools}", "w.yaml", Workflow)
    assert [webhook.pool for webhook in pooled.webhooks] == ["billing"]
    assert read_workflows(in_one_task, "w.yaml", Workflow)[0].mode == "one_task"
    with pytest.raises(InvalidWorkflowFile) as caught:
        read_workflows(text.replace("equals", "equal"), "opportunity_won.yaml", Workflow)
    shown = next(block for block in blocks("") if "did you mean" in block)
    assert str(caught.value).splitlines()[0] == re.sub(r":\d+:", f":{caught.value.lines[0]}:", shown.strip())
    assert str(caught.value) == shown.strip()


def test_the_python_makes_a_dag() -> None:
    """The code makes a DAG without a change."""
    code = next(block for block in blocks("python") if "Workflow(" in block)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 — the document's own
    assert issubclass(names["Workflow"], Workflow)  # type: ignore[arg-type]


def test_the_backtest_prints_what_is_shown() -> None:
    """The test makes the changes that the output needs."""
    workflow = Workflow(
        name="w",
        record_type="Opportunities",
        criteria={"field": "OPPORTUNITY_STATE", "operator": "equals", "value": "Won"},
        webhooks=[{"name": "w", "conn_id": "c"}],
    )
    changes = [
        {
            "record_type": "Opportunities",
            "record_id": number,
            "event": "updated",
            "changed_at": f"2026-01-10T{number + 1:02}:00:00Z",
            "record": {"OPPORTUNITY_STATE": state},
        }
        for number, state in ((7, "WON"), (8, "LOST"))
    ]
    shown = next(block for block in blocks("") if "changes triggers" in block)
    assert str(workflow.backtest(changes)) == shown.strip()  # type: ignore[arg-type]


def test_every_test_that_the_parity_page_names_is_there() -> None:
    """Every claim of the page has a test."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)", PARITY)
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
