"""Insightly accounts, and how many requests each has left today."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from airflow_insightly_hooks.database.overview.ledgers import CountedRun, Ledgers
from airflow_insightly_hooks.database.overview.workflow_dags import assets_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["Account", "accounts"]

ASSETS = "insightly/"
"""The beginning of the names of this package's assets; the connection's id and the record type follow."""


class Account(NamedTuple):
    """An account's requests of today (in UTC).

    :param conn_id: a connection to the account.
    :param requests_left: how many requests were left; ``None`` if no task has recorded it today.
    :param requests_a_day: how many requests a day the account has; ``None`` if no task has recorded it today.
    :param as_of: when a task recorded this last, in UTC, even on an earlier day; ``None`` if no task did in
        ``DAYS`` days.
    """

    conn_id: str
    requests_left: int | None
    requests_a_day: int | None
    as_of: datetime | None


def accounts(session: Session, dag_ids: Collection[str], now: datetime, ledgers: Ledgers) -> list[Account]:
    """Return the accounts that these DAGs use, by their connections' ids.

    :param now: the current time, aware.
    :param ledgers: the counts of these DAGs' tasks.
    """
    newest: dict[str, CountedRun] = {}
    for run in ledgers.runs:
        conn_id = run.counts.insightly_conn_id
        if conn_id is None or run.counts.requests_left is None:
            continue
        if conn_id not in newest or newest[conn_id].at < run.at:
            newest[conn_id] = run
    names = {name for _, name in assets_of(session, dag_ids) if name.startswith(ASSETS)}
    known = {name.removeprefix(ASSETS).rpartition("/")[0] for name in names}
    today = now.astimezone(timezone.utc).date()
    found = []
    for conn_id in sorted(known | newest.keys()):
        if conn_id not in newest:
            found.append(Account(conn_id, None, None, None))
            continue
        at, counts = newest[conn_id].at, newest[conn_id].counts
        is_of_today = at.date() == today
        left, total = (counts.requests_left, counts.requests_a_day) if is_of_today else (None, None)
        found.append(Account(conn_id, left, total, at))
    return found
