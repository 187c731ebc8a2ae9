"""A workflow -> its DAG: ``detect``, ``evaluate``, and for each webhook ``build`` and ``deliver``.

In the mode ``one_task``, one task does the work of all these tasks (``workflows.one_task``).

A task in this DAG schedules the webhooks that have a time trigger. A second DAG, ``{dag_id}__pending``, sends
them. It runs when a webhook is due (``operators.pending``). A third DAG, ``{dag_id}__retry``, sends messages
that wait for a receiver that is down, so that runs may overlap (``operators.workflow_delivery``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk import (
    DAG,
    Param,
    TaskGroup,
    XComArg,
)

from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidCriteria, InvalidWorkflow
from airflow_insightly_hooks.core.state.pending_request import CANCEL, SEND_NOW, WEBHOOKS
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX, RETRY_SUFFIX
from airflow_insightly_hooks.core.workflow.definition import (
    DELIVERY,
    ONE_TASK,
    Mode,
    WorkflowDefinition,
)
from airflow_insightly_hooks.core.workflow.description import description_markdown
from airflow_insightly_hooks.core.workflow.parts import Schedule, UndeliveredAsset, Webhook
from airflow_insightly_hooks.core.workflow.task_ids import DETECT
from airflow_insightly_hooks.core.workflow.yaml_text import stored_yaml
from airflow_insightly_hooks.hooks.assets import records_asset
from airflow_insightly_hooks.operators.common.mode_change import check_mode
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.operators.one_task.delivery_settings import asset_of
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.operators.pending import (
    DueWebhooksOperator,
    ScheduleWebhooksOperator,
    TimeTrigger,
    WakeUpOperator,
)
from airflow_insightly_hooks.operators.retry_queue import (
    PAYLOADS,
    CollectRetriesOperator,
    RetryWebhookOperator,
)
from airflow_insightly_hooks.operators.workflow_delivery import WorkflowWebhookOperator
from airflow_insightly_hooks.runs.airflow_runs import DRY_RUN
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.workflows.callbacks import failure_callback
from airflow_insightly_hooks.workflows.timetable import timetable_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

__all__ = ["cursor_of", "workflow_dag", "workflow_dags", "workflow_group"]

TAG = "insightly"
ALSO_SENDING = ("default_args", "tags", "access_control", "on_failure_callback")
"""The arguments of a workflow's DAG that its pending DAG and its retry DAG get, too."""
OF_TASKS = ("owner", "pool")
"""The keys of a workflow that are arguments of all its tasks."""
MOST_RUNS = 16
"""How many runs of a workflow may be active at once. For each receiver that is down, at most one waits."""
RETRY_RUNS = 8
"""How many runs of a retry DAG may be active for each webhook: one is queued, three or four wait, others end
at once."""
INDEPENDENT = {"depends_on_past": False, "wait_for_downstream": False}
"""Arguments of the pending and retry DAGs that ``default_args`` can't change: if a run fails, the next run
must still send what is due."""
FINISH_FIRST = {"weight_rule": "upstream"}
"""If slots are scarce, detected changes are sent before another run begins. Airflow's default does the
opposite."""


def workflow_dag(workflow: WorkflowDefinition, **arguments: Any) -> DAG:
    """Return a workflow's DAG. ``Workflow.to_dag`` describes it."""
    # Airflow registers a DAG at the end of its with statement, even if it is incomplete because of an error.
    registers = arguments.pop("auto_register", True)
    dag, *beside = workflow_dags(workflow, **arguments)
    for made in (dag, *beside) if registers else ():
        _register(made)
    return dag


