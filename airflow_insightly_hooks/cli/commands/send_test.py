"""``send-test``: POST a realistic body to a receiver, and show the result."""

from __future__ import annotations

from argparse import Namespace

from airflow_insightly_hooks.cli.arguments.records import json_record, record_argument
from airflow_insightly_hooks.cli.commands.preview_text import say_sending, sent_lines
from airflow_insightly_hooks.cli.confirmation import check_confirmable, confirm
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import is_structured, print_line, print_value, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.payload import build_body
from airflow_insightly_hooks.core.sample_record import sample_record
from airflow_insightly_hooks.previews.receivers import send_as_test, webhook_hook
from airflow_insightly_hooks.previews.record_source import custom_field_types, insightly_hook, read_record

__all__ = ["send_test"]

SAMPLE = "Contacts"
"""The record type of the body if the user names no record."""


def send_test(args: Namespace) -> int:
    """POST once; the body is a sample that is marked as a test, unless the user names a record."""
    if (args.connection is None) == (args.uri is None):
        raise UsageError("one receiver is needed: give either a connection or --uri")
    if args.record is not None and args.json is not None:
        raise UsageError("--record and --json can't be used together: give one of them")
    is_confirmed = args.yes or (args.record is None and args.json is None)
    check_confirmable(is_confirmed=is_confirmed)
    hook = webhook_hook(args.connection, args.uri)
    receiver = str(hook.get_conn())  # check the receiver before reading from Insightly
    body = _body(args)
    if not confirm(f"POST this record's data to {receiver}?", is_confirmed=is_confirmed):
        say("nothing was sent")
        return ExitCode.FOUND
    result = send_as_test(hook, body, tell=say_sending)
    if is_structured(args.output):
        print_value(result, args.output)
    else:
        for line in sent_lines([result]):
            print_line(line)
    return ExitCode.OK if result["acknowledged"] else ExitCode.FOUND


def _body(args: Namespace) -> str:
    if args.json is not None:
        return build_body(json_record(args.json))
    if args.record is None:
        return build_body(sample_record(SAMPLE), record_type=SAMPLE)
    record_type, record_id = record_argument(args.record)
    if record_type is None:
        raise UsageError("--record: the record type is missing: write it before the id, as in Contacts:7")
    hook = insightly_hook(args.conn)
    record = read_record(hook, record_type, record_id)
    types = custom_field_types(hook, record_type, record, is_needed=True)
    return build_body(record, record_type=record_type, **types.dates)
