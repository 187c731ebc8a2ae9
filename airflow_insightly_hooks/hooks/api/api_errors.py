"""The errors of requests to Insightly's API. ``core.errors`` shows the whole hierarchy of errors."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.hooks.hints import api_hint

__all__ = [
    "NO_CONNECTION",
    "InsightlyAPIError",
    "InsightlyAccessError",
    "InsightlyRateLimitError",
    "InsightlyUnreachable",
]

NO_CONNECTION = (AirflowException, InsightlyHooksError)
"""The errors that reading a connection raises if it is missing or invalid."""


class InsightlyAPIError(InsightlyHooksError):
    """Insightly's API gave an answer that this package can't use. The API's other errors are subclasses.

    Cause: Raised when the API answers with an undocumented status, with content of another form, or with too
    many bytes; also when an answer takes too long or can't be read.

    Remedy: Check that the connection's host is the API's address, and that no proxy answers in its place. If
    the message names a limit of the connection (``max_answer_bytes``, ``answer_timeout``), raise the limit.
    Otherwise try again later.

    :param conn_id: the connection's id.
    :param path: the path of the request, below ``base_url``.
    :param expected: the answer that was expected.
    :param status: the answer's status; ``None`` if there is none.
    :param base_url: the API's address.
    """

    def __init__(
        self, conn_id: str, path: str, expected: str, status: int | None = None, base_url: str = ""
    ) -> None:
        super().__init__(conn_id, path, expected, status, base_url)
        self.conn_id = conn_id
        self.path = path
        self.expected = expected
        self.status = status
        self.base_url = base_url

    def __str__(self) -> str:
        answered = "" if self.status is None else f" it answered {self.status};"
        hint = api_hint(self.status or 0)
        advice = f" ({hint})" if hint else ""
        return f"connection {self.conn_id!r}: {self.base_url}{self.path}:{answered} {self.expected}{advice}"


class InsightlyUnreachable(InsightlyAPIError):
    """Insightly's API didn't answer, or answered with a server error each time.

    Cause: Raised when no connection can be made, when an answer doesn't come in time, or when the API answers
    500 or above. The hook has repeated the request three times within seconds. After 503 it has waited for
    as long as the request may wait (``patience``).

    Remedy: Check the connection's host, and the network between the worker and Insightly. If both are right,
    Insightly is down: wait for the task's next try.

    :param conn_id: the connection's id.
    :param host: the host that was asked.
    :param why: the reason as a text, or the status of the last answer. ``reason`` is its text.
    """

    def __init__(self, conn_id: str, host: str, why: str | int) -> None:
        super().__init__(conn_id, "", "", why if isinstance(why, int) else None)
        self.args = (conn_id, host, why)
        self.host = host
        self.why = why
        self.reason = f"it answered {why}" if isinstance(why, int) else why

    def __str__(self) -> str:
        hint = api_hint(self.reason)
        advice = f"; {hint}" if hint else ""
        tried = "for longer than the request may wait" if self.status == 503 else "after three retries"
        return (
            f"connection {self.conn_id!r}: no usable answer from {self.host} {tried}: {self.reason}{advice}"
        )


class InsightlyAccessError(InsightlyAPIError, AirflowFailException):
    """Insightly's API refused a request, and would refuse it again. The task fails without a retry.

    Cause: Raised when the API answers 401 (wrong API key), 403 (the key's user lacks the permission), 404
    (wrong address, a record type that the plan lacks, or a deleted record) or 405 (the record type doesn't
    allow the request).

    Remedy: Compare pod and API key with Insightly's User Settings. Check the user's permissions there, and
    the name of the record type. The message says which of these to check.

    :param conn_id: the connection's id.
    :param base_url: the API's address.
    :param path: the path of the request, below ``base_url``.
    :param status: 401, 403, 404 or 405.
    """

    def __init__(self, conn_id: str, base_url: str, path: str, status: int) -> None:
        super().__init__(conn_id, path, "", status, base_url)
        self.args = (conn_id, base_url, path, status)

    def __str__(self) -> str:
        reason = {
            401: (
                "refuses the API key (401). Compare it with the key in Insightly's User Settings. It works "
                "only with the pod that is shown there, too"
            ),
            403: "may not be read by the API key's user (403): check the user's permissions in Insightly",
            404: (
                "was not found (404). Check that the base URL ends in /v3.1, and that the pod is right. If "
                "they are, the account's plan may lack this record type, or the record was deleted"
            ),
            405: "doesn't allow this request (405): check the record type's name",
        }[self.status or 404]
        return f"connection {self.conn_id!r}: {self.base_url}{self.path} {reason}"


class InsightlyRateLimitError(InsightlyAPIError):
    """The account has used up its requests, for now or for today.

    Cause: Raised when the API answers 429 (too many requests) for longer than the request may wait; also when
    the account has no requests left today, or has used up the connection's ``requests_per_day``.

    Remedy: Poll less often. Raise ``requests_per_day``, or the limit of the account's plan. For 429 within
    the day, run fewer tasks at once, or lower the connection's ``requests_per_second``.

    :param conn_id: the connection's id.
    :param day_is_spent: whether today's requests are used up.
    :param resets_at: when the day ends, in UTC. No request is sent until then. ``None`` unless
        ``day_is_spent``.
    :param share: the connection's ``requests_per_day``, if this limit was reached; otherwise ``None``.
    :param host: the host that was asked.
    """

    def __init__(
        self,
        conn_id: str,
        day_is_spent: bool,
        resets_at: datetime | None = None,
        share: int | None = None,
        host: str = "Insightly",
    ) -> None:
        super().__init__(conn_id, "", "", 429)
        self.args = (conn_id, day_is_spent, resets_at, share, host)
        self.host = host
        self.day_is_spent = day_is_spent
        self.resets_at = resets_at
        self.share = share

    def __str__(self) -> str:
        if not self.day_is_spent:
            return (
                f"connection {self.conn_id!r}: {self.host} answers 429 (too many requests) for longer than "
                "the request may wait. Run fewer tasks at once, or lower requests_per_second"
            )
        until = f"{self.resets_at:%Y-%m-%d %H:%M} UTC" if self.resets_at else "midnight UTC"
        if self.share is not None:
            return (
                f"connection {self.conn_id!r}: the account has used up the connection's requests_per_day "
                f"({self.share}) for today. No request is sent until {until}. Poll less often, or raise "
                "requests_per_day"
            )
        return (
            f"connection {self.conn_id!r}: the account has used up its requests for today. {self.host} "
            f"answers 429 until {until}. Poll less often, or raise the plan's limit"
        )