def workflow_dags(workflow: WorkflowDefinition, **arguments: Any) -> list[DAG]:
    """Return a workflow's DAG, and its pending and retry DAGs. None of them is registered with Airflow."""
    if "dag_id" in arguments:
        workflow = workflow.model_copy(update={"dag_id": arguments["dag_id"]})
    workflow = _in_mode(workflow, arguments)
    shown, sentence = _as_scheduled(workflow, arguments)
    yaml = stored_yaml(shown)
    if "doc_md" not in arguments:  # the text on the DAG's page
        arguments = {**arguments, "doc_md": description_markdown(shown, schedule=sentence, yaml=yaml)}
    workflow = _with_arguments(workflow, arguments.get("default_args"))
    schedule = arguments.pop("schedule", workflow.schedule)
    has_intervals = isinstance(schedule, Schedule) and schedule.data_interval
    arguments = {
        "dag_id": workflow.dag_id,
        "dag_display_name": workflow.name,
        "description": workflow.description or None,
        "start_date": workflow.start_date,
        "catchup": has_intervals,  # an interval without a run would not be read
        "max_active_runs": workflow.max_active_runs or (1 if workflow.mode == ONE_TASK else MOST_RUNS),
        "tags": list(dict.fromkeys([TAG, *workflow.tags])),
        **_on_failure(workflow, arguments),
        **arguments,
        "params": _params(workflow, arguments.get("params") or {}),
        "default_args": {**FINISH_FIRST, **_default_args(workflow, arguments)},
    }
    if has_intervals and arguments["start_date"] is None:
        raise InvalidWorkflow((("start_date", "a schedule with data intervals needs it: set it"),))
    timetable = timetable_of(schedule, workflow, cursor_of(workflow))
    with DAG(schedule=timetable, auto_register=False, **arguments) as dag:
        _tasks(workflow, yaml)
    try:
        dag.timetable.validate()
    except Exception as error:
        raise InvalidWorkflow((("schedule", f"Airflow refuses it: {error}"),)) from None
    shared = {name: arguments[name] for name in ALSO_SENDING if name in arguments}
    beside = (_pending_dag(workflow, **shared), _retry_dag(workflow, **shared))
    return [dag, *(made for made in beside if made is not None)]


def workflow_group(workflow: WorkflowDefinition, group_id: str | None = None, **arguments: Any) -> TaskGroup:
    """Return a workflow's task group. ``Workflow.task_group`` describes it."""
    group_id = group_id or workflow.slug or workflow.dag_id
    workflow = _in_mode(workflow, arguments)
    yaml = stored_yaml(workflow)
    workflow = _with_arguments(workflow, arguments.get("default_args"))
    arguments = {
        "tooltip": workflow.description,
        **arguments,
        "default_args": _default_args(workflow, arguments),
    }
    further = {"tags": [TAG], "default_args": arguments["default_args"], **_on_failure(workflow, {})}
    with TaskGroup(group_id, **arguments) as group:
        _tasks(workflow, yaml)
    for make in (_pending_dag, _retry_dag):
        _register(make(workflow, **further))
    return group


def _in_mode(workflow: WorkflowDefinition, arguments: dict[str, Any]) -> WorkflowDefinition:
    """Return the workflow in the mode that the arguments give, and remove that argument."""
    mode = arguments.pop("mode", workflow.mode)
    if mode not in get_args(Mode):
        raise InvalidWorkflow((("mode", f"{' or '.join(map(repr, get_args(Mode)))} is needed"),))
    return workflow.model_copy(update={"mode": mode})


def _with_arguments(
    workflow: WorkflowDefinition, default_args: Mapping[str, Any] | None
) -> WorkflowDefinition:
    """Return the workflow with the delivery settings of ``default_args``, which override its keys."""
    given = default_args or {}
    return workflow.with_delivery({name: given[name] for name in DELIVERY if name in given})


def _as_scheduled(
    workflow: WorkflowDefinition, arguments: Mapping[str, Any]
) -> tuple[WorkflowDefinition, str | None]:
    """Return the workflow with its DAG's schedule; and a sentence, if no workflow can have this schedule."""
    schedule = arguments.get("schedule", workflow.schedule)
    if schedule is None or isinstance(schedule, str | Schedule):
        return workflow.model_copy(update={"schedule": schedule}), None
    return workflow, "The DAG file sets when it runs."


def _default_args(workflow: WorkflowDefinition, arguments: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name in OF_TASKS if (value := getattr(workflow, name)) is not None}
    return {**said, **(arguments.get("default_args") or {})}


