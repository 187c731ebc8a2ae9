"""``preview``: what a workflow would do with one record."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_insightly_hooks.cli.arguments.records import (
    NOT_ASKED,
    custom_field_types,
    insightly_hook,
    json_record,
    read_record,
)
from airflow_insightly_hooks.cli.arguments.times import time_of
from airflow_insightly_hooks.cli.arguments.workflows import workflow_of
from airflow_insightly_hooks.cli.commands.preview_text import preview_lines, sent_lines
from airflow_insightly_hooks.cli.confirmation import check_confirmable, confirm
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import is_structured, print_line, print_value, say
from airflow_insightly_hooks.cli.receivers import (
    request_of,
    send_as_test,
    webhook_hook,
)
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.criteria import Criteria
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.record_times import has_time
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.workflow.preview import Preview, PreviewedMessage
from airflow_insightly_hooks.operators.common.field_checks import has_templates
from airflow_insightly_hooks.workflows.workflow import Workflow

__all__ = ["preview"]


def preview(args: Namespace) -> int:
    """Print whether the workflow triggers, why, and what it would send; POST it with ``--send``."""
    if (args.record is None) == (args.json is None):
        raise UsageError("one record is needed: --record ID, or --json FILE")
    if args.send:
        check_confirmable(is_confirmed=args.yes)
    workflow = workflow_of(args.workflow)
    hook = insightly_hook(args.conn or workflow.insightly_conn_id)
    is_read = args.record is not None
    record = read_record(hook, workflow.record_type, args.record) if is_read else json_record(args.json)
    types = custom_field_types(hook, workflow.record_type, record, is_needed=is_read)
    clock = datetime.now(timezone.utc).replace(microsecond=0)
    now = time_of(args.now, "--now", clock) if args.now else None
    try:
        previewed = workflow.preview(
            record,
            event=args.event,
            now=now if now is not None or has_time(record) else clock,
            multi_select=types.multi_select,
            **types.dates,
        )
    except (InvalidPayload, InvalidTime) as error:
        raise UsageError(f"it can't be previewed: {error}") from None
    messages = previewed.shown.messages if previewed.triggers or args.always else ()
    notes = list(_notes(workflow, now))
    if not types.is_known:
        notes.append(NOT_ASKED)
    shown = _shown(workflow, previewed, messages, notes)
    if not is_structured(args.output):
        for line in preview_lines(shown, previewed.shown.verdict.explained(previewed.shown.compared)):
            print_line(line)
    sent = _send(messages, is_confirmed=args.yes) if args.send else []
    if is_structured(args.output):
        print_value({**shown, "sent": sent} if args.send else shown, args.output)
    else:
        for line in sent_lines(sent):
            print_line(line)
    is_sent = bool(sent) and all(result["acknowledged"] for result in sent)
    is_good = previewed.triggers and (is_sent or not args.send)
    return ExitCode.OK if is_good else ExitCode.FOUND


def _notes(workflow: Workflow, now: datetime | None) -> Iterator[str]:
    """Yield what a preview can't know about a run."""
    if not workflow.active:
        yield "the workflow is not active: nothing is sent until it is"
    if workflow.dry_run:
        yield "the workflow is a dry run: its tasks do everything but the POST"
    if workflow.evaluate == "until_triggered":
        yield "a record triggers once: whether this one has triggered before is not looked up"
    if has_templates(workflow.criteria):
        yield "the criteria hold templates, which count here as they are written"
    elif Criteria(workflow.criteria).has_relative_dates:
        measured = "each change's own time (--now takes another)" if now is None else iso_time(now)
        yield f"relative dates are measured from {measured}"
    if any(webhook.is_timed for webhook in workflow.webhooks):
        yield "a time trigger sends the record as it is at that time"


def _shown(
    workflow: Workflow, previewed: Preview, messages: Sequence[PreviewedMessage], notes: list[str]
) -> dict[str, Any]:
    """Return the preview as JSON holds it."""
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
        "notes": notes,
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


def _send(messages: Sequence[PreviewedMessage], *, is_confirmed: bool) -> list[dict[str, Any]]:
    """POST the messages as a test, and return what became of them."""
    to_send = [message for message in messages if message.not_sent is None]
    if not to_send:
        say("Nothing is sent: nothing triggers (--always sends it all the same)")
        return []
    names = ", ".join(message.webhook.name for message in to_send)
    if not confirm(f"POST this record's data as a test, once, to: {names}?", is_confirmed=is_confirmed):
        say("nothing was sent")
        return []
    return [_sent(message) for message in to_send]


def _sent(message: PreviewedMessage) -> dict[str, Any]:
    webhook = message.webhook
    hook = webhook_hook(webhook.conn_id, webhook.uri)
    return {
        "webhook": webhook.name,
        **send_as_test(hook, message.payload["body"], webhook.headers),
    }
