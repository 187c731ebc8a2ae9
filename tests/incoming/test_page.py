"""The blocks of the how-to page do what the page says. Its commands run in ``tests/e2e``."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.triggers.record_change import changes_asset

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "incoming.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", PAGE.partition("## Keep what a webhook holds")[0], re.MULTILINE | re.DOTALL
)


def block(language: str, words: str = "") -> str:
    """Return the one block of a language that holds the words."""
    (found,) = [text for kind, text in BLOCKS if kind == language and words in text]
    return found


def test_the_dag() -> None:
    """Webhooks wake this DAG only, since the asset belongs to its own cursor."""
    names: dict[str, object] = {}
    exec(block("python"), names)  # noqa: S102 — the document's own
    detect = names["changes"]
    (scheduled_by,) = detect.dag.timetable.asset_condition.objects  # type: ignore[attr-defined]
    expected = changes_asset("Tasks", cursor=f"{detect.dag.dag_id}/{detect.task_id}", push=True)  # type: ignore[attr-defined]
    assert scheduled_by.name == expected.name


def test_the_workflow() -> None:
    """The YAML file is a workflow that webhooks wake."""
    (workflow,) = read_workflows(block("yaml"), "new_tasks.yaml", Workflow)
    assert workflow.schedule is not None
    assert workflow.schedule.on_change == "push"


def test_the_receiver_in_another_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook accepts the command's connection, with its signature."""
    arguments = shlex.split(block("bash", "other_airflow").replace("\\\n", " "))[3:]
    pairs = zip(arguments[1::2], arguments[2::2], strict=True)
    given = {name.removeprefix("--conn-"): value for name, value in pairs}
    connection = {"conn_type": given.pop("type"), "extra": json.loads(given.pop("extra")), **given}
    monkeypatch.setenv(f"AIRFLOW_CONN_{arguments[0].upper()}", json.dumps(connection))
    hook = WebhookHook(arguments[0])
    assert hook.get_conn().url == "https://other.example.com/insightly/hooks/insightly_incoming"
    assert "webhook-signature" in hook.shown_headers("{}", message_id="msg_1")
