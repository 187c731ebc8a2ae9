"""The data that a preview shows: the verdict, the conditions, and each message with its headers and body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import Event
from airflow_insightly_hooks.core.detection.record_times import has_time
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.preview import Preview, PreviewedMessage, preview
from airflow_insightly_hooks.operators.common.field_checks import has_templates
from airflow_insightly_hooks.previews.receivers import request_of
from airflow_insightly_hooks.previews.record_source import NOT_ASKED, CustomFieldTypes

__all__ = ["notes_of", "preview_of", "shown_preview"]


def preview_of(
    workflow: WorkflowDefinition,
    record: Mapping[str, Any],
    types: CustomFieldTypes,
    *,
    clock: datetime,
    event: Event | None = None,
    now: datetime | None = None,
) -> Preview:
    """Return what a workflow would do with a record.

    :param clock: the time of the change if neither the record nor ``now`` has a time.
    :param event: ``added`` or ``updated``; ``None`` previews both.
    :param now: the time from which relative dates are measured; ``None`` is the time of the change.
    :raises InvalidPayload: if the record has no usable id.
    :raises InvalidTime: if one of the record's times is not a time.
    """
    return preview(
        workflow,
        record,
        event=event,
        now=now if now is not None or has_time(record) else clock,
        multi_select=types.multi_select,
        **types.dates,
    )


def notes_of(
    workflow: WorkflowDefinition,
    now: datetime | None,
    *,
    types_are_known: bool = True,
    option: str | None = None,
) -> Iterator[str]:
    """Yield notes on the differences between the preview and a run.

    :param now: the time from which relative dates are measured, if it is given.
    :param types_are_known: whether the types of the record's custom fields are known.
    :param option: the command line's option for ``now``; ``None`` outside of the command line.
    """
    if not workflow.active:
        yield "the workflow is not active: its tasks send nothing until it is active"
    if workflow.dry_run:
        yield "the workflow is a dry run: its tasks do everything except the POST"
    if workflow.evaluate == "until_triggered":
        yield "a record triggers only once: the preview does not check whether this one has triggered before"
    if has_templates(workflow.criteria):
        yield "the criteria contain templates, which the preview does not render"
    elif Criteria(workflow.criteria).has_relative_dates:
        hint = f" ({option} sets another time)" if option is not None else ""
        measured = f"each change's own time{hint}" if now is None else iso_time(now)
        yield f"relative dates are measured from {measured}"
    if any(webhook.is_timed for webhook in workflow.webhooks):
        yield "a webhook with a time trigger sends the record as it is when the webhook is due"
    if not types_are_known:
        yield NOT_ASKED


def shown_preview(
    workflow: WorkflowDefinition,
    previewed: Preview,
    messages: Sequence[PreviewedMessage],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return a preview as a JSON value. It contains personal data, but no secrets."""
    verdict = previewed.shown.verdict
    return {
        "workflow": workflow.name,
        "dag_id": workflow.dag_id,
        "record_type": workflow.record_type,
        "record_id": verdict.change["record_id"],
        "triggers": previewed.triggers,
        "changes": [
            {
                "event": change.event,
                "changed_at": change.verdict.change["changed_at"],
                "triggers": change.verdict.triggers,
                "reason": change.verdict.reason,
            }
            for change in previewed.changes
        ],
        "conditions": [
            {**condition._asdict(), "is_culprit": condition in verdict.culprits, **compared.plain()}
            for condition, compared in zip(verdict.conditions, previewed.shown.compared, strict=True)
        ],
        "groups": [group._asdict() for group in verdict.groups],
        "notes": list(notes),
        "event": previewed.shown.event,
        "messages": [_shown_message(message) for message in messages],
    }


def _shown_message(message: PreviewedMessage) -> dict[str, Any]:
    payload = message.payload
    request = request_of(message.webhook, payload["body"], payload["message_id"])
    return {
        "webhook": message.webhook.name,
        "receiver": request.receiver,
        "problem": request.problem,
        "not_sent": message.not_sent,
        "due": iso_time(message.due) if message.due is not None else None,
        "message_id": payload["message_id"],
        "headers": dict(request.headers),
        "body": payload["body"],
    }
