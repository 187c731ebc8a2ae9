"""Operators' arguments as keys of a workflow and its webhooks, which reach the tasks of all three DAGs."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import Asset, BaseNotifier
from airflow.serialization.serialized_objects import DagSerialization

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflow
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.workflows import files

WORKFLOW = """\
name: New contacts
record_type: Contacts
max_active_runs: 3
owner: crm
retries: 6
retry_delay: 5m
on_undelivered: report
undelivered_asset: undelivered
webhooks:
  - {name: Own, conn_id: c, ordered: true, retries: 0, retry_delay: 7, give_up_after: 0, on_undelivered: fail}
  - {name: Later, conn_id: c, after: 1d, undelivered_asset: {name: late, uri: "x://late"}}
"""
DAG_FILE = """\
from airflow_insightly_hooks import load_workflows

dags = load_workflows("workflows"{arguments})
"""
ALERTS = """\
calls = []

def tell(context, channel="crm"):
    calls.append((context, channel))

not_callable = 3
"""
SECRET = "s3cret-argument"


class Notifier(BaseNotifier):
    """A notifier with an argument."""

    template_fields = ("channel",)

    def __init__(self, channel: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if channel == SECRET:
            raise ValueError(channel)
        self.channel = channel

    def notify(self, context: Any) -> None:
        """Do nothing."""


def dags_of(folder: Path, text: str = WORKFLOW, arguments: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """Return the DAGs of a folder with one workflow file, and the import errors."""
    (folder / "workflows").mkdir()
    (folder / "workflows" / "x.yaml").write_text(textwrap.dedent(text))
    (folder / "dag_file.py").write_text(DAG_FILE.format(arguments=arguments))
    bag = DagBag(str(folder), bundle_path=folder, bundle_name="b")
    return bag.dags, dict(bag.import_errors)


def delivery(dag: Any, task_id: str) -> tuple[Any, ...]:
    task = dag.get_task(task_id)
    return (
        *(task.ordered, task.retries, task.retry_delay.total_seconds(), task.give_up_after),
        *(task.on_undelivered, task.undelivered_asset and task.undelivered_asset.name),
    )


def test_keys_reach_all_tasks_that_send(tmp_path: Path) -> None:
    """The webhook's or the workflow's keys reach the workflow's DAG, the retry DAG and the pending DAG."""
    dags, errors = dags_of(tmp_path)
    assert errors == {}
    main, retry, pending = (dags[f"new_contacts{suffix}"] for suffix in ("", "__retry", "__pending"))
    own, later = (True, 0, 7.0, 0, "fail", None), (False, 6, 300.0, 20, "report", "late")
    assert [delivery(dag, "deliver_own") for dag in (main, retry)] == [own, own]
    assert [delivery(dag, "deliver_later") for dag in (pending, retry)] == [later, later]
    assert {task.owner for dag in dags.values() for task in dag.tasks} == {"crm"}
    assert (main.max_active_runs, retry.max_active_runs) == (3, 16)
    late = Asset(name="late", uri="x://late")
    assert late in pending.get_task("deliver_later").outlets
    assert late in retry.get_task("deliver_later").outlets
    assert (pending.get_task("due_later").retries, retry.get_task("collect").retries) == (2, 5)
    assert main.get_task("detect").retries == 2  # they are the webhooks'
    for dag in dags.values():
        DagSerialization.to_dict(dag)


def test_arguments_go_over_keys(tmp_path: Path) -> None:
    """This holds for ``default_args``, too, and for the keys of a webhook."""
    given = ", max_active_runs=4, default_args={'owner': 'me', 'retries': 1, 'on_undelivered': 'report'}"
    dags, _ = dags_of(tmp_path, arguments=given)
    main, retry = dags["new_contacts"], dags["new_contacts__retry"]
    assert main.max_active_runs == 4
    assert delivery(main, "deliver_own") == (True, 1, 7.0, 0, "report", "undelivered")
    assert delivery(retry, "deliver_own") == delivery(main, "deliver_own")
    assert {task.owner for task in main.tasks} == {"me"}


def test_what_is_left_out_stays_the_operators() -> None:
    """Keys that are left out keep the operator's defaults."""
    workflow = Workflow(name="w", record_type="Notes", webhooks=[{"name": "w", "conn_id": "c"}])
    dag = workflow.to_dag()
    assert delivery(dag, "deliver") == (False, 2, 60.0, 20, "fail", None)
    assert {task.pool for task in dag.tasks} == {"default_pool"}
    assert dag.max_active_runs == 16
    assert dag.on_failure_callback is None


