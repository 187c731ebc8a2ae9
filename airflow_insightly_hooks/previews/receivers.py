"""Make the requests that receivers would get, and send them as a test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.templates import is_template
from airflow_insightly_hooks.core.workflow.parts import Webhook

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["Request", "request_of", "send_as_test", "webhook_hook"]

TEMPLATE = "it is a template, which Airflow renders in a task"


class Request(NamedTuple):
    """A POST as it would be sent, without secrets.

    :param receiver: the receiver's address, or its connection if the address is not known.
    :param headers: the headers; empty if they are not known.
    :param problem: why the headers are not known; ``None`` if they are known.
    """

    receiver: str
    headers: Mapping[str, str]
    problem: str | None


def webhook_hook(conn_id: str | None, uri: str | None) -> WebhookHook:
    """Return the hook of a receiver, from a connection or a URI."""
    # The import of the HTTP client takes time, and not every command needs it.
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    return WebhookHook(uri=uri) if conn_id is None else WebhookHook(conn_id)


def request_of(webhook: Webhook, body: str, message_id: str) -> Request:
    """Return the POST of a webhook's message."""
    given = f"connection {webhook.conn_id!r}" if webhook.conn_id is not None else "a URI"
    if is_template(webhook.conn_id or webhook.uri or ""):
        return Request(given, {}, TEMPLATE)
    try:
        hook = webhook_hook(webhook.conn_id, webhook.uri)
        headers = hook.shown_headers(body, message_id=message_id, headers=webhook.headers)
        return Request(str(hook.get_conn()), headers, None)
    except (InsightlyHooksError, AirflowNotFoundException) as error:
        return Request(given, {}, str(error))


def send_as_test(
    hook: WebhookHook,
    body: str,
    headers: Mapping[str, str] | None = None,
    *,
    tell: Callable[[str, str], None] | None = None,
) -> dict[str, Any]:
    """POST a body once, with a new id that says that it is a test; nothing is recorded.

    :param tell: a function that is called before the POST, with the receiver's address and the message's id.
    :returns: the result: ``receiver``, ``message_id``, ``acknowledged``, ``status``, ``seconds``, ``error``
        and ``response``.
    :raises InvalidConnection: if the receiver's connection or URI is not valid.
    :raises InvalidPayload: if the body or the headers can't be sent.
    """
    receiver = str(hook.get_conn())
    message_id = f"msg_test_{secrets.token_hex(12)}"
    if tell is not None:
        tell(receiver, message_id)
    result = hook.send(body, message_id=message_id, headers=headers, keep_response=True)
    return {
        "receiver": receiver,
        "message_id": message_id,
        "acknowledged": result.acknowledged,
        "status": result.status,
        "seconds": round(result.elapsed, 3),
        "error": result.error,
        "response": result.response,
    }
