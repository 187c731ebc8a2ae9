"""Webhooks with a time trigger, which are sent some time after their trigger.

Three operators work in two DAGs. In the workflow's own DAG, ``ScheduleWebhooksOperator`` calculates when each
webhook is due, and triggers the other DAG. (In one-task mode, ``operators.one_task.batch_scheduling`` does so
for each batch.) In the other DAG, ``DueWebhooksOperator`` keeps the pending webhooks, one entry a record, and
reads the records whose webhooks are due. ``WakeUpOperator`` queues a run for the next time that something is
due. So there is one queued run however many webhooks are pending, and they cost the scheduler nothing. For
each webhook, one ``DueWebhooksOperator`` runs at a time, so the pending entries have one writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_insightly_hooks.core.bounds import check_durations
from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import RecordChange, check_changes, checked_change
from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.state.due_once import DueOnce
from airflow_insightly_hooks.core.state.pending_entries import entries_in, source_of
from airflow_insightly_hooks.core.state.pending_request import request_in
from airflow_insightly_hooks.core.state.pending_webhooks import (
    PendingWebhook,
    PendingWebhooks,
    pending_key,
)
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.hooks.assets import add_inlet, records_asset
from airflow_insightly_hooks.operators.common.field_checks import check_parsed, predicate_over
from airflow_insightly_hooks.operators.common.not_sent import LISTED, not_sent, report_not_sent
from airflow_insightly_hooks.operators.common.record_reading import read_record
from airflow_insightly_hooks.operators.common.redacted_arguments import RedactedField, unredacted
from airflow_insightly_hooks.operators.common.skip_when_empty import EmptySkipMixin
from airflow_insightly_hooks.operators.common.time_triggers import (
    FROM,
    PENDING,
    UNDELIVERABLE,
    TimeTrigger,
    entries_of,
    pending_run_id,
    source_task,
)
from airflow_insightly_hooks.operators.common.triggered_runs import run_trigger, wake_up_run_id, wake_up_time
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run, is_test
from airflow_insightly_hooks.runs.task_state import memory_of
from airflow_insightly_hooks.runs.undeliverable import log_undeliverable

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_insightly_hooks.core.state.state_store import StateStore

__all__ = [
    "NEXT_DUE",
    "NOTHING",
    "RETRIES",
    "DueWebhooksOperator",
    "ScheduleWebhooksOperator",
    "TimeTrigger",
    "WakeUpOperator",
]

NEXT_DUE = "next_due"
NOTHING = ""
"""The value of ``next_due`` if nothing is pending: for Airflow a missing XCom is an error."""
LOOKED_AT = "looked_at"
POSTPONED = "postponed"
POSTPONED_FOR = timedelta(minutes=15)
"""When a record is read again if Insightly's answer was not that record."""
MOST_AT_ONCE = 1_000
"""The most webhooks that a run takes. The next run takes the others that are due."""
RETRIES = 5
"""Retries of tasks that only talk to Airflow. If they fail, pending webhooks are not sent."""


