"""Find the connections to check, and advise on a connection that can't be used."""

from __future__ import annotations

import os
from collections.abc import Iterable

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidConnection
from airflow_insightly_hooks.diagnosis.findings import PROBLEM, WARNING, Finding

__all__ = ["CONNECTION_ERRORS", "connections_in_environment", "unusable"]

CONNECTION_ERRORS = (AirflowException, InsightlyHooksError, ValueError)
"""The errors that reading a connection raises if it is missing or not valid."""

PREFIX = "AIRFLOW_CONN_"


def connections_in_environment(conn_types: Iterable[str]) -> tuple[dict[str, str], list[Finding]]:
    """Return the connections of these types in environment variables: the type by the connection's id.

    Also return a finding for each variable that is not a valid connection.
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
                    f"the environment variable {variable} is not a valid connection",
                    "Set it to a URI, or to a JSON object with conn_type, host, login and password.",
                )
            )
            continue
        if conn_type in wanted:
            found[conn_id] = str(conn_type)
    return found, findings


def unusable(subject: str, error: Exception) -> Finding:
    """Return the finding for a connection that can't be read or used, with what to do."""
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
        "Add it with 'airflow connections add', or name another one. If only the workers have it in their "
        "environment, run this check on a worker.",
    )
