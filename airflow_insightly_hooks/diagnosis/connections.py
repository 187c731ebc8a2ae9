"""Which connections there are to check, and what is to be done about one that can't be used."""

from __future__ import annotations

import os
from collections.abc import Iterable

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidConnection
from airflow_insightly_hooks.diagnosis.findings import PROBLEM, WARNING, Finding

__all__ = ["CONNECTION_ERRORS", "connections_in_environment", "unusable"]

CONNECTION_ERRORS = (AirflowException, InsightlyHooksError, ValueError)
"""What reading a connection raises if it is missing or wrong."""

PREFIX = "AIRFLOW_CONN_"


def connections_in_environment(conn_types: Iterable[str]) -> tuple[dict[str, str], list[Finding]]:
    """Return the types, by id, of the connections of these types among the environment's variables.

    Beside them a finding for each variable that holds no connection.
    """
    wanted = set(conn_types)
    found: dict[str, str] = {}
    findings: list[Finding] = []
    for variable in sorted(os.environ):
        conn_id = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or not conn_id:
            continue
        try:
            conn_type = BaseHook.get_connection(conn_id).conn_type
        except Exception:  # its text may hold the variable's value
            findings.append(
                Finding(
                    f"connection {conn_id}",
                    WARNING,
                    f"the environment variable {variable} holds no connection",
                    "Give it a URI, or a JSON object with conn_type, host, login and password.",
                )
            )
            continue
        if conn_type in wanted:
            found[conn_id] = str(conn_type)
    return found, findings


def unusable(subject: str, error: Exception) -> Finding:
    """Return what is to be done about a connection that can't be read, or not be used."""
    if isinstance(error, InvalidConnection):
        return Finding(
            subject, PROBLEM, f"{error.field}: {error.reason}", f"Change {error.field} of the connection."
        )
    if isinstance(error, InsightlyHooksError):
        return Finding(subject, PROBLEM, str(error), "End what uses it up on this machine, and try again.")
    return Finding(
        subject,
        PROBLEM,
        "there is no such connection here, or it can't be read",
        "Make it with 'airflow connections add', or name another one. What workers alone have in their "
        "environment isn't seen here.",
    )