class ScheduleWebhooksOperator(BaseOperator):
    """Calculates when webhooks with a time trigger are due, and passes them to the DAG that sends them.

    :param changes: the changes that trigger, as ``EvaluateCriteriaOperator`` returns them.
    :param time_triggers: one for each webhook.
    :param pending_dag_id: the DAG that sends them.
    :param is_dry_run: ``True``, or a run's param ``dry_run``, shows which webhooks would be sent and when,
        and schedules nothing.
    :param retries: 5 by default.
    :raises InvalidChange: if ``changes`` is not a list of changes.

    XCom: under the key ``pending``, by webhook, a list of ``{"record_id", "due", "event", "changed_at"}``.
    A record whose date field is empty has no time: it is named in the log and under ``not_sent``. Changes
    that can't be delivered are passed on as they are: the other DAG's deliver tasks report them, and fail.
    """

    template_fields = ("changes",)
    ui_color = "#f3e0d8"

    changes = RedactedField()

    def __init__(
        self,
        *,
        changes: Any,
        time_triggers: Iterable[TimeTrigger],
        pending_dag_id: str,
        is_dry_run: bool = False,
        retries: int | None = RETRIES,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **kwargs)
        self.changes = changes
        self.time_triggers = [TimeTrigger(*trigger) for trigger in time_triggers]
        check_durations(self.time_triggers, "after", "before")
        self.pending_dag_id = pending_dag_id
        self.is_dry_run = is_dry_run

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share. The serialized DAG shows no records in them."""
        return super().partial(**RedactedField.in_partial(cls, kwargs))

    def execute(self, context: Context) -> None:
        """Push the scheduled webhooks; then end by triggering the other DAG."""
        changes = [checked_change(change) for change in check_changes(unredacted(self.changes))]
        scheduled, left_out = entries_of(changes, self.time_triggers)
        ti = context["ti"]
        ti.xcom_push(key=PENDING, value=scheduled)
        report_not_sent(self.log, context, left_out)
        if is_test(context):
            raise AirflowSkipException(
                f"a test schedules nothing; a run would schedule {counted(len(changes), 'change')}"
            )
        if is_dry_run(context, self.is_dry_run):
            count = sum(map(len, scheduled.values()))
            raise AirflowSkipException(
                f"Dry run: {counted(count, 'webhook')} would be scheduled; see the XCom {PENDING!r}"
            )
        if not any(scheduled.values()):
            raise AirflowSkipException("nothing to send at a later time")
        source = source_task(ti)
        # A retry, or a cleared task with the same webhooks, finds the run that it has triggered already.
        run_id = pending_run_id(source, scheduled)
        raise run_trigger(self.pending_dag_id, run_id, {FROM: source})


class DueWebhooksOperator(BaseOperator, EmptySkipMixin):
    """Keeps the pending records of a webhook, and returns those that are due, as changes.

    A second trigger of a record that is pending neither moves nor repeats it. When it is due, the record is
    read again, so that its state at that time is sent. A retry, or a cleared task, takes the same records.

    :param webhook: the webhook's name, as its ``TimeTrigger`` has it.
    :param workflow: the workflow's name; pending records belong to a workflow and a webhook.
    :param record_type: the records' type.
    :param criteria: a due record is sent only if it meets them then; ``None`` sends all. Relative dates are
        measured from the time of the task's first try.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param retries: 2 by default.
    :raises InvalidCriteria: if the criteria can't be compiled, when the DAG is parsed.
    :raises UnknownRecordType: if the record type does not exist, when the DAG is parsed.
    :raises InvalidPayload: if the scheduled records are gone from the scheduling task's XCom, or the run's
        conf does not name that task.
    :raises InsightlyAPIError: if Insightly can't be read.
    :raises InvalidState: if the pending records can't be read.

    A run's parameter ``cancel`` names records whose pending webhooks are cancelled; ``send_now`` those whose
    webhooks are due at once. ``docs/reference/workflow-files.md`` describes both.

    XCom: a list of changes, with the event and the time of the change that triggered. ``pending`` has the
    number of waiting records and the first 100 of them, ``next_due`` the time when the next one is due.
    ``not_sent`` has due records that are not sent, and why: the record is deleted, or does not meet the
    criteria. ``postponed`` has records that are read again after 15 minutes, because Insightly's answer was
    not the record; other records are not held back by that.
    """

    template_fields = ("criteria",)
    template_fields_renderers = {"criteria": "json"}  # noqa: RUF012 — Airflow declares it so
    ui_color = "#f3e0d8"
    inherits_from_skipmixin = True

    def __init__(
        self,
        *,
        webhook: str,
        workflow: str,
        record_type: str,
        criteria: Mapping[str, Any] | None = None,
        insightly_conn_id: str = "insightly_default",
        retries: int | None = 2,
        **kwargs: Any,
    ) -> None:
        self.asset = records_asset(insightly_conn_id, RECORD_TYPES[record_type].name)
        add_inlet(kwargs, self.asset)
        kwargs.setdefault("max_active_tis_per_dag", 1)  # the pending entries have one writer
        super().__init__(retries=retries, **kwargs)
        self.webhook = webhook
        self.workflow = workflow
        self.record_type = record_type
        check_parsed(criteria)  # first: Airflow's search for other tasks' output recurses
        self.criteria = criteria
        self.insightly_conn_id = insightly_conn_id

    def execute(self, context: Context) -> list[RecordChange]:
        """Read the records that are due, and return them as changes."""
        ti, run = context["ti"], context["dag_run"]
        memory, state = memory_of(context, self.asset)
        pending = PendingWebhooks(memory, pending_key(self.workflow, self.webhook))
        now = _first_now(state, run.run_after)
        run_name = digest_of(repr((ti.dag_id, ti.run_id, ti.task_id, ti.map_index)))
        due_once = DueOnce(pending, state, run_name)
        request = request_in(context.get("params"), run.conf, self.webhook)
        decision = due_once.decide(lambda: self._scheduled(context), request, until=now, at_most=MOST_AT_ONCE)
        if decision is None:
            self.log.info(
                "%s: an earlier try has added its records and carried out its request", self.webhook
            )
        else:
            self.log.info("%s: %d new", self.webhook, len(decision.entered))
            for line in request.outcome(decision):
                self.log.info("%s: %s", self.webhook, line)
        due = due_once.taken()
        self._tell_pending(ti, pending, len(due))
        changes, postponed = self._read(due, now, context)
        changes += self._undeliverable(context)
        log_undeliverable(self.log, changes)
        if postponed:
            due_once.postpone(postponed, datetime.now(timezone.utc) + POSTPONED_FOR)
            self._tell_pending(ti, pending, len(due) - len(postponed))
        if not changes:
            self.skip_for_empty(ti, [t for t in self.downstream_list if not isinstance(t, WakeUpOperator)])
        return changes

    def _tell_pending(self, ti: Any, pending: PendingWebhooks, due: int) -> None:
        """Log and push the pending records, and when the next one is due."""
        next_due = pending.next_due()
        ti.xcom_push(key=NEXT_DUE, value=iso_time(next_due) if next_due else NOTHING)
        first = [entry.as_dict() for entry in pending.all()[:LISTED]]
        ti.xcom_push(key=PENDING, value={"count": len(pending), "first": first})
        then = f", the next at {iso_time(next_due)}" if next_due else ""
        self.log.info("%s: %d due, %d pending%s", self.webhook, due, len(pending), then)

    def _scheduled(self, context: Context) -> list[PendingWebhook]:
        """Return the webhooks that the task that triggered this run has scheduled."""
        source = source_of(context["dag_run"].conf, FROM)
        return [] if source is None else entries_in(_left_by_schedule(context), self.webhook, source)

    def _undeliverable(self, context: Context) -> list[RecordChange]:
        """Return the changes that the task that triggered this run could not schedule, in each try."""
        found = _left_by_schedule(context)
        changes = check_changes(found.get(UNDELIVERABLE, ())) if isinstance(found, Mapping) else []
        # Anybody who may trigger a run can write its conf: records in it are never sent.
        return [{**change, "record": {}} for change in changes if "undeliverable" in change]

    def _read(
        self, due: Sequence[PendingWebhook], now: datetime, context: Context
    ) -> tuple[list[RecordChange], list[int]]:
        """Return the changes to send, and the ids of the records that can't be read yet."""
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        hook = InsightlyHook(self.insightly_conn_id, exact_numbers=True)
        records = {entry.record_id: read_record(hook, self.record_type, entry.record_id) for entry in due}
        there = [(self.record_type, record) for record in records.values() if isinstance(record, dict)]
        meets = predicate_over(
            self.log,
            Criteria(self.criteria),
            there,
            insightly_conn_id=self.insightly_conn_id,
            now=lambda: now,
        )
        changes: list[RecordChange] = []
        left_out: list[dict[str, Any]] = []
        postponed: list[dict[str, Any]] = []
        for entry in due:
            record = records[entry.record_id]
            if isinstance(record, Exception):
                reason = f"read again in {POSTPONED_FOR}: {record}"
                postponed.append(not_sent(self.webhook, entry.record_id, reason))
                continue
            if isinstance(record, str):
                left_out.append(not_sent(self.webhook, entry.record_id, record))
                continue
            change = checked_change(
                {
                    "record_type": self.record_type,
                    "record_id": entry.record_id,
                    "event": entry.event,  # type: ignore[typeddict-item]  # one that a change had
                    "changed_at": entry.changed_at,
                    "record": record,
                }
            )
            if "undeliverable" in change or meets(record):
                changes.append(storable(change))
            else:
                left_out.append(not_sent(self.webhook, entry.record_id, "it no longer meets the criteria"))
        report_not_sent(self.log, context, left_out)
        report_not_sent(self.log, context, postponed, POSTPONED)
        return changes, [item["record_id"] for item in postponed]