def test_a_task_group_has_them_too() -> None:
    """A task group has all keys except those of the DAG."""
    from airflow.sdk import DAG

    (workflow,) = read_workflows(WORKFLOW, "x.yaml", Workflow)
    with DAG("outer", schedule=None, default_args={"owner": "outer"}) as outer:
        workflow.task_group("flow")
    assert delivery(outer, "flow.deliver_own") == (True, 0, 7.0, 0, "fail", None)
    assert outer.get_task("flow.detect").owner == "crm"


def pools(dag: Any) -> dict[str, str]:
    return {task.task_id: task.pool for task in dag.tasks}


POOLS = """\
name: w
record_type: Contacts
pool: crm
webhooks:
  - {name: Own, conn_id: c, pool: billing}
  - {name: Plain, conn_id: d}
  - {name: Later, conn_id: c, after: 1d, pool: billing}
"""


def test_pools(tmp_path: Path) -> None:
    """In all three DAGs, a webhook's pool is for the tasks that send it, the workflow's for all others."""
    dags, errors = dags_of(tmp_path, POOLS)
    assert errors == {}
    sending = {"deliver_own": "billing", "deliver_plain": "crm", "deliver_later": "billing"}
    assert pools(dags["w"]) == {
        **dict.fromkeys(("detect", "evaluate", "build_own", "build_plain", "schedule"), "crm"),
        **{task_id: sending[task_id] for task_id in ("deliver_own", "deliver_plain")},
    }
    assert pools(dags["w__retry"]) == {"collect": "crm", "wake_up": "crm", **sending}
    assert pools(dags["w__pending"]) == {
        **dict.fromkeys(("due_later", "build_later", "wake_up"), "crm"),
        "deliver_later": "billing",
    }


def test_a_pool_in_default_args(tmp_path: Path) -> None:
    """It overrides the workflow's pool, but not a webhook's."""
    dags, _ = dags_of(tmp_path, POOLS, ", default_args={'pool': 'other'}")
    assert pools(dags["w"])["detect"] == "other"
    assert pools(dags["w"])["deliver_plain"] == "other"
    assert pools(dags["w"])["deliver_own"] == "billing"
    assert pools(dags["w__retry"])["deliver_own"] == "billing"


@pytest.mark.parametrize(
    ("keys", "path", "part"),
    [
        ({"pool": " "}, "pool", "a text is needed"),
        ({"pool": 3}, "pool", "text"),
        ({"pools": "x"}, "pools", "did you mean 'pool'?"),
        ({"retries": -1}, "retries", "at least 0"),
        ({"retries": "3"}, "retries", "whole number"),
        ({"retry_delay": "soon"}, "retry_delay", "duration"),
        ({"retry_delay": -1}, "retry_delay", "0 to"),
        ({"retry_delay": True}, "retry_delay", "duration"),
        ({"ordered": "yes"}, "ordered", "true or false"),
        ({"on_undelivered": "ignore"}, "on_undelivered", "did you mean 'report'?"),
        ({"undelivered_asset": "x"}, "undelivered_asset", "it needs on_undelivered: report"),
        (
            {"on_undelivered": "report", "undelivered_asset": {}},
            "undelivered_asset",
            "a name or a uri is needed",
        ),
        (
            {"on_undelivered": "report", "undelivered_asset": {"nam": "x"}},
            "undelivered_asset.nam",
            "did you mean 'name'?",
        ),
        ({"give_up_after": -1}, "give_up_after", "at least 0"),
    ],
)
def test_a_wrong_value_is_found(keys: dict[str, Any], path: str, part: str) -> None:
    """This holds in a webhook as in a workflow."""
    webhook = {"name": "w", "conn_id": "c"}
    for arguments, prefix in (
        ({"webhooks": [webhook], **keys}, ""),
        ({"webhooks": [{**webhook, **keys}]}, "webhooks[0]."),
    ):
        with pytest.raises(InvalidWorkflow) as caught:
            Workflow(name="w", record_type="Notes", **arguments)
        assert part in dict(caught.value.problems)[f"{prefix}{path}"]


@pytest.mark.parametrize(
    ("keys", "path", "part"),
    [
        ({"max_active_runs": 0}, "max_active_runs", "at least 1"),
        ({"owner": " "}, "owner", "a text is needed"),
        ({"on_failure": "tell"}, "on_failure.callback", "dotted path"),
        ({"on_failure": {"callback": "a.b", "argument": {}}}, "on_failure.argument", "'arguments'?"),
        ({"on_failure": {}}, "on_failure.callback", "it is missing"),
    ],
)
def test_a_wrong_value_of_a_workflow_is_found(keys: dict[str, Any], path: str, part: str) -> None:
    """It is found like any other mistake."""
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow(name="w", record_type="Notes", webhooks=[{"name": "w", "conn_id": "c"}], **keys)
    assert part in dict(caught.value.problems)[path]


