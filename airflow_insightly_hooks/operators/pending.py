"""Webhooks that are sent at a later time than that of their trigger.

Three operators, in two DAGs: in the workflow's own, ``ScheduleWebhooksOperator`` says what is to be sent
when, and wakes the other DAG; the one task of a whole workflow does so for each batch that it reads
(``operators.one_task.batch_scheduling``). There, ``DueWebhooksOperator`` keeps what is pending, one entry a
record, and reads the records whose time has come; ``WakeUpOperator`` queues a run for the next time that
something is due. So a pending webhook costs the scheduler nothing: there is one queued run, however many
there are. One ``DueWebhooksOperator`` of a webhook runs at a time, in whatever run: it alone writes what is
pending.
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
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.state.due_once import DueOnce
from airflow_insightly_hooks.core.state.pending_entries import entries_in, source_of
from airflow_insightly_hooks.core.state.pending_request import request_in
from airflow_insightly_hooks.core.state.pending_webhooks import (
    PendingWebhook,
    PendingWebhooks,
    pending_key,
)
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
"""What stands under ``next_due`` where nothing is pending: Airflow takes a missing XCom for an error."""
LOOKED_AT = "looked_at"
POSTPONED = "postponed"
POSTPONED_FOR = timedelta(minutes=15)
"""Until a record is asked for again whose answer was not that record."""
MOST_AT_ONCE = 1_000
"""Webhooks that a run takes; what is due beyond that comes in the run after it."""
RETRIES = 5
"""Of the tasks that only talk to Airflow: what they fail to do strands what is pending."""


class ScheduleWebhooksOperator(BaseOperator):
    """Says when the webhooks of time triggers are to be sent, and hands them to the DAG that sends them.

    :param changes: the changes that trigger, as ``EvaluateCriteriaOperator`` returns them.
    :param time_triggers: one for each webhook.
    :param pending_dag_id: the DAG that sends them.
    :param is_dry_run: ``True``, or a run's param ``dry_run``, shows what would be sent when, and hands over
        nothing.
    :param retries: 5 by default.
    :raises InvalidChange: if ``changes`` holds something else.

    XCom: under the key ``pending``, by webhook, a list of ``{"record_id", "due", "event", "changed_at"}``.
    A record whose date field is empty has no time: it is named in the log and under ``not_sent``. Changes
    that can't be delivered go there as they are: the other DAG's deliver tasks report them, and fail.
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
        """Take the arguments that all mapped tasks share; the serialized DAG shows no contents of them."""
        return super().partial(**RedactedField.in_partial(cls, kwargs))

    def execute(self, context: Context) -> None:
        """Push what is scheduled; then end by triggering the other DAG."""
        changes = [checked_change(change) for change in check_changes(unredacted(self.changes))]
        scheduled, left_out = entries_of(changes, self.time_triggers)
        ti = context["ti"]
        ti.xcom_push(key=PENDING, value=scheduled)
        report_not_sent(self.log, context, left_out)
        if is_test(context):
            raise AirflowSkipException(f"a test schedules nothing; a run would: {len(changes)} changes")
        if is_dry_run(context, self.is_dry_run):
            count = sum(map(len, scheduled.values()))
            raise AirflowSkipException(f"Dry run: {count} would be scheduled; see the XCom {PENDING!r}")
        if not any(scheduled.values()):
            raise AirflowSkipException("nothing to send at a later time")
        source = source_task(ti)
        # A retry finds the run that it has triggered already; a cleared task, too, unless it schedules else.
        run_id = pending_run_id(source, scheduled)
        raise run_trigger(self.pending_dag_id, run_id, {FROM: source})


