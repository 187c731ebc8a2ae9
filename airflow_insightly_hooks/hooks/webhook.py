"""POSTing a webhook's body to a receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial

from airflow.sdk import BaseHook

from airflow_insightly_hooks.core.delivery.report import with_response
from airflow_insightly_hooks.core.errors import InvalidPayload, WorkerExhausted
from airflow_insightly_hooks.hooks.connection_extras import check_type
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
"""The earlier name of what ``send`` returns."""

CLOCK_TOLERANCE = 300.0
"""Seconds: what Standard Webhooks has receivers accept of a timestamp's distance."""
MOST_REDIRECTS = 5
FOLLOWED = f"only 307 and 308 to the same scheme, host and port are followed, {MOST_REDIRECTS} at most"


class WebhookHook(BaseHook):
    """POSTs bodies to one receiver.

    :param webhook_conn_id: an Airflow connection of type ``insightly_webhook``; the reference lists its
        fields.
    :param uri: a receiver's URI instead of a connection, user information allowed.
    :raises InvalidConnection: from every method, if connection or URI can't be used; before anything is sent.
    :raises WorkerExhausted: from every method but ``send``, if this worker lacks what it takes to read it.
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
        self._reading = threading.Lock()  # one rate limit for all threads, hence one reading
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
        """Return the receiver's address, checked; its text holds no credentials."""
        return self._settings.endpoint

    @property
    def conn_id(self) -> str | None:
        """The id of its connection; ``None`` where a URI stands for one."""
        return self.webhook_conn_id if self._uri is None else None

    @property
    def receiver(self) -> ReceiverSettings:
        """What connection or URI say of the receiver, checked; it holds credentials."""
        return self._settings

    @property
    def web_url(self) -> str:
        """The address of a page that shows what the receiver got; an empty text where none is named."""
        return self._settings.web_url

    @property
    def rate_limit(self) -> RateLimit:
        """The receiver's ``requests_per_second``, for callers that send without waiting."""
        return self._settings.rate_limit

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check headers that are to be given to ``send``.

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
        """Return what ``send`` is to be given to use connections again; its owner ends them."""
        return KeptConnections(self._settings.transport, self._is_taken)

    def _is_taken(self, answer: Response) -> bool:
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
        """POST a body once and say what became of it; may be called from several threads at once.

        :param body: the exact text to send, in UTF-8.
        :param message_id: goes out as ``webhook-id``.
        :param headers: further headers; over the connection's, under the protected ones.
        :param waits: whether to wait here for the turn that ``requests_per_second`` gives. A caller that
            passes ``False`` takes its turn from ``rate_limit``.
        :param connections: what ``keep_connections`` has returned, to use a connection again; what came of
            the POST may then be decided later (``PostResult.provisional``). ``None``: one of its own.
        :param is_last: whether its connection isn't needed any more.
        :param keep_response: whether the result holds the beginning of a failing receiver's response;
            ``None``: as the connection says.
        :raises InvalidPayload: if body or headers can't be sent; nothing was.
        """
        try:
            settings = self._settings
        except WorkerExhausted as lack:
            return PostResult(acknowledged=False, error=str(lack), sent=False, is_own_fault=True)
        content = _encoded(body, message_id, settings.max_body_bytes)
        if waits:
            settings.rate_limit.wait()
        lines = self._headers(content, message_id, headers or {})  # with the time: that of the POST
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
        fields = dict(reversed(answer.headers))  # the first of several counts
        self._check_clock(fields.get("date"))
        now = datetime.now(timezone.utc)  # ours: the receiver's clock may be any
        told = (retry_after(value, now) for name, value in answer.headers if name == "retry-after")
        delay = next((seconds for seconds in told if seconds is not None), None)
        result = partial(
            PostResult,
            status=answer.status,
            retry_after=delay,
            elapsed=elapsed,
            provisional=provisional,
            response=self._kept_response(answer, headers or {}, keep_response),
        )
        if 200 <= answer.status < 300:
            if answer.is_early:  # the receiver can't know the whole message
                error = f"answered {answer.status} before the message was completely sent"
                return result(acknowledged=False, error=error)
            if settings.expect_body not in answer.body:
                error = f"answered {answer.status} without the text that is expected (expect_body)"
                return result(acknowledged=False, error=error)
            return result(acknowledged=True, error=answer.note)
        gone = answer.status == 410 or fields.get("webhook-delivery", "").strip().lower() == "abort-message"
        return result(acknowledged=False, error=_meaning(answer.status, settings.allow_redirects), gone=gone)

    def _kept_response(self, answer: Response, headers: Mapping[str, str], keep: bool | None) -> str | None:
        """Return what is to be shown of an answer; only failures are, and only where that is asked for."""
        keep = self._settings.keep_response if keep is None else keep
        if not keep or self._is_taken(answer):
            return None
        credentials = credentials_of(self._settings, headers)
        excerpts = self._excerpts
        if excerpts is None or excerpts.credentials != credentials:
            self._excerpts = excerpts = ResponseExcerpts(credentials)  # once for most tasks
        return excerpts.excerpt(answer)

    def _check_clock(self, date: str | None) -> None:
        """Warn, once, where the receiver's clock and ours differ: it may refuse our timestamps."""
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
        """POST, and where the connection allows it go where redirects lead; it is one attempt."""
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
            except NotDelivered as failure:  # what redirected has read it
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
        protected = {  # the last three as their specification writes them
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
        """Return the headers that ``send`` would POST, for people to read: no value in them is a secret.

        :raises InvalidPayload: if body or headers can't be sent.
        """
        content = _encoded(body, message_id, self._settings.max_body_bytes)
        lines = self._headers(content, message_id, headers or {})
        hidden = {name.lower() for name in self._settings.headers} - {name.lower() for name in headers or {}}
        shown = {name: shown_value(name, value, is_hidden=name.lower() in hidden) for name, value in lines}
        return {**shown, "Content-Length": str(len(content))}

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the receiver answers, and a sentence for the person who pressed the button.

        An empty JSON object is POSTed under an id that says so: there is no other way to see whether the
        credentials are right.
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
        raise InvalidPayload(message_id, "its body holds a lone surrogate, which has no UTF-8") from None
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
    """Return why a message wasn't acknowledged, and what to do where that is known."""
    hint = receiver_hint(status if status is not None else reason)
    return f"{reason}; {hint}" if hint else reason
