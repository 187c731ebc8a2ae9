"""``deliveries`` and ``resend``: list delivered and undelivered messages, and send messages again."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_insightly_hooks.cli.arguments.records import record_argument
from airflow_insightly_hooks.cli.arguments.times import time_of
from airflow_insightly_hooks.cli.confirmation import confirm, user_name
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import is_structured, print_rows, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.workflow.dag_ids import with_senders
from airflow_insightly_hooks.database.deliveries import (
    UNDELIVERED,
    Deliveries,
    Delivery,
    DeliveryFilter,
    WantedTasks,
    search_deliveries,
)
from airflow_insightly_hooks.database.presence import metadata_session
from airflow_insightly_hooks.database.resend import REFUSED, Resend, latest_of_each, resend

__all__ = ["list_deliveries", "resend_deliveries"]

MOST_RESENT = 100_000
ANY = "any"
COLUMNS = ("at", "state", "record", "event", "receiver", "attempts", "error", "message_id", "dag_id")
"""The columns of a table; JSON has more, but they would be too wide for a terminal."""


def list_deliveries(args: Namespace) -> int:
    """Print the deliveries that match, the newest first."""
    wanted = _filter(args, args.state)
    with metadata_session(is_snapshot=True) as session:
        found = search_deliveries(session, wanted, limit=args.limit, offset=args.offset)
    rows = [row for one in found.rows for row in (_attempts(one) if args.attempts else [_shown(one)])]
    if not is_structured(args.output):
        rows = [{name: row[name] for name in COLUMNS} for row in rows]
    print_rows(rows, args.output)
    if found.has_more:
        say(f"{counted(len(found.rows), 'message')} listed, and there are more: use --limit and --offset")
    _say_unreadable(found)
    return ExitCode.OK


def resend_deliveries(args: Namespace) -> int:
    """Request that messages are sent again, and print the result for each task."""
    named = args.message or args.record
    state = args.state or (ANY if named else UNDELIVERED)
    _check_run(args)
    if not (named or args.dag_id or args.receiver or args.since):
        raise UsageError(
            "say which messages to send again: --message, --record, --receiver, --dag-id or --since"
        )
    wanted = _filter(args, None if state == ANY else state)
    with metadata_session(is_snapshot=True) as session:
        found = search_deliveries(session, wanted, limit=MOST_RESENT)
    _say_unreadable(found)
    if found.has_more:
        raise UsageError(f"more than {MOST_RESENT:,} messages match: select fewer with --since and --until")
    if not found.rows:
        say("no message matches")
        return ExitCode.FOUND
    messages = latest_of_each(found.rows)
    question = f"Send {counted(len(messages), 'message')} again ({_receivers(messages)})?"
    if not confirm(question, is_confirmed=args.yes):
        say("nothing was done")
        return ExitCode.FOUND
    with metadata_session() as session:
        results = list(resend(session, messages, by=user_name(), what=_in_words(args, state)))
    print_rows([_result(result) for result in results], args.output)
    refused = sum(result.messages for result in results if result.outcome == REFUSED)
    asked = len(messages) - refused
    say(
        f"{counted(asked, 'message')} will be sent again; 'deliveries' shows the result"
        + (f". {counted(refused, 'message')} can't be sent again: see the reasons" if refused else "")
    )
    return ExitCode.FOUND if refused else ExitCode.OK


def _check_run(args: Namespace) -> None:
    if args.run_id and (not args.dag_id or len(args.dag_id) != 1):
        raise UsageError("--run-id: name the run's DAG with --dag-id")
    if args.task_id and not args.run_id:
        raise UsageError("--task-id: name the run with --run-id")


def _filter(args: Namespace, state: str | None) -> DeliveryFilter:
    _check_run(args)
    now = datetime.now(timezone.utc)
    return DeliveryFilter(
        dag_ids=with_senders(args.dag_id) if args.dag_id else None,
        tasks=WantedTasks(args.dag_id[0], args.run_id, args.task_id) if args.run_id else None,
        receiver=args.receiver,
        records=frozenset(map(record_argument, args.record)) if args.record else None,
        message_ids=frozenset(args.message) if args.message else None,
        state=state.replace("-", " ") if state else None,
        since=time_of(args.since, "--since", now) if args.since else None,
        until=time_of(args.until, "--until", now) if args.until else None,
    )


def _shown(one: Delivery) -> dict[str, Any]:
    about, last = one.message.about, one.last
    return {
        "at": iso_time(one.at),
        "state": one.message.state,
        "record": f"{about.record_type}:{about.record_id}" if about else "",
        "event": about.event if about else "",
        "changed_at": about.changed_at if about else "",
        "receiver": one.conn_id or one.receiver,
        "attempts": one.message.attempts,
        "status": last.status if last else None,
        "seconds": last.elapsed if last and last.is_sent else None,
        "error": _error(last),
        "message_id": one.message.message_id,
        "dag_id": one.key.dag_id,
        "run_id": one.key.run_id,
        "task_id": one.key.shown_task,
    }


def _attempts(one: Delivery) -> list[dict[str, Any]]:
    """Return a row for each POST whose outcome is stored, the newest first."""
    row = _shown(one)
    return [
        row
        | {
            "at": iso_time(outcome.at),
            "status": outcome.status,
            "seconds": outcome.elapsed if outcome.is_sent else None,
            "error": _error(outcome),
        }
        for outcome in reversed(one.message.outcomes)
    ] or [row]


def _error(outcome: PostOutcome | None) -> str | None:
    if outcome is None:
        return None
    return f"{outcome.error}: {outcome.response}" if outcome.response else outcome.error


def _result(result: Resend) -> dict[str, Any]:
    return {
        "dag_id": result.key.dag_id,
        "run_id": result.key.run_id,
        "task_id": result.key.shown_task,
        "messages": result.messages,
        "outcome": result.outcome,
        "reason": result.reason,
    }


def _receivers(rows: Sequence[Delivery]) -> str:
    """Return the receivers with their numbers of messages, the greatest number first."""
    counts = Counter(row.conn_id or row.receiver or "unknown" for row in rows)
    shown = ", ".join(f"{receiver}: {count:,}" for receiver, count in counts.most_common(10))
    return f"{shown}, and {len(counts) - 10} more receivers" if len(counts) > 10 else shown


def _in_words(args: Namespace, state: str) -> str:
    """Return the selection, for logs."""
    names = ("message", "record", "receiver", "dag_id", "run_id", "task_id", "since", "until")
    given = [f"{name}={value}" for name in names if (value := getattr(args, name))]
    return " ".join([*given, f"state={state}"])[:500]


def _say_unreadable(found: Deliveries) -> None:
    if found.unreadable:
        say(
            f"{counted(found.unreadable, 'ledger')} can't be read. Another version of "
            f"airflow-insightly-hooks has written {'it' if found.unreadable == 1 else 'them'}, or [workers] "
            "state_store_backend stores the state outside of the database"
        )