def _params(workflow: WorkflowDefinition, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given params, and the param ``dry_run`` unless all runs of the workflow are dry runs."""
    ours = {} if workflow.dry_run else {DRY_RUN: Param(False, type="boolean", title="Dry run")}
    read = getattr(given, "get_param", given.__getitem__)  # Airflow's ParamsDict: the Param, not its value
    return {**ours, **{name: read(name) for name in given}}


def _on_failure(workflow: WorkflowDefinition, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the DAG's argument ``on_failure_callback``, unless the arguments have another one."""
    if workflow.on_failure is None or "on_failure_callback" in arguments:
        return {}
    return {"on_failure_callback": failure_callback(workflow.on_failure)}


def cursor_of(workflow: WorkflowDefinition) -> str:
    """Return the name of the cursor of a workflow's DAG."""
    return workflow.cursor or f"{workflow.dag_id}/{DETECT}"


def _register(dag: DAG | None) -> None:
    """Register a DAG with Airflow, for the DAG file that is being read."""
    if dag is not None:
        dag.auto_register = True
        with dag:
            pass


def _tasks(workflow: WorkflowDefinition, yaml: str) -> None:
    """Make the tasks, in the DAG and the group whose with statements are active.

    :param yaml: the workflow's text, for pages that have no DAG file (``database.stored_workflows``).
    """
    if workflow.mode == ONE_TASK:
        # Only few workflows need this module, so the files of the others parse faster without it.
        from airflow_insightly_hooks.workflows.one_task import add_one_task

        add_one_task(workflow, yaml)
        return
    detect = InsightlyRecordChangeSensor(
        task_id=DETECT,
        record_type=workflow.record_type,
        events=workflow.events,
        settle=workflow.settle,
        lookback=workflow.lookback,
        insightly_conn_id=workflow.insightly_conn_id,
        cursor=workflow.cursor,
        deferrable=True,
        is_dry_run=workflow.dry_run,
        max_active_tis_per_dag=1,  # runs overlap, but only one may read from a cursor
        pre_execute=check_mode,
    )
    try:
        evaluate = EvaluateCriteriaOperator(
            task_id="evaluate",
            changes=detect.output,
            criteria=workflow.criteria,
            until_triggered=workflow.evaluate == "until_triggered",
            record_type=workflow.record_type,
            workflow=workflow.dag_id,
            active=workflow.active,
            is_dry_run=workflow.dry_run,
            insightly_conn_id=workflow.insightly_conn_id,
            doc_yaml=yaml,
        )
    except InvalidCriteria as error:  # the criteria are valid, but Airflow can't store them
        raise InvalidWorkflow(((error.path, error.reason),)) from None
    for webhook in workflow.webhooks:
        if not webhook.is_timed:
            _send(workflow, webhook, evaluate)
    timed = _timed(workflow)
    if timed:
        ScheduleWebhooksOperator(
            task_id="schedule",
            changes=evaluate.output,
            time_triggers=[TimeTrigger(w.slug, w.after, w.before, w.field) for w in timed],
            pending_dag_id=workflow.dag_id + PENDING_SUFFIX,
            is_dry_run=workflow.dry_run,
        )


def _send(workflow: WorkflowDefinition, webhook: Webhook, changes: BaseOperator) -> None:
    """Make the tasks that build and deliver one webhook."""
    build = BuildPayloadOperator(
        task_id=f"build{_suffix(workflow, webhook)}",
        changes=changes.output,
        fields=webhook.fields,
        date_format=webhook.date_format,
        timezone=webhook.timezone,
        envelope=webhook.envelope,
        workflow=workflow.message_scope(webhook),
        insightly_conn_id=workflow.insightly_conn_id,
    )
    try:
        WorkflowWebhookOperator(
            payloads=build.output,
            payloads_task_id=build.task_id,
            retry_dag_id=workflow.dag_id + RETRY_SUFFIX,
            **_delivery(workflow, webhook),
        )
    except InvalidConnection as error:
        path = f"webhooks[{workflow.webhooks.index(webhook)}]"
        raise InvalidWorkflow(((path, str(error)),)) from None


def _delivery(workflow: WorkflowDefinition, webhook: Webhook) -> dict[str, Any]:
    """Return the arguments of each task that sends a webhook."""
    receiver = {"uri": webhook.uri} if webhook.conn_id is None else {"webhook_conn_id": webhook.conn_id}
    said = workflow.delivery_of(webhook)
    if isinstance(asset := said.get("undelivered_asset"), UndeliveredAsset):
        said["undelivered_asset"] = asset_of(asset, workflow, webhook)
    return {
        "task_id": f"deliver{_suffix(workflow, webhook)}",
        "asset": records_asset(workflow.insightly_conn_id, workflow.record_type),
        "webhook": f"{workflow.dag_id}/{webhook.slug}",
        "concurrency": webhook.concurrency,
        "headers": webhook.headers or None,
        "is_dry_run": workflow.dry_run,
        **receiver,
        **({"pool": webhook.pool} if webhook.pool is not None else {}),
        **said,
    }


def _suffix(workflow: WorkflowDefinition, webhook: Webhook) -> str:
    """Return the end of a webhook's task ids: its name, or nothing if the workflow has only one webhook."""
    return f"_{webhook.slug}" if len(workflow.webhooks) > 1 else ""


def _sending_dag(dag_id: str, default_args: dict[str, Any] | None, **arguments: Any) -> DAG:
    """Return a DAG that sends the messages which the workflow's own DAG has left for it."""
    return DAG(
        dag_id,
        schedule=None,
        is_paused_upon_creation=False,  # the messages left for it must be sent
        auto_register=False,
        default_args={**FINISH_FIRST, **(default_args or {}), **INDEPENDENT},
        **arguments,
    )


def _pending_dag(
    workflow: WorkflowDefinition, *, default_args: dict[str, Any] | None = None, **arguments: Any
) -> DAG | None:
    """Return the DAG that sends the webhooks with time triggers; ``None`` if there are none."""
    timed = _timed(workflow)
    if not timed:
        return None
    slugs = [webhook.slug for webhook in timed]
    dag = _sending_dag(
        workflow.dag_id + PENDING_SUFFIX,
        default_args,
        dag_display_name=f"{workflow.name}: pending",
        description=f"Sends webhooks of {workflow.dag_id} at their time. That DAG, or this one, starts it.",
        params={
            CANCEL: _list_param("integer", "Cancel", "Don't send the webhooks of records with these ids."),
            SEND_NOW: _list_param("integer", "Send now", "Send the webhooks of records with these ids now."),
            WEBHOOKS: _list_param(
                "string", "Webhooks", "Cancel or send only these webhooks. If empty: all webhooks.", slugs
            ),
        },
        **arguments,
    )
    with dag, dag.task_group:  # a group whose with statement is active belongs to another DAG
        due = [_due(workflow, webhook) for webhook in timed]
        WakeUpOperator(task_id="wake_up", trigger_rule="all_done").set_upstream(due)
    return dag


def _list_param(item_type: str, title: str, description: str, examples: Sequence[str] = ()) -> Param:
    schema: dict[str, Any] = {"type": "array", "items": {"type": item_type}, "examples": list(examples)}
    return Param([], title=title, description=description, **schema)


def _retry_dag(
    workflow: WorkflowDefinition, *, default_args: dict[str, Any] | None = None, **arguments: Any
) -> DAG:
    """Return the DAG that sends messages which deliver tasks have left instead of waiting for a receiver."""
    dag = _sending_dag(
        workflow.dag_id + RETRY_SUFFIX,
        default_args,
        dag_display_name=f"{workflow.name}: retry",
        description=f"Sends messages of {workflow.dag_id} to receivers that were down. That DAG starts it.",
        max_active_runs=RETRY_RUNS * len(workflow.webhooks),
        **arguments,
    )
    with dag, dag.task_group:  # a group whose with statement is active belongs to another DAG
        deliveries = {webhook.slug: _delivery(workflow, webhook) for webhook in workflow.webhooks}
        collect = CollectRetriesOperator(
            task_id="collect",
            asset=records_asset(workflow.insightly_conn_id, workflow.record_type),
            deliver_task_ids={d["webhook"]: d["task_id"] for d in deliveries.values()},
        )
        for delivery in deliveries.values():
            RetryWebhookOperator(
                payloads=XComArg(collect, key=PAYLOADS + delivery["task_id"]),
                collect_task_id=collect.task_id,
                **delivery,
            )
        collect >> WakeUpOperator(task_id="wake_up", trigger_rule="all_done")
    return dag


def _due(workflow: WorkflowDefinition, webhook: Webhook) -> DueWebhooksOperator:
    due = DueWebhooksOperator(
        task_id=f"due{_suffix(workflow, webhook)}",
        webhook=webhook.slug,
        workflow=workflow.dag_id,
        record_type=workflow.record_type,
        criteria=workflow.criteria if webhook.recheck else None,
        insightly_conn_id=workflow.insightly_conn_id,
    )
    _send(workflow, webhook, due)
    return due


def _timed(workflow: WorkflowDefinition) -> Sequence[Webhook]:
    return [webhook for webhook in workflow.webhooks if webhook.is_timed]