class WakeUpOperator(BaseOperator):
    """Queues a run of its DAG for the next time that the DAG has something to send.

    The tasks right before it have that time in their XCom ``next_due``: the due tasks of a pending DAG, or
    the collecting task of a retry DAG.

    :param retries: 5 by default.
    :raises InvalidState: if no time is known, and one of these tasks has no ``next_due``.
    """

    ui_color = "#f3e0d8"

    def __init__(self, *, retries: int | None = RETRIES, **kwargs: Any) -> None:
        super().__init__(retries=retries, **kwargs)

    def execute(self, context: Context) -> None:
        """End by triggering the run, if something is pending."""
        ti = context["ti"]
        found = {task: ti.xcom_pull(task_ids=task, key=NEXT_DUE) for task in sorted(self.upstream_task_ids)}
        times = [api_time(text, NEXT_DUE) for text in found.values() if text]
        silent = [task for task, text in found.items() if text is None]
        if silent:
            self.log.warning("%s: the XCom %r is missing. Clear it", ", ".join(silent), NEXT_DUE)
        if not times and silent:
            raise InvalidState(NEXT_DUE, f"it is missing in the XCom of {', '.join(silent)}: clear it")
        if not times:
            raise AirflowSkipException("nothing is pending")
        moment = wake_up_time(min(times))
        # The run of a time that has passed has begun, and its run id is taken. It may also have begun before
        # that time: the scheduler's clock may be ahead of this worker's, or somebody has ended it by hand.
        name = wake_up_run_id(moment)
        has_passed = moment <= max(datetime.now(timezone.utc), context["dag_run"].run_after)
        if has_passed or _has_begun(ti, name):
            name += f"__{digest_of(repr((ti.run_id,)))}"
        raise run_trigger(ti.dag_id, name, {}, moment)


