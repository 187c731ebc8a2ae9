"""Insightly's accounts, and how many requests of today each has left."""

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
"""How the names of our assets begin; then come the connection's id and the record type."""


class Account(NamedTuple):
    """What is known of an account's requests of today, by UTC.

    :param conn_id: a connection to it.
    :param requests_left: how many were left; ``None`` if no task of today has told.
    :param requests_a_day: how many the day has in all; ``None`` likewise.
    :param as_of: when a task told that last, also on an earlier day, UTC; ``None``: never in ``DAYS`` days.
    """

    conn_id: str
    requests_left: int | None
    requests_a_day: int | None
    as_of: datetime | None


def accounts(session: Session, dag_ids: Collection[str], now: datetime, ledgers: Ledgers) -> list[Account]:
    """Return the accounts that these DAGs work with, by their connections' ids.

    :param now: aware.
    :param ledgers: what tasks of these DAGs have counted.
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
