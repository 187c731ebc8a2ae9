"""Find the DAGs to run in a DAG, a ``Workflow``, a workflow file or a DAG file, and their connections."""

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
    """The DAG to run, and all DAGs that were made with it, including itself."""

    wanted: DAG
    all: list[DAG]


def dags_in(source: Any, dag_id: str | None = None) -> _Dags:
    """Return the DAG to run.

    :param source: a DAG, a ``Workflow``, or the path of a YAML file of workflows or of a DAG file.
    :param dag_id: the DAG's id. If it is not given, the file must have exactly one DAG or one workflow.
    :raises InvalidWorkflowFile: if a workflow file is not valid. It has the line and path of each mistake.
    :raises ImportError: if a DAG file, or a workflow file that it loads, is not valid. With ``dag_id``, only
        if that DAG can't be made.
    :raises LookupError: if there is no DAG with this id, or ``dag_id`` is missing and there are several DAGs.
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
    """Return the DAG to run. Each list has one workflow's DAGs, and the workflow's own DAG comes first."""
    wanted = _one([dags[0] for dags in made], dag_id, name)
    return _Dags(wanted, [dag for dags in made for dag in dags])


def _of_dag_file(path: Path, dag_id: str | None) -> _Dags:
    from airflow.dag_processing.dagbag import DagBag

    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give the path of a DAG file or a workflow file")
    bag = DagBag(dag_folder=path, safe_mode=False)
    # If a DAG is chosen by its id, invalid files of other DAGs don't matter.
    if bag.import_errors and dag_id not in bag.dags:
        raise ImportError("\n".join(bag.import_errors.values()))
    made = list(bag.dags.values())
    # A workflow's own DAG runs its pending and retry DAGs.
    beside = {f"{dag.dag_id}{suffix}" for dag in made for suffix in ("__retry", "__pending")}
    first = [dag for dag in made if dag.dag_id == dag_id or dag.dag_id not in beside]
    return _Dags(_one(first, dag_id, path.name), made)


def _one(dags: list[DAG], dag_id: str | None, name: str) -> DAG:
    ids = sorted(dag.dag_id for dag in dags)
    found = [dag for dag in dags if dag_id in (None, dag.dag_id)]
    if len(found) != 1:
        raise LookupError(f"{name} has the DAGs {', '.join(ids) or '(none)'}: choose one with dag_id=")
    return found[0]


class _ConnectionIds(NamedTuple):
    """The ids of the connections that DAGs use."""

    accounts: set[str]
    receivers: set[str]


def connection_ids(dags: Iterable[DAG]) -> _ConnectionIds:
    """Return the ids of the Insightly connections and webhook connections that the DAGs' tasks use."""
    found = _ConnectionIds(set(), set())
    for arguments in _arguments(dags):
        workflow = arguments.get("workflow")
        if isinstance(workflow, WorkflowDefinition):
            found.accounts.add(workflow.insightly_conn_id)
            found.receivers.update(hook.conn_id for hook in workflow.webhooks if hook.conn_id is not None)
        for ids, name in ((found.accounts, "insightly_conn_id"), (found.receivers, "webhook_conn_id")):
            conn_id = arguments.get(name)
            if isinstance(conn_id, str) and "{{" not in conn_id:  # a template is known only in the run
                ids.add(conn_id)
    return found


def settle_times(dags: Iterable[DAG]) -> list[float]:
    """Return ``settle`` of each sensor in the DAGs, in seconds; the list has at least one item."""
    found = []
    for arguments in _arguments(dags):
        workflow = arguments.get("workflow")
        settle = workflow.settle if isinstance(workflow, WorkflowDefinition) else arguments.get("settle")
        if isinstance(settle, (int, float)):
            found.append(float(settle))
    return found or [DEFAULT_SETTLE]


def _arguments(dags: Iterable[DAG]) -> Iterator[dict[str, Any]]:
    """Yield the arguments of each task. A mapped task doesn't have them as attributes."""
    for dag in dags:
        for task in dag.tasks:
            mapped = getattr(task, "partial_kwargs", None)
            yield mapped if mapped is not None else vars(task)
