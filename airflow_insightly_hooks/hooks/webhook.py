"""POST the body of a webhook to a receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial

from airflow.sdk import BaseHook

from airflow_insightly_hooks.core.delivery.report import with_response
from airflow_insightly_hooks.core.errors import InvalidPayload, WorkerExhausted
from airflow_insightly_hooks.hooks.connection_extras import NOT_WRITABLE, check_type
from airflow_insightly_hooks.hooks.header_values import http_date, retry_after, shown_value
from airflow_insightly_hooks.hooks.hints import for_a_test, receiver_hint
from airflow_insightly_hooks.hooks.masking import mask
from airflow_insightly_hooks.hooks.post.connection import Headers
from airflow_insightly_hooks.hooks.post.deadline import Deadline
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.exchange import NotDelivered
from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnections, ProvisionalAnswer
from airflow_insightly_hooks.hooks.post.post_result import PostResult
from airflow_insightly_hooks.hooks.post.receiver import (
    AUTHORIZATION,
    IN_CLEAR,
    ReceiverSettings,
    checked_headers,
)
from airflow_insightly_hooks.hooks.post.response import Response
from airflow_insightly_hooks.hooks.post.response_excerpt import ResponseExcerpts, credentials_of
from airflow_insightly_hooks.hooks.rate_limit import RateLimit
from airflow_insightly_hooks.version import __version__

__all__ = ["Acknowledgement", "PostResult", "WebhookHook"]

Acknowledgement = PostResult
"""The earlier name of ``PostResult``, which ``send`` returns."""

CLOCK_TOLERANCE = 300.0
"""Seconds. By Standard Webhooks, receivers accept timestamps that differ from their clock by less."""
MOST_REDIRECTS = 5
FOLLOWED = f"only 307 and 308 to the same scheme, host and port are followed, {MOST_REDIRECTS} at most"


class WebhookHook(BaseHook):
    """POSTs bodies to one receiver.

    :param webhook_conn_id: the id of an Airflow connection of type ``insightly_webhook``. The reference lists
        its fields.
    :param uri: the receiver's URI, to be used instead of the connection. It may hold user information.
    :raises InvalidConnection: from every method, if the connection or the URI can't be used; nothing was
        sent.
    :raises WorkerExhausted: from every method except ``send``, if this worker lacks a resource to read the
        settings, such as file descriptors.
    """

    conn_name_attr = "webhook_conn_id"
    default_conn_name = "webhook_default"
    conn_type = "insightly_webhook"
    hook_name = "Insightly webhook receiver"

    def __init__(self, webhook_conn_id: str = default_conn_name, *, uri: str | None = None) -> None:
        super().__init__()
        self.webhook_conn_id = webhook_conn_id
        self._uri = uri
        self._read: ReceiverSettings | None = None
        self._reading = threading.Lock()  # the settings are read once, so that threads share one rate limit
        self._clock_is_checked = False
        self._excerpts: ResponseExcerpts | None = None

    @property
    def _settings(self) -> ReceiverSettings:
        with self._reading:
            if self._read is None:
                self._read = self._read_settings()
            return self._read

    def _read_settings(self) -> ReceiverSettings:
        if self._uri is not None:
            return ReceiverSettings.from_uri(self._uri)
        connection = self.get_connection(self.webhook_conn_id)
        check_type(connection, self.conn_type, self.log)
        return ReceiverSettings.from_connection(connection)

    def get_conn(self) -> Endpoint:
        """Return the receiver's address, checked. Its text holds no credentials."""
        return self._settings.endpoint

    @property
    def conn_id(self) -> str | None:
        """The id of the connection; ``None`` if a URI is used instead."""
        return self.webhook_conn_id if self._uri is None else None

    @property
    def receiver(self) -> ReceiverSettings:
        """The settings of the connection or the URI, checked. They hold credentials."""
        return self._settings

    @property
    def web_url(self) -> str:
        """The address of a page that shows what the receiver got; empty if the connection has none."""
        return self._settings.web_url

    @property
    def rate_limit(self) -> RateLimit:
        """The receiver's ``requests_per_second``, for callers that send without waiting."""
        return self._settings.rate_limit

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check the headers for a later ``send``.

        :raises InvalidPayload: if they can't be sent.
        """
        mask(*self._checked(headers).values())

    def _checked(self, headers: Mapping[str, str]) -> dict[str, str]:
        checked = checked_headers(headers, "the operator")
        if AUTHORIZATION in checked:
            if self._settings.refuses_credentials:
                raise InvalidPayload("the operator", f"headers: {IN_CLEAR}")
            if self._settings.endpoint.authorization or AUTHORIZATION in self._settings.headers:
                raise InvalidPayload("the operator", "headers: the connection has an Authorization already")
        return checked

    def keep_connections(self) -> KeptConnections:
        """Return connections for ``send``, which uses them again. The caller must end them."""
        return KeptConnections(self._settings.transport, self._is_acknowledgement)

    def _is_acknowledgement(self, answer: Response) -> bool:
        """Return whether an answer acknowledges the message."""
        return (
            200 <= answer.status < 300 and not answer.is_early and self._settings.expect_body in answer.body
        )

    def send(
        self,
        body: str,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
        waits: bool = True,
        connections: KeptConnections | None = None,
        is_last: bool = True,
        keep_response: bool | None = None,
    ) -> PostResult:
        """POST a body once and return the result. Several threads may call it at once.

        :param body: the exact text to send, in UTF-8.
        :param message_id: the value of the header ``webhook-id``.
        :param headers: additional headers. They replace headers of the connection, but not protected headers.
        :param waits: whether to wait here until ``requests_per_second`` allows the POST. If ``False``, the
            caller must wait for ``rate_limit`` itself.
        :param connections: the result of ``keep_connections``, to use a connection again. Then the result of
            the POST may be decided later (``PostResult.provisional``). ``None``: the POST gets a connection
            of its own.
        :param is_last: whether the connection isn't needed after this POST.
        :param keep_response: whether the result holds the beginning of a failing receiver's response;
            ``None`` for the connection's setting.
        :raises InvalidPayload: if body or headers can't be sent; nothing was sent.
        """
        try:
            settings = self._settings
        except WorkerExhausted as lack:
            return PostResult(acknowledged=False, error=str(lack), sent=False, is_own_fault=True)
        content = _encoded(body, message_id, settings.max_body_bytes)
        if waits:
            settings.rate_limit.wait()
        lines = self._headers(content, message_id, headers or {})  # after the wait: they hold the POST's time
        started = time.monotonic()
        try:
            answer, provisional = self._exchange(lines, content, connections, is_last)
        except NotDelivered as failure:
            return PostResult(
                acknowledged=False,
                error=failure.reason if failure.is_own_fault else _advised(failure.reason),
                elapsed=time.monotonic() - started,
                sent=failure.sent,
                is_own_fault=failure.is_own_fault,
            )
        elapsed = time.monotonic() - started
        fields = dict(reversed(answer.headers))  # the first of several equal names counts
        self._check_clock(fields.get("date"))
        now = datetime.now(timezone.utc)  # this machine's time: the receiver's clock may be wrong
        delays = (retry_after(value, now) for name, value in answer.headers if name == "retry-after")
        delay = next((seconds for seconds in delays if seconds is not None), None)
        result = partial(
            PostResult,
            status=answer.status,
            retry_after=delay,
            elapsed=elapsed,
            provisional=provisional,
            response=self._kept_response(answer, headers or {}, keep_response),
        )
        if 200 <= answer.status < 300:
            if answer.is_early:  # the receiver can't have read the whole message
                error = f"answered {answer.status} before the message was completely sent"
                return result(acknowledged=False, error=error)
            if settings.expect_body not in answer.body:
                error = f"answered {answer.status} without the text that is expected (expect_body)"
                return result(acknowledged=False, error=error)
            return result(acknowledged=True, error=answer.note)
        gone = answer.status == 410 or fields.get("webhook-delivery", "").strip().lower() == "abort-message"
        return result(acknowledged=False, error=_meaning(answer.status, settings.allow_redirects), gone=gone)

    def _kept_response(self, answer: Response, headers: Mapping[str, str], keep: bool | None) -> str | None:
        """Return the excerpt of a failing answer, if it is to be kept; otherwise ``None``."""
        keep = self._settings.keep_response if keep is None else keep
        if not keep or self._is_acknowledgement(answer):
            return None
        credentials = credentials_of(self._settings, headers)
        excerpts = self._excerpts
        if excerpts is None or excerpts.credentials != credentials:
            self._excerpts = excerpts = ResponseExcerpts(credentials)  # in most tasks, made only once
        return excerpts.excerpt(answer)

    def _check_clock(self, date: str | None) -> None:
        """Warn once if the receiver's clock differs from this machine's: it may refuse the timestamps."""
        if self._clock_is_checked or date is None:
            return
        self._clock_is_checked = True
        theirs = http_date(date)
        apart = 0.0 if theirs is None else abs((theirs - datetime.now(timezone.utc)).total_seconds())
        if apart > CLOCK_TOLERANCE:
            self.log.warning(
                "The receiver's clock and this worker's are %.0f s apart: it may refuse timestamps", apart
            )

    def _exchange(
        self, lines: Headers, content: bytes, connections: KeptConnections | None, is_last: bool
    ) -> tuple[Response, ProvisionalAnswer | None]:
        """POST, and follow redirects if the connection allows it. All of it counts as one attempt."""
        settings = self._settings
        endpoint = settings.endpoint
        deadline = Deadline(settings.transport.settings.timeout)
        if connections is None or settings.allow_redirects:
            connections, is_last = self.keep_connections(), True
        answer, provisional = connections.post(endpoint, lines, content, deadline, is_last=is_last)
        for _ in range(MOST_REDIRECTS if settings.allow_redirects else 0):
            locations = [value for name, value in answer.headers if name == "location"]
            to = endpoint.redirected(locations[0]) if len(locations) == 1 else None
            if answer.status not in (307, 308) or to is None:
                break
            endpoint = to
            try:
                answer, _ = connections.post(endpoint, lines, content, deadline, is_last=True)
            except NotDelivered as failure:  # the server that redirected has read the message
                raise NotDelivered(f"after a redirect: {failure.reason}", sent=True) from None
        return answer, provisional

    def _headers(self, content: bytes, message_id: str, headers: Mapping[str, str]) -> Headers:
        settings = self._settings
        ours = {
            "Host": settings.endpoint.host_header,
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": f"airflow-insightly-hooks/{__version__}",
            "Accept": "*/*",
        }
        if settings.endpoint.authorization is not None:
            ours[AUTHORIZATION] = settings.endpoint.authorization
        timestamp = int(time.time())
        protected = {  # the names of the last three are written as in their specification
            "Accept-Encoding": "identity",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if settings.signer is not None:
            protected["webhook-signature"] = settings.signer.sign(message_id, timestamp, content)
        given = (ours, settings.headers, self._checked(headers), protected)
        return list({name.lower(): (name, value) for one in given for name, value in one.items()}.values())

    def shown_headers(
        self, body: str, *, message_id: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the headers that ``send`` would POST, for users to read. Secret values are hidden.

        :raises InvalidPayload: if body or headers can't be sent.
        """
        content = _encoded(body, message_id, self._settings.max_body_bytes)
        lines = self._headers(content, message_id, headers or {})
        hidden = {name.lower() for name in self._settings.headers} - {name.lower() for name in headers or {}}
        shown = {name: shown_value(name, value, is_hidden=name.lower() in hidden) for name, value in lines}
        return {**shown, "Content-Length": str(len(content))}

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the receiver acknowledges, and a sentence for the user who tests the connection.

        It POSTs an empty JSON object, with an id that marks it as a test. There is no other way to see
        whether the credentials are right.
        """
        try:
            result = self.send("{}", message_id="msg_connection_test")
            endpoint = self._settings.endpoint
        except Exception as error:  # Airflow shows the text; nothing may be raised here
            return False, for_a_test(error, self.webhook_conn_id)
        if result.acknowledged:
            return True, f"{endpoint.origin} acknowledged a test message with {result.status}"
        return False, f"{endpoint.origin}: {with_response(result.error or '', result.response)}"


def _encoded(body: str, message_id: str, limit: int) -> bytes:
    if not message_id or not message_id.isascii() or not message_id.isprintable() or " " in message_id:
        raise InvalidPayload("message_id", "printable ASCII without spaces is needed")
    try:
        content = body.encode()
    except UnicodeEncodeError:
        raise InvalidPayload(message_id, f"its body can't be sent: {NOT_WRITABLE}") from None
    if len(content) > limit:
        raise InvalidPayload(
            message_id, f"its body has {len(content)} bytes, {limit} are allowed (max_body_bytes)"
        )
    return content


def _meaning(status: int, follows: bool) -> str:
    if 300 <= status < 400:
        return f"answered {status}: {FOLLOWED if follows else 'redirects are not followed'}"
    if status == 410:
        return "answered 410: the receiver is gone"
    refusal = ": the credentials are refused" if status in (401, 403) else ""
    return _advised(f"answered {status}{refusal}", status)


def _advised(reason: str, status: int | None = None) -> str:
    """Return why a message wasn't acknowledged, and a hint what to do if there is one."""
    hint = receiver_hint(status if status is not None else reason)
    return f"{reason}; {hint}" if hint else reason
