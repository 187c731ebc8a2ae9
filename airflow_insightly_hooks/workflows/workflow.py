"""``Workflow``: a workflow's definition, and what Airflow makes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.detection.changes import Event, RecordChange
from airflow_insightly_hooks.core.workflow.backtest import Backtest, backtest
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.preview import Preview, preview

if TYPE_CHECKING:
    from airflow.sdk import DAG, TaskGroup

__all__ = ["Workflow"]


class Workflow(WorkflowDefinition):  # noqa: D101 — below: its arguments are described once
    __doc__ = WorkflowDefinition.__doc__

    def to_dag(self, **arguments: Any) -> DAG:
        """Return the workflow as a DAG: ``detect``, ``evaluate``, then ``build`` and ``deliver`` a webhook.

        It is registered with Airflow as if a ``with`` statement had made it. Two further DAGs can come with
        it: ``{dag_id}__retry`` always, which sends what waits for a receiver that is down, and
        ``{dag_id}__pending`` where a webhook has a time trigger, which sends such webhooks at their time. In
        the mode ``one_task`` the DAG itself has one task, ``detect_and_deliver``.

        :param arguments: arguments of Airflow's ``DAG``, over those that the workflow gives: ``schedule``
            (anything that Airflow takes), ``dag_id``, ``catchup``, ``max_active_runs`` (16), and so on; and
            ``mode``.
        :raises InvalidWorkflow: if Airflow refuses something of it.

        The further DAGs get ``default_args``, ``tags``, ``access_control`` and ``on_failure_callback``, too.
        """
        # Airflow is loaded only where a DAG is made.
        from airflow_insightly_hooks.workflows.dag import workflow_dag

        return workflow_dag(self, **arguments)

    def task_group(self, group_id: str | None = None, **arguments: Any) -> TaskGroup:
        """Return the workflow as a task group of the DAG that is being defined.

        When it runs is that DAG's to say: ``schedule``, ``start_date`` and ``tags`` don't count. The same
        further DAGs come with it as with ``to_dag``, named after the workflow's ``dag_id``: give groups in
        two DAG files a ``dag_id`` each, since two files can't have a DAG of one id. What comes after the
        group is skipped with it when nothing triggers, unless its trigger rule is ``none_failed``.

        :param group_id: the group's id; by default the workflow's name, in lower case and with underscores.
        :param arguments: arguments of Airflow's ``TaskGroup``, and ``mode``.
        :raises InvalidWorkflow: if Airflow refuses something of it; or, in the mode ``one_task``, if the DAG
            has no data intervals, and may have more than one active run (``max_active_runs``).
        """
        from airflow_insightly_hooks.workflows.dag import workflow_group

        return workflow_group(self, group_id, **arguments)

    def backtest(
        self,
        changes: Iterable[RecordChange],
        *,
        now: datetime | None = None,
        multi_select: Iterable[str] | None = None,
        triggered: Iterable[int] = (),
    ) -> Backtest:
        """Return which of the changes would have triggered the workflow, and why the others would not.

        :param changes: as a sensor returns them, in the order in which they happened.
        :param now: what relative dates are measured from; ``None`` takes each change's own time, where a run
            takes the end of its window.
        :param multi_select: the names of the custom fields that hold several options, as far as known.
        :param triggered: the ids of the records that have triggered before (``until_triggered``).
        :raises InvalidChange: if one of them is no change.
        :raises InvalidTime: if a change's time is not a time.
        :raises ValueError: if ``now`` has no time zone.
        """
        return backtest(self, changes, now=now, multi_select=multi_select, triggered=triggered)

    def preview(
        self,
        record: Mapping[str, Any],
        *,
        event: Event | None = None,
        now: datetime | None = None,
        multi_select: Iterable[str] | None = None,
        custom_date_fields: Collection[str] = (),
        custom_day_fields: Collection[str] = (),
    ) -> Preview:
        """Return whether a record would trigger the workflow, as added and updated, and what would be sent.

        Bodies and ids are those that the workflow's tasks would make of the record. The workflow counts as
        active, and its records as ones that have not triggered before.

        :param record: as Insightly's API delivers it (``InsightlyHook(…, exact_numbers=True).get_record``).
        :param event: ``added`` or ``updated``; ``None`` looks at both.
        :param now: an aware time that relative dates are measured from, and that the change has where the
            record tells none; ``None`` takes the change's own time, where a run takes its window's end.
        :param multi_select: the names of the custom fields that hold several options, as far as known.
        :param custom_date_fields: the names of the custom fields that hold dates. A task asks Insightly for
            them; without them, such dates are in the body as the record has them.
        :param custom_day_fields: those of them that hold days.
        :raises InvalidPayload: if the record has no usable id, or neither it nor ``now`` tells a time.
        :raises InvalidTime: if one of the record's times is not a time.
        :raises ValueError: if ``now`` has no time zone.
        """
        return preview(
            self,
            record,
            event=event,
            now=now,
            multi_select=multi_select,
            custom_date_fields=custom_date_fields,
            custom_day_fields=custom_day_fields,
        )
