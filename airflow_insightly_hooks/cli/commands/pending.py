"""``pending``: list, cancel and send webhooks that wait for their time."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.cli.confirmation import confirm, user_name
from airflow_insightly_hooks.cli.exit_codes import ExitCode
from airflow_insightly_hooks.cli.output import print_rows, say
from airflow_insightly_hooks.cli.run import UsageError
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.workflow.values import slug_of
from airflow_insightly_hooks.database import pending
from airflow_insightly_hooks.database.pending import PendingDag, PendingPage, PendingRow, RequestedRun
from airflow_insightly_hooks.database.presence import metadata_session

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["cancel_pending", "list_pending", "send_pending_now"]


def list_pending(args: Namespace) -> int:
    """Print the pending webhooks, by due time."""
    with metadata_session() as session:
        page = _selected(session, args, limit=args.limit or None, offset=args.offset)
    print_rows([_shown(row) for row in page.rows], args.output)
    if len(page.rows) < page.total:
        say(f"{len(page.rows):,} of {page.total:,} pending webhooks; --limit and --offset show others")
    _say_warnings(page, page.rows)
    return ExitCode.OK


def cancel_pending(args: Namespace) -> int:
    """Request that pending webhooks are not sent."""
    return _ask(args, "Cancel {}", pending.cancel, "stays sent")


def send_pending_now(args: Namespace) -> int:
    """Request that pending webhooks are sent before their time."""
    return _ask(args, "Send {} now", pending.send_now, "is not sent again")


def _ask(args: Namespace, request: str, ask: Callable[..., list[RequestedRun]], sent_before: str) -> int:
    if not (args.all or args.dag_id or args.webhook or args.record):
        raise UsageError("name webhooks with --dag-id, --webhook or --record, or give --all")
    with metadata_session() as session:
        page = _selected(session, args)
    rows = [row for row in page.rows if row.pending_dag_id is not None]
    _say_warnings(page, page.rows)
    if not rows:
        say("no pending webhook matches")
        return ExitCode.FOUND
    of_each = ", ".join(f"{dag_id}: {number:,}" for dag_id, number in sorted(_per_workflow(rows).items()))
    question = f"{request.format(counted(len(rows), 'pending webhook'))} ({of_each})?"
    if not confirm(question, is_confirmed=args.yes):
        say("nothing was done")
        return ExitCode.FOUND
    with metadata_session() as session:
        runs = ask(session, rows, who=user_name())
    print_rows(
        [{"dag_id": run.dag_id, "run_id": run.run_id, "webhooks": run.entries} for run in runs], args.output
    )
    asked = request.format(counted(len(rows), "webhook"))
    say(
        f"Requested to {asked[0].lower()}{asked[1:]}, in {counted(len(runs), 'run')}. The logs of "
        f"{'its' if len(runs) == 1 else 'their'} due tasks show the result. A webhook that is sent before "
        f"then {sent_before}"
    )
    for dag_id in sorted({run.dag_id for run in runs if run.is_paused}):
        say(f"{dag_id} is paused: its run waits until you unpause it (airflow dags unpause {dag_id})")
    return ExitCode.OK


def _selected(session: Session, args: Namespace, **page: Any) -> PendingPage:
    names = args.webhook or ()
    return pending.pending_webhooks(
        session,
        dag_ids=args.dag_id or (),
        webhooks={*names, *map(slug_of, names)},
        record_ids=set(args.record or ()),
        **page,
    )


def _shown(row: PendingRow) -> dict[str, Any]:
    return {
        "due": iso_time(row.due),
        "dag_id": row.dag_id,
        "webhook": row.webhook,
        "record_type": row.record_type,
        "record_id": row.record_id,
        "event": row.event,
        "changed_at": iso_time(api_time(row.changed_at)),
        "sent_by": row.pending_dag_id,
    }


def _say_warnings(page: PendingPage, rows: Iterable[PendingRow]) -> None:
    """Say which webhooks are missing in the list or will not be sent, and why."""
    for error in page.unreadable:
        say(f"not listed: {error}")
    for dag in page.dags:
        _say_dag_state(dag)
    for (dag_id, webhook), number in sorted(_without_sender(rows).items()):
        say(
            f"{dag_id}/{webhook}: no DAG sends its {counted(number, 'pending message')}. Its DAG is gone or "
            "broken, or the webhook's name, the record type or the connection was changed. To send them, "
            "restore the DAG"
        )


def _say_dag_state(dag: PendingDag) -> None:
    if dag.is_paused:
        say(f"{dag.dag_id} is paused: it sends nothing until you unpause it")
    if dag.queued:
        say(
            f"{dag.dag_id}: {counted(dag.queued, 'queued run')} will add more webhooks, which are not listed "
            "yet"
        )


def _without_sender(rows: Iterable[PendingRow]) -> Counter[tuple[str, str]]:
    return Counter((row.dag_id, row.webhook) for row in rows if row.pending_dag_id is None)


def _per_workflow(rows: Sequence[PendingRow]) -> Counter[str]:
    return Counter(row.dag_id for row in rows)
