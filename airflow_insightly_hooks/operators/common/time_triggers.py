"""Compute when webhooks with a time trigger are due, and name the run that hands them to the sending DAG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.detection.storable_changes import record_of
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.state.pending_webhooks import PendingWebhook, due_time
from airflow_insightly_hooks.operators.common.not_sent import not_sent

__all__ = [
    "FROM",
    "PENDING",
    "UNDELIVERABLE",
    "Scheduled",
    "TimeTrigger",
    "entries_of",
    "pending_run_id",
    "source_task",
]

FROM = "pending_from"
"""The key of a run's conf that names the task that has scheduled webhooks."""
PENDING = "pending"
"""The XCom key of the webhooks that a task has scheduled, and of those that are pending."""
UNDELIVERABLE = "undeliverable records"
"""The key, beside the webhooks' names, of changes that can't be delivered. They are reported at once."""

Scheduled = dict[str, list[dict[str, Any]]]
"""For each webhook, ``{"record_id", "due", "event", "changed_at"}``; under ``UNDELIVERABLE``, changes."""


class TimeTrigger(NamedTuple):
    """When a webhook is sent: ``after`` the trigger, or ``after``/``before`` the date in ``field``.

    :param webhook: the webhook's name.
    :param after: how long after the trigger, or after the date in ``field``.
    :param before: how long before the date in ``field``.
    :param field: the name of the date field. Without ``after`` and ``before``, the webhook is sent at that
        date. ``None``: the time of the trigger counts.
    """

    webhook: str
    after: timedelta | None = None
    before: timedelta | None = None
    field: str | None = None


def entries_of(
    changes: Iterable[RecordChange], triggers: Iterable[TimeTrigger]
) -> tuple[Scheduled, list[dict[str, Any]]]:
    """Return the scheduled webhooks, and the records whose webhook is not sent as their date field is empty.

    :param changes: changes that trigger; changes that can't be delivered are passed on unchanged.
    :param triggers: one for each webhook.
    """
    changes = list(changes)
    undeliverable = [dict(change) for change in changes if "undeliverable" in change]
    scheduled: Scheduled = {UNDELIVERABLE: undeliverable} if undeliverable else {}
    left_out: list[dict[str, Any]] = []
    for trigger in triggers:
        entries = scheduled[trigger.webhook] = []
        for change in changes:
            if "undeliverable" in change:
                continue
            entry = _pending(change, trigger)
            if entry is not None:
                entries.append(entry.as_dict())
            else:
                left_out.append(not_sent(trigger.webhook, change["record_id"], f"{trigger.field} is empty"))
    return scheduled, left_out


def source_task(ti: Any) -> dict[str, Any]:
    """Return the value that names, in a run's conf, the task that has scheduled webhooks."""
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}


def pending_run_id(source: Mapping[str, Any], scheduled: Scheduled) -> str:
    """Return the id of the run that receives the schedule: the same for the same task and schedule."""
    return f"from__{digest_of(repr((*source.values(), scheduled)))}"


def _pending(change: RecordChange, trigger: TimeTrigger) -> PendingWebhook | None:
    _, after, before, field = trigger
    due = due_time(record_of(change), change["changed_at"], after=after, before=before, field=field)
    if due is None:
        return None
    return PendingWebhook(change["record_id"], due, change["event"], change["changed_at"])
