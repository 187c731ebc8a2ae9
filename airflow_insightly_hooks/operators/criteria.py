"""Passing on the changes that meet a workflow's criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg

from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.detection.changes import (
    ChangeWindow,
    RecordChange,
    check_changes,
    checked_change,
)
from airflow_insightly_hooks.core.detection.storable_changes import record_of
from airflow_insightly_hooks.core.errors import InvalidCriteria
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.state.trigger_once import TriggerOnce
from airflow_insightly_hooks.hooks.assets import add_inlet, records_asset
from airflow_insightly_hooks.operators.common.field_checks import (
    check_parsed,
    predicate_over,
    warn_of_unknown_fields,
)
from airflow_insightly_hooks.operators.common.redacted_arguments import RedactedField, unredacted
from airflow_insightly_hooks.operators.common.skip_when_empty import EmptySkipMixin
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run
from airflow_insightly_hooks.runs.run_counts import keep_run_counts
from airflow_insightly_hooks.runs.task_state import memory_of
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable
from airflow_insightly_hooks.runs.windows import WINDOW

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

__all__ = ["EvaluateCriteriaOperator"]


class EvaluateCriteriaOperator(BaseOperator, EmptySkipMixin):
    """Passes on the changes whose records meet the criteria; skips the next tasks if there are none.

    :param changes: a sensor's output: a list of changes.
    :param criteria: groups and conditions, as ``core.criteria`` describes them; all records meet ``None``.
        Criteria without templates are checked when the DAG is parsed. Relative dates are measured from the
        end of the window that the sensor read.
    :param until_triggered: whether a record is passed on only once, ever. The record ids are remembered for
        good, in the state of the asset of the account's records of this type. Only one such task of the DAG
        runs at a time, however many runs there are.
    :param record_type: the changes' record type; needed for ``until_triggered``. With it, the fields of the
        criteria are checked when the DAG is parsed, too.
    :param workflow: the name under which ``until_triggered`` remembers; ``None`` takes the DAG's id and the
        task's. Templates are rendered, so that each map index can have a name of its own.
    :param active: ``False`` passes nothing on, and remembers nothing.
    :param is_dry_run: ``True``, or a run's param ``dry_run``, passes on the changes that would trigger, and
        remembers nothing.
    :param multi_select_fields: the names of custom fields that hold several options. ``None`` asks Insightly,
        but only if ``contains`` or ``not_contains`` is used on a custom field that is not empty.
    :param insightly_conn_id: the connection to ask.
    :raises InvalidCriteria: if the criteria can't be compiled, or relative dates have no time to be measured
        from.
    :raises InvalidChange: if ``changes`` is not a list of changes.
    :raises UnknownRecordType: if the record type does not exist, when the DAG is parsed.
    :raises ValueError: if ``until_triggered`` lacks its record type, or in a mapped task group its workflow,
        when the DAG is parsed.
    :raises InsightlyAPIError: if Insightly can't be asked for its custom fields.
    :raises InvalidState: if the remembered ids can't be read.

    XCom: the changes that meet the criteria, in their order. Changes that can't be delivered are passed on,
    too, since their records can't be evaluated; the deliver task reports them.
    """

    template_fields = ("changes", "criteria", "workflow")
    template_fields_renderers = {"criteria": "json"}  # noqa: RUF012 — Airflow declares it so
    ui_color = "#e8f0d8"
    inherits_from_skipmixin = True

    changes = RedactedField()

    def __init__(
        self,
        *,
        changes: Any,
        criteria: Mapping[str, Any] | None = None,
        until_triggered: bool = False,
        record_type: str | None = None,
        workflow: str | None = None,
        active: bool = True,
        is_dry_run: bool = False,
        multi_select_fields: Sequence[str] | None = None,
        insightly_conn_id: str = "insightly_default",
        **kwargs: Any,
    ) -> None:
        if until_triggered:
            if record_type is None:
                raise ValueError("until_triggered needs record_type: give the record type of the changes")
            self.asset = records_asset(insightly_conn_id, RECORD_TYPES[record_type].name)
            add_inlet(kwargs, self.asset)
            # Runs may overlap, as backfills do. Only one task at a time may write the remembered ids.
            kwargs.setdefault("max_active_tis_per_dag", 1)
        super().__init__(**kwargs)
        if until_triggered and workflow is None and self.get_closest_mapped_task_group() is not None:
            raise ValueError(
                f"until_triggered: the map indexes of {self.task_id!r} would share the remembered ids, so "
                f"that a record triggers in only one of them. Give a workflow whose name depends on what the "
                f"task group is mapped over, or a fixed workflow to share them"
            )
        self.window_from = _task_of(changes)
        self.changes = changes
        # Before the assignment: there Airflow looks for other tasks' output in them, and recurses.
        check_parsed(criteria, record_type)
        self.criteria = criteria
        self.until_triggered = until_triggered
        self.record_type = record_type
        self.workflow = workflow
        self.active = active
        self.is_dry_run = is_dry_run
        self.multi_select_fields = multi_select_fields
        self.insightly_conn_id = insightly_conn_id

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share. The serialized DAG shows no records in them."""
        return super().partial(**RedactedField.in_partial(cls, kwargs))

    def execute(self, context: Context) -> list[RecordChange]:
        """Return the changes that meet the criteria."""
        changes = check_changes(unredacted(self.changes))
        if self.active:
            matching = self._matching(changes, context)
        else:
            self.log.info("%s ignored: active is False", counted(len(changes), "change"))
            matching = []
        met = sum("undeliverable" not in change for change in matching)
        keep_run_counts(context, self.log, met=met, dry_run=self.is_dry_run)
        ti = context.get("ti")
        if not matching and ti is not None:
            self.skip_for_empty(ti, self.downstream_list)
        return matching

    def _matching(self, changes: list[RecordChange], context: Context) -> list[RecordChange]:
        criteria = Criteria(self.criteria)
        changes = [checked_change(change) for change in changes]
        log_undeliverable(self.log, changes)
        meets = predicate_over(
            self.log,
            criteria,
            [(change["record_type"], change["record"]) for change in changes],
            insightly_conn_id=self.insightly_conn_id,
            now=lambda: self._now(context),
            multi_select=self.multi_select_fields,
        )
        warn_of_unknown_fields(self.log, changes, criteria.fields)
        matching = [change for change in changes if "undeliverable" in change or meets(record_of(change))]
        undeliverable = sum("undeliverable" in change for change in matching)
        self.log.info("%d of %d changes meet the criteria", len(matching) - undeliverable, len(changes))
        return self._for_the_first_time(matching, context) if self.until_triggered else matching

    def _now(self, context: Context) -> datetime:
        """Return the time that relative dates are measured from. It is the same in every try of this run."""
        ti = context.get("ti")
        if ti is not None and self.window_from is not None:
            for map_index in dict.fromkeys((ti.map_index, -1)):  # in the same mapped task group, or in none
                window = ti.xcom_pull(task_ids=self.window_from, key=WINDOW, map_indexes=map_index)
                if window is not None:
                    return ChangeWindow.of(window).end
        run = context.get("dag_run")
        moment = context.get("data_interval_end") or getattr(run, "run_after", None)
        if moment is None:
            raise InvalidCriteria("criteria", "relative dates need a window, a data interval or a run's time")
        return moment

    def _for_the_first_time(self, matching: list[RecordChange], context: Context) -> list[RecordChange]:
        """Return the first change of each record that has not triggered in an earlier run."""
        task = context.get("ti") or self
        workflow = self.workflow or f"{task.dag_id}/{task.task_id}"
        memory = memory_of(context, self.asset, is_dry_run=is_dry_run(context, self.is_dry_run))
        trigger_once = TriggerOnce.of_task(task, *memory, workflow, datetime.now(timezone.utc))
        first = {c["record_id"]: c for c in reversed(matching) if "undeliverable" not in c}
        admitted = trigger_once.admit(first)
        self.log.info("%d of them trigger for the first time", len(admitted))
        return [
            c
            for c in matching
            if "undeliverable" in c or (c["record_id"] in admitted and first[c["record_id"]] is c)
        ]


def _task_of(changes: object) -> str | None:
    """Return the id of the task that read the changes' window; ``None`` if the DAG does not show it."""
    for operator, _key in XComArg.iter_xcom_references(changes):
        if isinstance(operator, EvaluateCriteriaOperator):
            return operator.window_from
        return str(operator.task_id)
    return None
