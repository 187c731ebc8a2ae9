"""Check an Insightly account: connection, pod, key, clock, requests left, and readable record types."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_insightly_hooks.core.detection.daily_budget import LOW
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.diagnosis.connections import CONNECTION_ERRORS, unusable
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, SKIPPED, WARNING, Finding
from airflow_insightly_hooks.hooks.blocked_addresses import is_loopback
from airflow_insightly_hooks.hooks.hints import UNKNOWN_HOST, api_hint

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
    from airflow_insightly_hooks.hooks.api.limiter import RequestsLeft
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["check_account", "judge_clock", "judge_requests_left"]

PATIENCE = 5.0
"""How long a request may be retried after 429 and 503, in seconds. It is short, because a user waits."""
CLOCK_WARNING, CLOCK_PROBLEM = 30.0, 300.0
"""How far apart the clocks may be, in seconds. Receivers that check signatures accept 300 s (Standard
Webhooks)."""

_KEY = (
    "Copy the key again from Insightly's User Settings, under API, into the connection's password. Check "
    "that the connection's pod is the one that is shown beside the key."
)
_FEWER_REQUESTS = "Poll less often (poll_interval, schedule), or raise the plan's limit."
_POD = (
    "Check the pod: it is shown beside the API key in Insightly's User Settings, and is a part of the "
    "account's address (crm.<pod>.insightly.com)."
)


def check_account(conn_id: str, record_types: Sequence[str] | None = None) -> Iterator[Finding]:
    """Yield the findings about an account. This takes one request for each record type, and two to four more.

    :param conn_id: an Airflow connection of type ``insightly``.
    :param record_types: the record types that must be readable. ``None`` checks all, and record types that
        can't be read are only a warning.
    """
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    subject = f"connection {conn_id}"
    hook = InsightlyHook(conn_id)
    hook.patience = PATIENCE
    try:
        base_url = hook.base_url
        yield from _unencrypted(subject, hook, base_url)
        name = hook.account_name()
    except InsightlyAPIError as error:
        yield _refusal(subject, error, base_url)
        return
    except CONNECTION_ERRORS as error:
        yield unusable(subject, error)
        return
    yield Finding(subject, OK, f"{base_url} accepts the API key" + (f" (account {name!r})" if name else ""))
    try:
        server = hook.server_time()
        yield judge_clock(subject, server.timestamp() - time.time())
        yield from _access(subject, hook, record_types)
    except InsightlyAPIError as error:
        yield _refusal(subject, error, base_url)
    yield judge_requests_left(subject, hook.requests_left())


def _unencrypted(subject: str, hook: InsightlyHook, base_url: str) -> Iterator[Finding]:
    """Yield a finding for each place where the key is not encrypted."""
    if hook.get_connection(hook.insightly_conn_id).login:
        yield Finding(
            subject,
            WARNING,
            "the API key is in the login, which Airflow neither encrypts nor masks",
            "Move it to the password, and empty the login.",
        )
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Finding(
            subject,
            WARNING,
            f"the API key and records go to {base_url} without encryption",
            "Use https, as Insightly itself does.",
        )


def judge_clock(subject: str, ahead: float) -> Finding:
    """Return a finding on the difference between the API server's clock and this machine's.

    :param ahead: how many seconds the server's clock is ahead; negative if it is behind.
    """
    apart = abs(ahead)
    if apart < CLOCK_WARNING:
        return Finding(subject, OK, f"its clock and this machine's are at most {apart + 1:.0f} s apart")
    side = "ahead of" if ahead > 0 else "behind"
    found = f"its clock is {apart:.0f} s {side} this machine's"
    what_to_do = "Set this machine's clock by NTP."
    if apart < CLOCK_PROBLEM:
        return Finding(subject, WARNING, found, what_to_do)
    return Finding(
        subject,
        PROBLEM,
        f"{found}: if this machine's clock is wrong, receivers that check webhook-timestamp refuse messages",
        what_to_do,
    )


def judge_requests_left(subject: str, counts: RequestsLeft | None) -> Finding:
    """Return a finding on how many requests the account has left today."""
    if counts is None:
        return Finding(subject, SKIPPED, "the API doesn't say how many requests are left today")
    found = (
        f"{counts.left:,} of {counts.total:,} requests are left until {counts.resets_at:%Y-%m-%d %H:%M} UTC"
    )
    if not counts.left:
        return Finding(
            subject,
            PROBLEM,
            found,
            f"Nothing is read until then. {_FEWER_REQUESTS} Check the connection's requests_per_day, too.",
        )
    if counts.left <= LOW * counts.total:
        return Finding(subject, WARNING, found, _FEWER_REQUESTS)
    return Finding(subject, OK, found)


def _access(subject: str, hook: InsightlyHook, record_types: Sequence[str] | None) -> Iterator[Finding]:
    """Yield a finding with the record types that the key can read, and one for each kind of refusal."""
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError

    readable: list[str] = []
    refused: dict[int | None, list[str]] = {}
    for record_type in list(RECORD_TYPES) if record_types is None else record_types:
        try:
            hook.check_access(record_type)
            readable.append(record_type)
        except InsightlyAccessError as error:
            refused.setdefault(error.status, []).append(record_type)
    if readable:
        yield Finding(subject, OK, f"can be read: {', '.join(readable)}")
    level = WARNING if record_types is None else PROBLEM
    for status, names in refused.items():
        found = f"can't be read ({status}): {', '.join(names)}"
        yield Finding(subject, level, found, _ACCESS.get(status or 0, _ACCESS[404]))


_ACCESS = {
    401: _KEY,
    403: "The key's user lacks the permission: change the user's profile in Insightly, or use another "
    "user's key. You can ignore record types that no workflow uses.",
    404: "The account's plan does not include them, or the custom object does not exist. You can ignore "
    "record types that no workflow uses.",
}


def _refusal(subject: str, error: InsightlyAPIError, base_url: str) -> Finding:
    """Return the finding for an error of the API."""
    from airflow_insightly_hooks.hooks.api.api_errors import (
        InsightlyAccessError,
        InsightlyRateLimitError,
        InsightlyUnreachable,
    )

    match error:
        case InsightlyAccessError(status=401):
            return Finding(subject, PROBLEM, f"{base_url} refuses the API key (401)", _KEY)
        case InsightlyAccessError(status=404):
            todo = "Give only the pod as host, or a URL that ends in /v3.1."
            found = f"{base_url} is not an address of the API (404)"
            return Finding(subject, PROBLEM, found, f"{todo} {_POD}")
        case InsightlyUnreachable(reason=reason, host=host):
            todo = _POD if reason == UNKNOWN_HOST else _sentence(api_hint(reason))
            todo = todo or "Check that this machine can reach it (firewall, proxy), or try again later."
            return Finding(subject, PROBLEM, f"{host} can't be used: {reason}", todo)
        case InsightlyRateLimitError(day_is_spent=True, resets_at=resets_at):
            until = f"{resets_at:%Y-%m-%d %H:%M} UTC" if resets_at else "midnight UTC"
            if error.share is None:
                return Finding(subject, PROBLEM, f"no requests are left until {until}", _FEWER_REQUESTS)
            return Finding(
                subject,
                PROBLEM,
                f"all {error.share:,} requests of requests_per_day are used until {until}",
                "Poll less often (poll_interval, schedule), or raise the connection's requests_per_day.",
            )
        case InsightlyRateLimitError():
            return Finding(
                subject,
                WARNING,
                f"{error.host} answers 429, too many requests a second",
                "Check what else uses this account, and try again. If it remains, lower requests_per_second.",
            )
    return Finding(subject, PROBLEM, str(error), f"Check that {base_url} is an address of Insightly's API.")


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