# --- on_failure --------------------------------------------------------------------------------------------


def with_callback(callback: str, arguments: str = "") -> str:
    given = f"\n  arguments: {arguments}" if arguments else ""
    workflow = "name: w\nrecord_type: Notes\nwebhooks: [{name: w, conn_id: c, after: 1d}]\n"
    return f"{workflow}on_failure:\n  callback: {callback}{given}\n"


def test_a_function_beside_the_dag_file_is_called(tmp_path: Path) -> None:
    """Each of the workflow's DAGs calls it, with the context of the run and the arguments."""
    (tmp_path / "alerts_of_a_test.py").write_text(ALERTS)
    import sys

    sys.path.insert(0, str(tmp_path))  # as Airflow does with a bundle's folder
    try:
        dags, errors = dags_of(tmp_path, with_callback("alerts_of_a_test.tell", "{channel: sales}"))
        assert errors == {}
        assert set(dags) == {"w", "w__pending", "w__retry"}
        for dag in dags.values():
            dag.on_failure_callback({"dag": dag.dag_id})
        assert sys.modules["alerts_of_a_test"].calls == [({"dag": dag_id}, "sales") for dag_id in dags]
    finally:
        sys.path.remove(str(tmp_path))


def test_a_notifier_is_made_with_its_arguments() -> None:
    """The notifier renders its templates by itself."""
    workflow = Workflow(
        name="w",
        record_type="Notes",
        webhooks=[Webhook(name="w", conn_id="c")],
        on_failure={"callback": f"{__name__}.Notifier", "arguments": {"channel": "{{ dag.dag_id }}"}},
    )
    callback: Any = workflow.to_dag().on_failure_callback
    assert isinstance(callback, Notifier)
    assert callback.channel == "{{ dag.dag_id }}"
    assert workflow.to_dag(on_failure_callback=None).on_failure_callback is None


@pytest.mark.parametrize(
    ("callback", "arguments", "line", "reason"),
    [
        (
            "nowhere.tell",
            "",
            5,
            "on_failure.callback: there is no module 'nowhere': put it into the DAG folder",
        ),
        ("json.dumpz", "", 5, "on_failure.callback: json has no 'dumpz'; did you mean 'dump"),
        (
            "json.decoder",
            "",
            5,
            "on_failure.callback: json.decoder is a module: name a function or a notifier class",
        ),
        ("alerts_with_a_fault.tell", "", 5, "alerts_with_a_fault can't be imported: ZeroDivisionError at "),
        ("alerts_that_need.tell", "", 5, "it needs the module 'what_is_not_installed'"),
        (f"{__name__}.Notifier", "", 4, "can't be called with these arguments: missing a required argument"),
        (f"{__name__}.Notifier", "{chanel: x}", 6, "on_failure.arguments: "),
        (f"{__name__}.Notifier", f"{{channel: {SECRET}}}", 6, "refuses these arguments: ValueError at "),
        ("os.getcwd", "", 4, "on_failure.arguments: os.getcwd can't be called with the context"),
        (
            "decimal.Decimal",
            "",
            5,
            "on_failure.callback: decimal.Decimal is neither a notifier class nor a function",
        ),
    ],
)
def test_a_wrong_callback_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callback: str, arguments: str, line: int, reason: str
) -> None:
    """It is found when the DAG is parsed, and no argument's value is shown."""
    (tmp_path / "alerts_with_a_fault.py").write_text(f"'{SECRET}'\n1 / 0\n")
    (tmp_path / "alerts_that_need.py").write_text("import what_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "x.yaml").write_text(with_callback(callback, arguments))
    errors: list[str] = []
    monkeypatch.setattr(files.log, "error", lambda _format, error: errors.append(str(error)))
    assert files.load_folder(tmp_path / "workflows") == {}
    assert errors[0].startswith(f"x.yaml:{line}: ")
    assert reason in errors[0]
    assert SECRET not in errors[0]


def test_durations_may_be_seconds_or_text() -> None:
    """They may have the same forms as ``retry_delay`` in Python."""
    webhooks = [
        Webhook(name=name, conn_id="c", retry_delay=delay)  # type: ignore[arg-type]
        for name, delay in (("a", 2.5), ("b", "3h"), ("c", timedelta(days=1)))
    ]
    assert [webhook.retry_delay for webhook in webhooks] == [
        timedelta(seconds=2.5),
        timedelta(hours=3),
        timedelta(days=1),
    ]
