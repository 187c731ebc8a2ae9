"""An account of Insightly: connection, pod, key, clock, requests left, and what the key may read."""

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
"""Seconds that a request may wait in all for 429s and 503s to end: somebody waits for the findings."""
CLOCK_WARNING, CLOCK_PROBLEM = 30.0, 300.0
"""Seconds that the clocks may be apart. Receivers that check signatures accept 300 s (Standard Webhooks)."""

_KEY = (
    "Copy the key again from Insightly's User Settings, under API, into the connection's password. It "
    "belongs to the pod that is shown beside it."
)
_FEWER_REQUESTS = "Poll less often (poll_interval, schedule), or raise the plan's limit."
_POD = (
    "Is the pod right? It is shown beside the API key in Insightly's User Settings, and stands in the "
    "account's address (crm.<pod>.insightly.com)."
)


def check_account(conn_id: str, record_types: Sequence[str] | None = None) -> Iterator[Finding]:
    """Yield what is found about an account; it costs a request for each record type, and two to four more.

    :param conn_id: an Airflow connection of type ``insightly``.
    :param record_types: those that must be readable; ``None``: the ones that are not are warned of.
    """
    from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

    subject = f"connection {conn_id}"
    hook = InsightlyHook(conn_id)
    hook.patience = PATIENCE
    try:
        base_url = hook.base_url
        yield from _kept_in_clear(subject, hook, base_url)
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


def _kept_in_clear(subject: str, hook: InsightlyHook, base_url: str) -> Iterator[Finding]:
    """Yield where the key can be read by others."""
    if hook.get_connection(hook.insightly_conn_id).login:
        yield Finding(
            subject,
            WARNING,
            "the API key stands in the login, which Airflow neither encrypts nor masks",
            "Move it to the password, and empty the login.",
        )
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Finding(
            subject,
            WARNING,
            f"the API key and records go to {base_url} in clear",
            "Use https, as Insightly itself does.",
        )


def judge_clock(subject: str, ahead: float) -> Finding:
    """Judge by how many seconds the API server's clock is ahead of this machine's; negative: behind."""
    apart = abs(ahead)
    if apart < CLOCK_WARNING:
        return Finding(subject, OK, f"its clock and this machine's are at most {apart + 1:.0f} s apart")
    side = "ahead of" if ahead > 0 else "behind"
    found = f"its clock is {apart:.0f} s {side} this machine's"
    what_to_do = "Which one is wrong? Set this machine's clock by NTP."
    if apart < CLOCK_PROBLEM:
        return Finding(subject, WARNING, found, what_to_do)
    return Finding(
        subject,
        PROBLEM,
        f"{found}: receivers that check webhook-timestamp refuse messages if this machine's is wrong",
        what_to_do,
    )


def judge_requests_left(subject: str, counts: RequestsLeft | None) -> Finding:
    """Judge how many requests are left of the account's day."""
    if counts is None:
        return Finding(subject, SKIPPED, "the API doesn't tell how many requests are left of the day")
    found = (
        f"{counts.left:,} of {counts.total:,} requests are left until {counts.resets_at:%Y-%m-%d %H:%M} UTC"
    )
    if not counts.left:
        return Finding(
            subject,
            PROBLEM,
            found,
            f"Nothing is read until then. {_FEWER_REQUESTS} (Is the connection's requests_per_day too low?)",
        )
    if counts.left <= LOW * counts.total:
        return Finding(subject, WARNING, found, _FEWER_REQUESTS)
    return Finding(subject, OK, found)


def _access(subject: str, hook: InsightlyHook, record_types: Sequence[str] | None) -> Iterator[Finding]:
    """Yield which record types the key may read, those of one kind in one finding."""
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
    "user's key. Nothing is to be done about record types that no workflow watches.",
    404: "The account's plan lacks them, or it has no such custom object. Nothing is to be done about record "
    "types that no workflow watches.",
}


def _refusal(subject: str, error: InsightlyAPIError, base_url: str) -> Finding:
    """Return what an error of the API means."""
    from airflow_insightly_hooks.hooks.api.api_errors import (
        InsightlyAccessError,
        InsightlyRateLimitError,
        InsightlyUnreachable,
    )

    match error:
        case InsightlyAccessError(status=401):
            return Finding(subject, PROBLEM, f"{base_url} refuses the API key (401)", _KEY)
        case InsightlyAccessError(status=404):
            todo = "Give the pod alone as host, or a URL that ends in /v3.1."
            return Finding(subject, PROBLEM, f"{base_url} is no address of the API (404)", f"{todo} {_POD}")
        case InsightlyUnreachable(reason=reason, host=host):
            todo = _POD if reason == UNKNOWN_HOST else _sentence(api_hint(reason))
            todo = todo or "Can this machine reach it? Look at firewall and proxy; else try again later."
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
                "Who else asks with this account? Try again; else set requests_per_second lower.",
            )
    return Finding(subject, PROBLEM, str(error), f"Is {base_url} an address of Insightly's API?")


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
