"""What a workflow would do with one record: whether it triggers, what would be sent, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_insightly_hooks.core.criteria import Compared, Criteria
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import EVENTS, Event, RecordChange, checked_change
from airflow_insightly_hooks.core.detection.record_times import record_times
from airflow_insightly_hooks.core.detection.storable_changes import exact_record, record_of, storable
from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.payload import Payload, build_payload, why_undeliverable
from airflow_insightly_hooks.core.records import CREATED, RECORD_TYPES, UPDATED, is_record_id
from airflow_insightly_hooks.core.state.pending_webhooks import due_time
from airflow_insightly_hooks.core.workflow.backtest import Verdict, verdicts
from airflow_insightly_hooks.core.workflow.parts import Webhook

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition

__all__ = ["Preview", "PreviewedChange", "PreviewedMessage", "preview"]


class PreviewedMessage(NamedTuple):
    """A message that a webhook of the workflow would send for a change."""

    webhook: Webhook
    """The webhook that would send it."""
    payload: Payload
    """The message's id, and its body: the exact text that would be POSTed. It holds personal data."""
    due: datetime | None
    """When a time trigger sends it, in UTC, with the record's contents at that time; ``None``: at once."""
    not_sent: str | None
    """Why it would not be sent although the change triggers; ``None`` if it would."""


class PreviewedChange(NamedTuple):
    """What the workflow would do if the record was added, or if it was updated."""

    verdict: Verdict
    """Whether the change triggers, and why."""
    messages: tuple[PreviewedMessage, ...]
    """One message for each webhook, even if the change doesn't trigger."""
    compared: tuple[Compared, ...]
    """The values that the conditions of the criteria compare, in their order. They are personal data."""

    @property
    def event(self) -> Event:
        """``added`` or ``updated``."""
        return self.verdict.change["event"]


class Preview(NamedTuple):
    """What a workflow would do with a record, if it was added and if it was updated."""

    changes: tuple[PreviewedChange, ...]
    """The record as added, and as updated; only one of them if the caller asked for one."""

    @property
    def triggers(self) -> bool:
        """Whether one of the changes would trigger the workflow."""
        return any(change.verdict.triggers for change in self.changes)

    @property
    def shown(self) -> PreviewedChange:
        """The first change that triggers, or else the first one. The bodies are the same, the ids differ."""
        return next((change for change in self.changes if change.verdict.triggers), self.changes[0])


def preview(
    workflow: WorkflowDefinition,
    record: Mapping[str, Any],
    *,
    event: Event | None = None,
    now: datetime | None = None,
    multi_select: Iterable[str] | None = None,
    custom_date_fields: Collection[str] = (),
    custom_day_fields: Collection[str] = (),
) -> Preview:
    """Return what the workflow would do with a record. See ``Workflow.preview``."""
    kind = RECORD_TYPES[workflow.record_type]
    if event is not None:
        events: tuple[Event, ...] = (event,)
    else:
        events = EVENTS if kind.has_updates else ("added",)
    active = workflow.model_copy(update={"active": True})
    changes = [_change(workflow, record, event, now) for event in events]
    dates = {"custom_date_fields": custom_date_fields, "custom_day_fields": custom_day_fields}
    criteria = Criteria(workflow.criteria)
    previewed = []
    for change in changes:
        (verdict,) = verdicts(active, [change], now=now, multi_select=multi_select)
        messages = tuple(_message(workflow, webhook, change, dates) for webhook in workflow.webhooks)
        previewed.append(PreviewedChange(verdict, messages, tuple(criteria.compared(record_of(change)))))
    return Preview(tuple(previewed))


def _change(
    workflow: WorkflowDefinition, record: Mapping[str, Any], event: Event, now: datetime | None
) -> RecordChange:
    """Return the change as the sensor would report it, after it has passed through Airflow's database."""
    kind = RECORD_TYPES[workflow.record_type]
    record_id = record.get(kind.id_field)
    if not is_record_id(record_id):
        raise InvalidPayload("record", f"it has no usable {kind.id_field}: give a record of {kind.name}")
    created, updated = record_times(record, kind)
    at = (created or updated or now) if event == "added" else (updated or created or now)
    if at is None:
        raise InvalidPayload("record", f"it has neither {CREATED} nor {UPDATED}: give the time of the change")
    change: RecordChange = {
        "record_type": kind.name,
        "record_id": record_id,
        "event": event,
        "changed_at": iso_time(at),
        "record": dict(record),
    }
    return storable(checked_change(change))


def _message(
    workflow: WorkflowDefinition, webhook: Webhook, change: RecordChange, dates: Mapping[str, Any]
) -> PreviewedMessage:
    payload = build_payload(
        change,
        workflow.message_scope(webhook),
        exact_record(change),
        fields=webhook.fields,
        date_format=webhook.date_format,
        timezone=webhook.timezone,
        envelope=webhook.envelope,
        **dates,
    )
    not_sent, due = why_undeliverable(payload), None
    if webhook.is_timed and not_sent is None:
        due = due_time(
            exact_record(change),
            change["changed_at"],
            after=webhook.after,
            before=webhook.before,
            field=webhook.field,
        )
        if due is None:
            not_sent = f"{webhook.field} is empty" if webhook.field else "its time is out of range"
    return PreviewedMessage(webhook, payload, due, not_sent)
