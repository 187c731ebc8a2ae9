"""DAGs to run: from a DAG, a ``Workflow``, a workflow file or a DAG file; and the connections they use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["connection_ids", "dags_in", "settle_times"]

YAML = (".yaml", ".yml")
DEFAULT_SETTLE = 5.0


class _Dags(NamedTuple):
    """The DAG to run, and all that came with it, itself included."""

    wanted: DAG
    all: list[DAG]


def dags_in(source: Any, dag_id: str | None = None) -> _Dags:
    """Return the DAG to run.

    :param source: a DAG, a ``Workflow``, the path of a YAML file of workflows, or that of a DAG file.
    :param dag_id: which one of a file's DAGs; without, the file must hold one DAG or one workflow.
    :raises InvalidWorkflowFile: if a workflow file is wrong: with line and path of each mistake.
    :raises ImportError: if a DAG file is wrong, or a workflow file that it loads. With ``dag_id``, only if
        that DAG is not made.
    :raises LookupError: if there is no such DAG, or there are several.
    """
    from airflow.sdk import DAG

    if isinstance(source, DAG):
        return _Dags(source, [source])
    if isinstance(source, WorkflowDefinition):
        from airflow_insightly_hooks.workflows.dag import workflow_dags

        return _chosen([workflow_dags(source)], dag_id, source.name)
    from airflow_insightly_hooks.workflows.import_path import folders_above, importable

    path = Path(source)
    with importable(folders_above(path)):
        return _of_yaml_file(path, dag_id) if path.suffix in YAML else _of_dag_file(path, dag_id)


def _of_yaml_file(path: Path, dag_id: str | None) -> _Dags:
    from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
    from airflow_insightly_hooks.workflows.dag import workflow_dags
    from airflow_insightly_hooks.workflows.files import located_in
    from airflow_insightly_hooks.workflows.workflow import Workflow

    text = path.read_text("utf-8")
    made = []
    for workflow in read_workflows(text, path.name, Workflow):
        with located_in(text, path.name, workflow):
            made.append(workflow_dags(workflow))
    return _chosen(made, dag_id, path.name)


def _chosen(made: list[list[DAG]], dag_id: str | None, name: str) -> _Dags:
    """Return one of several workflows' DAGs; each workflow's own is the first of its list."""
    wanted = _one([dags[0] for dags in made], dag_id, name)
    return _Dags(wanted, [dag for dags in made for dag in dags])


def _of_dag_file(path: Path, dag_id: str | None) -> _Dags:
    from airflow.dag_processing.dagbag import DagBag

    if not path.is_file():
        raise FileNotFoundError(f"{path} is no DAG file and no workflow file")
    bag = DagBag(dag_folder=path, safe_mode=False)
    # The wrong files beside that of a DAG which is asked for by its id don't matter to it.
    if bag.import_errors and dag_id not in bag.dags:
        raise ImportError("\n".join(bag.import_errors.values()))
    made = list(bag.dags.values())
    # The DAGs beside a workflow's own are run by it.
    beside = {f"{dag.dag_id}{suffix}" for dag in made for suffix in ("__retry", "__pending")}
    first = [dag for dag in made if dag.dag_id == dag_id or dag.dag_id not in beside]
    return _Dags(_one(first, dag_id, path.name), made)


def _one(dags: list[DAG], dag_id: str | None, name: str) -> DAG:
    ids = sorted(dag.dag_id for dag in dags)
    found = [dag for dag in dags if dag_id in (None, dag.dag_id)]
    if len(found) != 1:
        raise LookupError(f"{name} holds the DAGs {', '.join(ids) or 'none'}: say which one by dag_id=")
    return found[0]


class _ConnectionIds(NamedTuple):
    """The ids of the connections that DAGs use."""

    accounts: set[str]
    receivers: set[str]


def connection_ids(dags: Iterable[DAG]) -> _ConnectionIds:
    """Return the ids of the Insightly and the webhook connections that the tasks of DAGs name."""
    found = _ConnectionIds(set(), set())
    for arguments in _arguments(dags):
        workflow = arguments.get("workflow")
        if isinstance(workflow, WorkflowDefinition):
            found.accounts.add(workflow.insightly_conn_id)
            found.receivers.update(hook.conn_id for hook in workflow.webhooks if hook.conn_id is not None)
        for ids, name in ((found.accounts, "insightly_conn_id"), (found.receivers, "webhook_conn_id")):
            conn_id = arguments.get(name)
            if isinstance(conn_id, str) and "{{" not in conn_id:  # a template's is known in the run only
                ids.add(conn_id)
    return found


def settle_times(dags: Iterable[DAG]) -> list[float]:
    """Return how many seconds must have passed before the sensors of DAGs read a change: at least one."""
    found = []
    for arguments in _arguments(dags):
        workflow = arguments.get("workflow")
        settle = workflow.settle if isinstance(workflow, WorkflowDefinition) else arguments.get("settle")
        if isinstance(settle, (int, float)):
            found.append(float(settle))
    return found or [DEFAULT_SETTLE]


def _arguments(dags: Iterable[DAG]) -> Iterator[dict[str, Any]]:
    """Yield what the tasks were given: a mapped one has no attributes of its operator."""
    for dag in dags:
        for task in dag.tasks:
            mapped = getattr(task, "partial_kwargs", None)
            yield mapped if mapped is not None else vars(task)