def _has_begun(ti: Any, run_id: str) -> bool:
    """Return whether a run of this DAG exists, and is no longer queued."""
    run: dict[str, Any] = {"dag_id": ti.dag_id, "run_ids": [run_id]}
    return bool(ti.get_dr_count(**run) > ti.get_dr_count(**run, states=["queued"]))


def _left_by_schedule(context: Context) -> Any:
    """Return what the task that triggered this run has scheduled; ``None`` if no task did."""
    conf = context["dag_run"].conf or {}
    source = source_of(conf, FROM)
    if source is None:
        return None
    if PENDING in conf:  # a task that schedules batch by batch has no XCom of each batch
        return conf[PENDING]
    return context["ti"].xcom_pull(
        dag_id=source["dag_id"],
        run_id=source["run_id"],
        task_ids=source["task_id"],
        map_indexes=source["map_index"],
        key=PENDING,
    )


def _first_now(state: StateStore, run_after: datetime) -> datetime:
    """Return the time of this task's first try."""
    text = read_value(state, LOOKED_AT)
    if text is not None:
        return api_time(text, LOOKED_AT)
    # The scheduler started the run at its time, and its clock may be ahead of this worker's.
    now = max(datetime.now(timezone.utc), run_after)
    state.set(LOOKED_AT, iso_time(now))
    return now
