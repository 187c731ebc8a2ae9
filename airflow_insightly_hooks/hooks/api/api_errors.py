"""The errors of talking to Insightly's API; ``core.errors`` shows where they stand among the others."""

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
"""What asking for a connection raises if it is missing or wrong."""


class InsightlyAPIError(InsightlyHooksError):
    """An answer of Insightly's API that is none of the documented ones.

    ``conn_id``, ``path`` below ``base_url``, what was ``expected``, and the ``status`` where there was one.
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
    """No answer from ``host`` for ``reason``, or a server error each time (``status``).

    503 was waited for as long as the request might wait, anything else asked again three times.

    :param why: the reason, a text, or the status of the last answer.
    """

    def __init__(self, conn_id: str, host: str, why: str | int) -> None:
        super().__init__(conn_id, "", "", why if isinstance(why, int) else None)
        self.args = (conn_id, host, why)
        self.host = host
        self.reason = f"it answered {why}" if isinstance(why, int) else why

    def __str__(self) -> str:
        hint = api_hint(self.reason)
        advice = f"; {hint}" if hint else ""
        tried = "for longer than the request may wait" if self.status == 503 else "after three retries"
        return f"connection {self.conn_id!r}: no use of {self.host}, {tried}: {self.reason}{advice}"


class InsightlyAccessError(InsightlyAPIError, AirflowFailException):
    """A ``status`` of 401, 403, 404 or 405 for ``path`` below ``base_url``: asking again changes nothing.

    A task that raises it fails without a retry.
    """

    def __init__(self, conn_id: str, base_url: str, path: str, status: int) -> None:
        super().__init__(conn_id, path, "", status, base_url)
        self.args = (conn_id, base_url, path, status)

    def __str__(self) -> str:
        reason = {
            401: (
                "refuses the API key (401). Check it: it stands in Insightly's User Settings, and belongs to "
                "the pod that is shown beside it"
            ),
            403: "is not for this API key's user to read (403): check the user's permissions in Insightly",
            404: (
                "is not known there (404). Is the base URL right? It ends in /v3.1. Else the pod may be "
                "wrong, the plan may lack this record type, or the record be gone"
            ),
            405: "is not offered (405): check the record type's name",
        }[self.status or 404]
        return f"connection {self.conn_id!r}: {self.base_url}{self.path} {reason}"


class InsightlyRateLimitError(InsightlyAPIError):
    """429 for longer than the request may wait, or the day's requests are spent (``day_is_spent``).

    :param resets_at: when the day ends, in UTC, if it is spent: until then nothing is asked.
    :param share: the connection's ``requests_per_day``, if it is what is spent.
    :param host: which was asked.
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
                f"connection {self.conn_id!r}: {self.host} answers 429, too many requests, for longer than "
                "the request may wait"
            )
        until = f"{self.resets_at:%Y-%m-%d %H:%M} UTC" if self.resets_at else "midnight UTC"
        if self.share is not None:
            return (
                f"connection {self.conn_id!r}: the account has used the {self.share} requests that the "
                f"connection's requests_per_day allows today; nothing is asked until {until}. Poll less "
                "often, or raise requests_per_day"
            )
        return (
            f"connection {self.conn_id!r}: the account's requests for today are spent; {self.host} answers "
            f"429 until {until}. Poll less often, or raise the plan's limit"
        )
