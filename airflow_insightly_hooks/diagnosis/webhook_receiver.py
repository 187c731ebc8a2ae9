"""Check a receiver: its connection, its security, its address, its TLS, and its answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from airflow_insightly_hooks.diagnosis.connections import CONNECTION_ERRORS, unusable
from airflow_insightly_hooks.diagnosis.findings import OK, PROBLEM, WARNING, Finding

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.receiver import ReceiverSettings
    from airflow_insightly_hooks.hooks.post.stream import TlsState

__all__ = ["check_receiver", "judge_certificate"]

EXPIRES_SOON = timedelta(days=14)
"""A certificate that is valid for less than this is a warning."""


def check_receiver(conn_id: str, *, posts: bool = False) -> Iterator[Finding]:
    """Yield the findings about a receiver.

    :param conn_id: an Airflow connection of type ``insightly_webhook``.
    :param posts: whether to POST an empty JSON object, as the connection's test does. If not, the check opens
        a connection to the receiver and sends nothing.
    """
    from airflow_insightly_hooks.hooks.post.exchange import NotDelivered
    from airflow_insightly_hooks.hooks.post.probe import probe
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    subject = f"connection {conn_id}"
    hook = WebhookHook(conn_id)
    try:
        settings = hook.receiver
    except CONNECTION_ERRORS as error:
        yield unusable(subject, error)
        return
    yield from _safety(subject, settings)
    proxy = settings.transport.proxy
    through = f" through the proxy {proxy.origin}" if proxy is not None else ""
    try:
        tls = probe(settings.endpoint, settings.transport)
    except NotDelivered as failure:
        yield Finding(
            subject,
            PROBLEM,
            f"no connection to {settings.endpoint.origin}{through}: {failure.reason}",
            _advice(failure.reason),
        )
        return
    yield Finding(subject, OK, f"{settings.endpoint.origin} accepts connections{through}")
    if tls is not None:
        yield judge_certificate(subject, tls, datetime.now(timezone.utc))
    if posts:
        is_acknowledged, text = hook.test_connection()
        advice = "" if is_acknowledged else "Look at the receiver's own log, or set keep_response."
        yield Finding(subject, OK if is_acknowledged else PROBLEM, text, advice)


def _safety(subject: str, settings: ReceiverSettings) -> Iterator[Finding]:
    """Yield a finding for each way in which others could read messages or send their own."""
    endpoint = settings.endpoint
    has_credentials = bool(endpoint.authorization or settings.headers)
    if not endpoint.is_secured and not endpoint.is_loopback:
        what = "records and credentials go" if has_credentials else "records go"
        yield Finding(
            subject,
            WARNING,
            f"{what} to {endpoint.origin} without encryption",
            "Set up https at the receiver, and use its https address.",
        )
    if endpoint.is_secured and settings.transport.settings.verify is False:
        yield Finding(
            subject,
            WARNING,
            "its certificate is not verified (verify): anybody on the way can read and change messages",
            "Set verify to true, or to a file with the trusted certificates.",
        )
    if not has_credentials and settings.signer is None:
        yield Finding(
            subject,
            WARNING,
            "it has no password, no headers and no signing_secret: the receiver can't know who sends",
            "Set login and password, or signing_secret, as the receiver requires.",
        )
    elif endpoint.authorization and not endpoint.password:
        yield Finding(
            subject, WARNING, "it has a login without a password", "Set the password, unless it is empty."
        )


def judge_certificate(subject: str, tls: TlsState, now: datetime) -> Finding:
    """Return a finding on how long a certificate is valid.

    :param now: the current time, aware.
    """
    from cryptography import x509

    ends = x509.load_der_x509_certificate(tls.certificate).not_valid_after_utc
    left = ends - now
    found = f"{tls.version}, certificate valid until {ends:%Y-%m-%d %H:%M} UTC ({_days(left)})"
    if left < timedelta(0):
        return Finding(subject, WARNING, found, "Ask the receiver's owner to renew the certificate.")
    if left < EXPIRES_SOON:
        todo = "Ask the receiver's owner to renew it before it expires: after that, nothing is delivered."
        return Finding(subject, WARNING, found, todo)
    return Finding(subject, OK, found)


def _days(left: timedelta) -> str:
    if left < timedelta(0):
        return "expired"
    return "1 day left" if left.days == 1 else f"{left.days} days left"


def _advice(reason: str) -> str:
    from airflow_insightly_hooks.hooks.blocked_addresses import METADATA_REFUSED
    from airflow_insightly_hooks.hooks.hints import receiver_hint

    if "allow_private_networks" in reason:
        return "Set allow_private_networks if the address is meant to be in your own network."
    if METADATA_REFUSED in reason:
        return "Give another host: webhooks are not sent to this address."
    if reason.startswith("proxy: "):
        return "Check HTTPS_PROXY and HTTP_PROXY, or set trust_env to false to connect directly."
    hint = receiver_hint(reason)
    if hint:
        return f"{hint[0].upper()}{hint[1:]}."
    return "Check that the receiver is running, and that this machine reaches its host and port (firewall)."
