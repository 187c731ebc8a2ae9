"""Check Insightly's own webhooks: the connection that accepts them, and whether they start a DAG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_insightly_hooks.diagnosis.connections import CONNECTION_ERRORS, unusable
from airflow_insightly_hooks.diagnosis.findings import OK, WARNING, Finding

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.incoming import IncomingSettings

__all__ = ["check_incoming"]


def check_incoming(conn_id: str) -> Iterator[Finding]:
    """Yield the findings about Insightly's webhooks to this Airflow. No requests are sent.

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
        subject, OK, f"/insightly/hooks/{conn_id} accepts {signed} for {_listed(settings.record_types)}"
    )
    yield from _waiting_dags(subject, settings)


def _waiting_dags(subject: str, settings: IncomingSettings) -> Iterator[Finding]:
    from airflow_insightly_hooks.database.announcements import watched_record_types
    from airflow_insightly_hooks.database.presence import DatabaseNotFound, metadata_session

    account = f"connection {settings.insightly_conn_id!r}"
    try:
        with metadata_session() as session:
            watched = watched_record_types(session, settings.insightly_conn_id)
    except DatabaseNotFound:  # the finding on the components says so
        return
    accepted = {name for name in watched if settings.accepts(name)}
    if accepted:
        yield Finding(subject, OK, f"it starts DAGs on changes of {_listed(accepted)} of {account}")
    elif watched:
        yield Finding(
            subject,
            WARNING,
            f"it starts no DAG: DAGs wait for changes of {_listed(watched)} of {account}, but the connection "
            "does not accept them",
            "Add these record types to record_types, or leave it empty.",
        )
    else:
        yield Finding(
            subject,
            WARNING,
            f"it starts no DAG: no DAG waits for changes of records of {account}, so webhooks are answered "
            "with 404",
            "Schedule a DAG with changes_schedule(…, push=True). If there is one, check that its file has no "
            "error and names the same account.",
        )


def _listed(record_types: frozenset[str] | set[str] | None) -> str:
    return "all record types" if record_types is None else ", ".join(sorted(record_types))
