"""The errors of talking to Insightly's API; ``core.errors`` shows where they stand among the others."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_insightly_hooks.core.errors import InsightlyHooksError

__all__ = [
    "NO_CONNECTION",
    "InsightlyAPIError",
    "InsightlyAccessError",
    "InsightlyRateLimitError",
    "InsightlyUnreachable",
]

NO_CONNECTION = (AirflowException, InsightlyHooksError)
"""What asking for a connection raises if it is missing or wrong."""


class InsightlyAPIError(InsightlyHooksError):
    """An answer of Insightly's API that is none of the documented ones.

    ``conn_id``, ``path`` below the base URL, what was ``expected``, and the ``status`` where there was one.
    """

    def __init__(self, conn_id: str, path: str, expected: str, status: int | None = None) -> None:
        super().__init__(conn_id, path, expected, status)
        self.conn_id = conn_id
        self.path = path
        self.expected = expected
        self.status = status

    def __str__(self) -> str:
        answered = "" if self.status is None else f" it answered {self.status};"
        return f"Insightly (connection {self.conn_id!r}), {self.path}:{answered} {self.expected}"


class InsightlyUnreachable(InsightlyAPIError):
    """No answer from ``host``, or a server error each time (the last one is ``status``)."""

    def __init__(self, conn_id: str, host: str, status: int | None, unknown_host: bool = False) -> None:
        super().__init__(conn_id, "", "", status)
        self.args = (conn_id, host, status, unknown_host)
        self.host = host
        self.unknown_host = unknown_host

    def __str__(self) -> str:
        if self.unknown_host:
            return (
                f"connection {self.conn_id!r}: there is no host {self.host}. Is the pod right? It stands "
                f"beside the API key in Insightly's User Settings, and in the account's address "
                f"(crm.<pod>.insightly.com)"
            )
        what = "did not answer" if self.status is None else f"answered {self.status}"
        return f"connection {self.conn_id!r}: {self.host} {what}, after three retries"


class InsightlyAccessError(InsightlyAPIError, AirflowFailException):
    """A ``status`` of 401, 403, 404 or 405 from ``host``: asking again changes nothing.

    A task that raises it fails without a retry.
    """

    def __init__(self, conn_id: str, host: str, path: str, status: int) -> None:
        super().__init__(conn_id, path, "", status)
        self.args = (conn_id, host, path, status)
        self.host = host

    def __str__(self) -> str:
        reason = {
            401: (
                "refuses the API key (401). Check it: it stands in Insightly's User Settings, and belongs to "
                "the pod that is shown beside it"
            ),
            403: "does not let this API key's user read it (403): check the user's permissions in Insightly",
            404: (
                "does not know it (404): the record may be gone, the plan may lack this record type, "
                "or the pod may be wrong"
            ),
            405: "does not offer this path (405): check the record type's name",
        }[self.status or 404]
        return f"connection {self.conn_id!r}, {self.path}: {self.host} {reason}"


class InsightlyRateLimitError(InsightlyAPIError):
    """429 for longer than could be waited, or the day's quota is spent (``day_is_spent``)."""

    def __init__(self, conn_id: str, day_is_spent: bool) -> None:
        super().__init__(conn_id, "", "", 429)
        self.args = (conn_id, day_is_spent)
        self.day_is_spent = day_is_spent

    def __str__(self) -> str:
        if self.day_is_spent:
            return (
                f"connection {self.conn_id!r}: the account's requests for today are spent; Insightly answers "
                f"429 until midnight UTC. Poll less often, or raise the plan's limit"
            )
        return f"connection {self.conn_id!r}: Insightly kept answering 429, too many requests a second"