class DueWebhooksOperator(BaseOperator, EmptySkipMixin):
    """Keeps a webhook's pending records, and returns, as changes, those whose time has come.

    A second trigger of a record that is pending neither moves nor doubles it. At its time a record is read
    again: what is sent is its state then. A retry, or a cleared task, takes the same ones.

    :param webhook: the webhook's name, as its ``TimeTrigger`` has it.
    :param workflow: what is pending belongs to it and to the webhook.
    :param record_type: the records' type.
    :param criteria: send only what meets them at its time; ``None`` asks nothing. Relative dates are
        measured from the time of the task's first try.
    :param insightly_conn_id: a connection of type ``insightly``.
    :param retries: 2 by default.
    :raises InvalidCriteria: if the criteria can't be compiled, when the DAG is parsed.
    :raises UnknownRecordType: if there is no such record type, when the DAG is parsed.
    :raises InvalidPayload: if what was scheduled is gone from the scheduling task's XCom, or the run's conf
        names no such task.
    :raises InsightlyAPIError: if Insightly can't be read.
    :raises InvalidState: if what is pending can't be read.

    A run's parameter ``cancel`` names records whose pending webhooks are taken away, unsent, and ``send_now``
    those whose are due at once; ``core.state.pending_request`` says more.

    XCom: a list of changes, with the event and the time of the change that triggered; under ``pending`` how
    many wait and the first 100 of them; under ``next_due`` when the next one is due; under ``not_sent`` those
    that are not sent although they were due, and why: the record is gone, or doesn't meet the criteria; under
    ``postponed`` those that are asked for again a quarter of an hour later, since Insightly's answer was not
    the record: that holds back no other.
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
        kwargs.setdefault("max_active_tis_per_dag", 1)  # one writer of what is pending
        super().__init__(retries=retries, **kwargs)
        self.webhook = webhook
        self.workflow = workflow
        self.record_type = record_type
        check_parsed(criteria)  # before Airflow looks for other tasks' output in them, which recurses
        self.criteria = criteria
        self.insightly_conn_id = insightly_conn_id

    def execute(self, context: Context) -> list[RecordChange]:
        """Return what is due, read again."""
        ti, run = context["ti"], context["dag_run"]
        memory, state = memory_of(context, self.asset)
        pending = PendingWebhooks(memory, pending_key(self.workflow, self.webhook))
        now = _first_now(state, run.run_after)
        run_name = digest_of(repr((ti.dag_id, ti.run_id, ti.task_id, ti.map_index)))
        due_once = DueOnce(pending, state, run_name)
        request = request_in(context.get("params"), run.conf, self.webhook)
        decision = due_once.decide(lambda: self._scheduled(context), request, until=now, at_most=MOST_AT_ONCE)
        if decision is None:
            self.log.info("%s: an earlier try has entered and done what was asked for", self.webhook)
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
        """Log and push what is pending, and when the next one is due."""
        next_due = pending.next_due()
        ti.xcom_push(key=NEXT_DUE, value=iso_time(next_due) if next_due else NOTHING)
        first = [entry.as_dict() for entry in pending.all()[:LISTED]]
        ti.xcom_push(key=PENDING, value={"count": len(pending), "first": first})
        then = f", the next at {iso_time(next_due)}" if next_due else ""
        self.log.info("%s: %d due, %d pending%s", self.webhook, due, len(pending), then)

    def _scheduled(self, context: Context) -> list[PendingWebhook]:
        """Return what the task that has triggered this run has scheduled."""
        source = source_of(context["dag_run"].conf, FROM)
        return [] if source is None else entries_in(_left_by_schedule(context), self.webhook, source)

    def _undeliverable(self, context: Context) -> list[RecordChange]:
        """Return what the task that has triggered this run has found to be undeliverable, in each try."""
        found = _left_by_schedule(context)
        changes = check_changes(found.get(UNDELIVERABLE, ())) if isinstance(found, Mapping) else []
        # A run's conf is whatever the person who has triggered it says: no record is sent that stands there.
        return [{**change, "record": {}} for change in changes if "undeliverable" in change]

    def _read(
        self, due: Sequence[PendingWebhook], now: datetime, context: Context
    ) -> tuple[list[RecordChange], list[int]]:
        """Return the changes to be sent, and the ids of the records that can't be read yet."""
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
                reason = f"in {POSTPONED_FOR} again: {record}"
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
    """Queues a run of its DAG for the moment at which the DAG has something to send next.

    Each task right before it says under the XCom key ``next_due`` when that is: the due tasks of a pending
    DAG, or the collecting task of a retry DAG.

    :param retries: 5 by default.
    :raises InvalidState: if nothing is known to wait, and one of these tasks has not said whether something
        does.
    """

    ui_color = "#f3e0d8"

    def __init__(self, *, retries: int | None = RETRIES, **kwargs: Any) -> None:
        super().__init__(retries=retries, **kwargs)

    def execute(self, context: Context) -> None:
        """End by triggering the run, if something waits."""
        ti = context["ti"]
        found = {task: ti.xcom_pull(task_ids=task, key=NEXT_DUE) for task in sorted(self.upstream_task_ids)}
        times = [api_time(text, NEXT_DUE) for text in found.values() if text]
        silent = [task for task, text in found.items() if text is None]
        if silent:
            self.log.warning("%s: not said what is pending; clear it", ", ".join(silent))
        if not times and silent:
            raise InvalidState(NEXT_DUE, f"{', '.join(silent)} has not said what is pending: clear it")
        if not times:
            raise AirflowSkipException("nothing is pending")
        moment = wake_up_time(min(times))
        # The run of a moment that has passed has been, and its name is taken. It may have been although the
        # moment is yet to come: by a scheduler's clock that is ahead of this worker's, or ended by hand.
        name = wake_up_run_id(moment)
        has_passed = moment <= max(datetime.now(timezone.utc), context["dag_run"].run_after)
        if has_passed or _has_begun(ti, name):
            name += f"__{digest_of(repr((ti.run_id,)))}"
        raise run_trigger(ti.dag_id, name, {}, moment)


def _has_begun(ti: Any, run_id: str) -> bool:
    """Return whether a run of this DAG is there, and is no longer queued."""
    run: dict[str, Any] = {"dag_id": ti.dag_id, "run_ids": [run_id]}
    return bool(ti.get_dr_count(**run) > ti.get_dr_count(**run, states=["queued"]))


def _left_by_schedule(context: Context) -> Any:
    """Return what the task that has triggered this run has scheduled; ``None`` if there is nothing."""
    conf = context["dag_run"].conf or {}
    source = source_of(conf, FROM)
    if source is None:
        return None
    if PENDING in conf:  # a task that schedules batch by batch has no XCom for each batch
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
    text = state.get(LOOKED_AT)
    if text is not None:
        return api_time(text, LOOKED_AT)
    # The scheduler's clock, which has started the run at its time, may be ahead of this worker's.
    now = max(datetime.now(timezone.utc), run_after)
    state.set(LOOKED_AT, iso_time(now))
    return now
