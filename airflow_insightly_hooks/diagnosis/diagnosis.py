"""Run all checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.errors import type_and_place
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.diagnosis.airflow_setup import (
    check_components,
    check_encryption,
    check_state_store,
    check_version,
    check_xcom_backend,
)
from airflow_insightly_hooks.diagnosis.celery_executor import check_celery_executor
from airflow_insightly_hooks.diagnosis.connections import connections_in_environment
from airflow_insightly_hooks.diagnosis.findings import PROBLEM, SKIPPED, WARNING, Finding
from airflow_insightly_hooks.diagnosis.incoming_webhooks import check_incoming
from airflow_insightly_hooks.diagnosis.insightly_account import check_account
from airflow_insightly_hooks.diagnosis.pools import check_pools, check_shared_limit
from airflow_insightly_hooks.diagnosis.webhook_receiver import check_receiver

if TYPE_CHECKING:
    from airflow_insightly_hooks.database.setup.pools import PooledTask

__all__ = ["diagnose"]

ACCOUNT, RECEIVER, INCOMING = "insightly", "insightly_webhook", "insightly_incoming"
"""The connection types that are checked."""
AT_ONCE = 8
"""How many connections are checked at the same time."""


def diagnose(
    accounts: Sequence[str] = (),
    receivers: Sequence[str] = (),
    incoming: Sequence[str] = (),
    *,
    record_types: Sequence[str] | None = None,
    posts: bool = False,
) -> Iterator[Finding]:
    """Yield the findings about Airflow, the accounts, the receivers and incoming webhooks, in this order.

    If none of the first three arguments is given, all connections of these types in the environment and the
    database are checked. Connections in a secrets backend must be named.

    :param accounts: ids of connections of type ``insightly``.
    :param receivers: ids of connections of type ``insightly_webhook``.
    :param incoming: ids of connections of type ``insightly_incoming``.
    :param record_types: the record types that must be readable. ``None`` checks all, and record types that
        can't be read are only a warning.
    :param posts: whether to POST an empty JSON object to each receiver.
    :raises UnknownRecordType: if a name is not a record type.
    """
    for record_type in record_types or ():
        RECORD_TYPES[record_type]  # raises the error before the checks begin
    yield from _airflow()
    pools = _pools()
    yield from check_pools(*pools)
    if not accounts and not receivers and not incoming:
        found, findings = _known_connections()
        yield from findings
        accounts = [conn_id for conn_id, conn_type in found.items() if conn_type == ACCOUNT]
        receivers = [conn_id for conn_id, conn_type in found.items() if conn_type == RECEIVER]
        incoming = [conn_id for conn_id, conn_type in found.items() if conn_type == INCOMING]
        yield from _missing(accounts, receivers)
    checks = [
        *(_all_of(check_account(conn_id, record_types), conn_id) for conn_id in accounts),
        *(_all_of(check_receiver(conn_id, posts=posts), conn_id) for conn_id in receivers),
        *(_all_of(check_shared_limit(conn_id, *pools), conn_id) for conn_id in receivers),
        *(_all_of(check_incoming(conn_id), conn_id) for conn_id in incoming),
    ]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for findings in threads.map(list, checks):
            yield from findings


def _all_of(findings: Iterator[Finding], conn_id: str) -> Iterator[Finding]:
    """Yield the findings of one connection; an unexpected error is a finding, and stops no other check."""
    try:
        yield from findings
    except Exception as error:  # its text may hold secrets
        what = f"the check itself has failed: {type_and_place(error)}"
        yield Finding(f"connection {conn_id}", PROBLEM, what, "Please report this as a bug of this package.")


def _airflow() -> Iterator[Finding]:
    from airflow.configuration import conf
    from airflow.version import version

    from airflow_insightly_hooks.database.presence import DatabaseNotFound
    from airflow_insightly_hooks.database.setup.components import component_states

    yield check_version(version)
    yield from check_state_store(lambda name: conf.get("state_store", name, fallback=None))
    yield from check_xcom_backend(lambda section, name: conf.get(section, name, fallback=None))
    yield from check_celery_executor(
        conf.get("core", "executor", fallback=""), lambda name: conf.get("celery", name, fallback=None)
    )
    try:
        states = component_states()
        yield check_encryption(conf.get("core", "fernet_key", fallback=None))
        yield from check_components(states, datetime.now(timezone.utc))
    except DatabaseNotFound as error:
        yield Finding(
            "Airflow's components",
            SKIPPED,
            f"scheduler, triggerer and dag-processor weren't checked: {error.reason}",
            "Run 'airflow insightly doctor' where Airflow's scheduler or API server runs.",
        )


def _pools() -> tuple[Sequence[PooledTask], Mapping[str, int]]:
    """Return this package's tasks, and the slots of each pool."""
    from airflow_insightly_hooks.database.presence import DatabaseNotFound, metadata_session

    try:
        with metadata_session() as session:
            from airflow_insightly_hooks.database.setup.pools import pool_slots, pooled_tasks

            return pooled_tasks(session), pool_slots(session)
    except DatabaseNotFound:  # the finding on the components says so
        return (), {}


def _known_connections() -> tuple[dict[str, str], list[Finding]]:
    """Return the connections of this package: their types by id; and findings about wrong variables."""
    from airflow_insightly_hooks.database.presence import DatabaseNotFound
    from airflow_insightly_hooks.database.setup.connections import stored_connections

    types = (ACCOUNT, RECEIVER, INCOMING)
    found, findings = connections_in_environment(types)
    with suppress(DatabaseNotFound):  # the finding on the components says so
        found = {**stored_connections(types), **found}  # in Airflow, too, the environment takes precedence
    return dict(sorted(found.items())), findings


def _missing(accounts: Sequence[str], receivers: Sequence[str]) -> Iterator[Finding]:
    for conn_type, known, option in ((ACCOUNT, accounts, "--insightly"), (RECEIVER, receivers, "--receiver")):
        if not known:
            yield Finding(
                "connections",
                WARNING,
                f"neither the environment nor the database has a connection of type {conn_type}",
                f"Add one, or name one in a secrets backend: {option} CONN_ID",
            )
