"""``Workflow``: a workflow's definition, with methods that make a DAG, preview a record, and so on."""

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


class Workflow(WorkflowDefinition):  # noqa: D101 — below; the base class describes the arguments
    __doc__ = WorkflowDefinition.__doc__

    def to_dag(self, **arguments: Any) -> DAG:
        """Return the workflow as a DAG: ``detect``, ``evaluate``, and ``build`` and ``deliver`` per webhook.

        In the mode ``one_task``, the DAG has only the task ``detect_and_deliver``. The DAG is registered with
        Airflow, as if a ``with`` statement had made it.

        Further DAGs come with it. ``{dag_id}__retry`` sends messages that wait for a receiver that is down.
        ``{dag_id}__pending`` sends webhooks with a time trigger at their time. It is made only if a webhook
        has a time trigger. The further DAGs also get the arguments ``default_args``, ``tags``,
        ``access_control`` and ``on_failure_callback``.

        :param arguments: arguments of Airflow's ``DAG``, and ``mode``. They override the workflow's keys:
            ``schedule`` (anything that Airflow accepts), ``dag_id``, ``catchup``, ``max_active_runs`` (16),
            and so on.
        :raises InvalidWorkflow: if Airflow refuses a part of the workflow.
        """
        # Airflow is imported only when a DAG is made.
        from airflow_insightly_hooks.workflows.dag import workflow_dag

        return workflow_dag(self, **arguments)

    def task_group(self, group_id: str | None = None, **arguments: Any) -> TaskGroup:
        """Return the workflow as a task group of the DAG that is being defined.

        That DAG determines when the group runs, so ``schedule``, ``start_date`` and ``tags`` are ignored. The
        same further DAGs come with the group as with ``to_dag``. They are named after the workflow's
        ``dag_id``. Two DAG files can't have DAGs with the same id, so give groups in two DAG files different
        values of ``dag_id``. If no record triggers, the tasks after the group are skipped with it, unless
        their trigger rule is ``none_failed``.

        :param group_id: the group's id; by default the workflow's name, in lower case and with underscores.
        :param arguments: arguments of Airflow's ``TaskGroup``, and ``mode``.
        :raises InvalidWorkflow: if Airflow refuses a part of the workflow. Also, in the mode ``one_task``, if
            the DAG has no data intervals and may have more than one active run (``max_active_runs``).
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

        :param changes: changes as a sensor returns them, in the order in which they happened.
        :param now: the time from which relative dates are measured. ``None`` takes each change's own time; a
            run takes the end of its window.
        :param multi_select: the names of the custom fields that hold several options; ``None`` if they are
            not known.
        :param triggered: the ids of the records that have triggered before (``until_triggered``).
        :raises InvalidChange: if one of them is not a change.
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
        """Return whether a record would trigger the workflow when added or updated, and what would be sent.

        The bodies and ids are the same as the workflow's tasks would make from the record. The preview treats
        the workflow as active, and the record as one that has not triggered before.

        :param record: the record as Insightly's API returns it
            (``InsightlyHook(…, exact_numbers=True).get_record``).
        :param event: ``added`` or ``updated``; ``None`` previews both.
        :param now: a time with a time zone. Relative dates are measured from it. If the record has no time of
            the change, it is also the change's time. ``None`` takes the change's own time; a run takes the
            end of its window.
        :param multi_select: the names of the custom fields that hold several options; ``None`` if they are
            not known.
        :param custom_date_fields: the names of the custom fields that hold dates. A task asks Insightly for
            them. If they are not given, the body has these dates in the same form as the record.
        :param custom_day_fields: the names among ``custom_date_fields`` whose fields hold days.
        :raises InvalidPayload: if the record has no usable id, or neither the record nor ``now`` has a
            time.
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
