"""``preview``: show what a workflow would do with one record."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_insightly_hooks.cli.arguments.records import json_record
from airflow_insightly_hooks.cli.arguments.times import time_of
from airflow_insightly_hooks.cli.arguments.workflows import workflow_of
from airflow_insightly_hooks.cli.commands.preview_text import preview_lines, say_sending, sent_lines
from airflow_insightly_hooks.cli.confirmation import check_confirmable, confirm
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import is_structured, print_line, print_value, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidTime
from airflow_insightly_hooks.core.workflow.preview import PreviewedMessage
from airflow_insightly_hooks.previews.receivers import send_as_test, webhook_hook
from airflow_insightly_hooks.previews.record_source import custom_field_types, insightly_hook, read_record
from airflow_insightly_hooks.previews.shown_preview import notes_of, preview_of, shown_preview

__all__ = ["preview"]


def preview(args: Namespace) -> int:
    """Print whether the workflow triggers, why, and what it would send; POST it with ``--send``."""
    if (args.record is None) == (args.json is None):
        raise UsageError("one record is needed: give either --record ID or --json FILE")
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
        previewed = preview_of(workflow, record, types, clock=clock, event=args.event, now=now)
    except (InvalidPayload, InvalidTime) as error:
        raise UsageError(f"the record can't be previewed: {error}") from None
    messages = previewed.shown.messages if previewed.triggers or args.always else ()
    notes = list(notes_of(workflow, now, types_are_known=types.is_known, option="--now"))
    shown = shown_preview(workflow, previewed, messages, notes)
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


def _send(messages: Sequence[PreviewedMessage], *, is_confirmed: bool) -> list[dict[str, Any]]:
    """POST the messages as a test, and return the results."""
    to_send = [message for message in messages if message.not_sent is None]
    if not to_send:
        say("nothing was sent, because the record does not trigger; add --always to send it anyway")
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
        **send_as_test(hook, message.payload["body"], webhook.headers, tell=say_sending),
    }
