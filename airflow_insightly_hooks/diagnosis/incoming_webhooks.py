"""Insightly's own webhooks: the connection that takes them, and whether a DAG waits for what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_insightly_hooks.diagnosis.connections import CONNECTION_ERRORS, unusable
from airflow_insightly_hooks.diagnosis.findings import OK, WARNING, Finding

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.incoming import IncomingSettings

__all__ = ["check_incoming"]


def check_incoming(conn_id: str) -> Iterator[Finding]:
    """Yield what is found about Insightly's webhooks to this Airflow. Nobody is asked anything.

    :param conn_id: an Airflow connection of type ``insightly_incoming``.
    """
    from airflow_insightly_hooks.hooks.incoming import InsightlyIncomingHook

    subject = f"connection {conn_id}"
    try:
        settings = InsightlyIncomingHook(conn_id).get_conn()
    except CONNECTION_ERRORS as error:
        yield unusable(subject, error)
        return
    signed = "signed webhooks (Insightly's own are not signed)" if settings.signer else "webhooks"
    yield Finding(
        subject, OK, f"/insightly/hooks/{conn_id} takes {signed} of {_listed(settings.record_types)}"
    )
    yield from _waiting_dags(subject, settings)


def _waiting_dags(subject: str, settings: IncomingSettings) -> Iterator[Finding]:
    from airflow_insightly_hooks.database.announcements import watched_record_types
    from airflow_insightly_hooks.database.presence import DatabaseNotFound, metadata_session

    account = f"connection {settings.insightly_conn_id!r}"
    try:
        with metadata_session() as session:
            watched = watched_record_types(session, settings.insightly_conn_id)
    except DatabaseNotFound:  # the components' finding tells of it
        return
    accepted = {name for name in watched if settings.accepts(name)}
    if accepted:
        yield Finding(subject, OK, f"it wakes DAGs by changes of {_listed(accepted)} of {account}")
    elif watched:
        yield Finding(
            subject,
            WARNING,
            f"it wakes no DAG: they are scheduled by changes of {_listed(watched)} of {account}",
            "Name these in record_types, or leave it empty.",
        )
    else:
        yield Finding(
            subject,
            WARNING,
            f"it wakes no DAG: none is scheduled by changes of records of {account}",
            "Schedule one with changes_schedule(…, push=True), and look whether its file has an error and "
            "names the same account: until then webhooks are answered with 404.",
        )


def _listed(record_types: frozenset[str] | set[str] | None) -> str:
    return "all record types" if record_types is None else ", ".join(sorted(record_types))
