"""POSTing payloads to a receiver until it has acknowledged them, or the attempts are used up."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_insightly_hooks.core import delivery
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery import Ledger, Report, UndeliveredPayload
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidConnection, UndeliveredError
from airflow_insightly_hooks.core.payload import Payload, check_payloads
from airflow_insightly_hooks.hooks.endpoint import Endpoint
from airflow_insightly_hooks.operators.links import ReceiverLink
from airflow_insightly_hooks.operators.retry import RetryAfterPolicy
from airflow_insightly_hooks.operators.withheld import (
    Withheld,
    WithheldField,
    WithheldUri,
    WithheldUriField,
    disclosed,
    is_template,
)

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryPolicy
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_insightly_hooks.hooks.webhook import Acknowledgement, WebhookHook

__all__ = ["UndeliverableError", "WebhookOperator"]

DEFAULT_CONNECTION = "webhook_default"
LEDGER_INTERVAL = 1.0
"""Seconds between two writes of the ledger; what a kill can cost is the acknowledgements of so long."""
RETRY_AFTER = RetryAfterPolicy()
UNDELIVERED_LISTED = 200
"""Undelivered payloads that a report lists one by one; a report stays well below XCom's bounds."""


class UndeliverableError(UndeliveredError, AirflowFailException):
    """What is undelivered will never be taken by the receiver (410): the task fails without a retry."""


class WebhookOperator(BaseOperator):
    """POSTs payloads to a receiver and reports what it acknowledged.

    Three attempts are made in all, through the task's own retries; a retry POSTs only what is not yet
    acknowledged, and so does a cleared task. What has been acknowledged is kept in the task state store.

    :param payloads: the output of ``BuildPayloadOperator``; one of its chunks with ``.expand(payloads=…)``.
    :param webhook_conn_id: the receiver: a connection of type ``insightly_webhook``.
    :param uri: the receiver's URI instead, user information allowed. It is rendered without that; but
        Airflow stores a DAG's file and what ``.expand()`` is given, so a password belongs into a template
        such as ``{{ var.value.receiver }}``, or into a connection.
    :param concurrency: how many POSTs are under way at once, at most.
    :param headers: further HTTP headers, over the connection's; not templates, and no place for secrets.
    :param retries: 2 by default, hence three attempts.
    :param retry_delay: 60 s by default; a receiver's ``Retry-After`` makes it longer, up to an hour.
    :param retry_policy: what makes it longer; ``None`` leaves the delay to the task's own.
    :raises UndeliveredError: while something is undelivered; it holds the report and names the records.
    :raises UndeliverableError: if the receiver will never take what is undelivered.
    :raises InvalidConnection: if the receiver can't be sent to; nothing was sent.
    :raises InvalidPayload: if ``payloads`` holds something else, or ``headers`` no headers; nothing was sent.

    XCom, whether the task succeeds or fails: a report ``{"total", "delivered", "undelivered", "attempts",
    "started_at", "ended_at"}``. ``undelivered`` lists the first 200 as ``{"message_id", "record_type",
    "record_id", "event", "status", "error", "attempts"}``; ``attempts`` counts POSTs.
    """

    template_fields = ("payloads", "webhook_conn_id", "uri")
    operator_extra_links = (ReceiverLink(),)
    ui_color = "#d8e8f3"

    payloads = WithheldField()
    uri = WithheldUriField()

    def __init__(
        self,
        *,
        payloads: Any,
        webhook_conn_id: str = DEFAULT_CONNECTION,
        uri: str | None = None,
        concurrency: int = 8,
        headers: Mapping[str, str] | None = None,
        retries: int | None = 2,
        retry_delay: timedelta | float = timedelta(seconds=60),
        retry_policy: RetryPolicy | None = RETRY_AFTER,
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, retry_policy=retry_policy, **kwargs)
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        _check_uri(uri)
        _check_connection_id(webhook_conn_id)
        if uri is not None and webhook_conn_id != DEFAULT_CONNECTION:
            raise ValueError("webhook_conn_id and uri name two receivers: give one")
        if headers is not None and not isinstance(headers, Mapping | Withheld):
            raise ValueError("headers must map names to values")
        self.payloads = payloads
        self.webhook_conn_id = webhook_conn_id
        self.uri = uri
        self.concurrency = concurrency
        self.headers = disclosed(headers)
        self._stopped = False  # no threading.Event: Airflow copies operators, locks included

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share; the serialized DAG shows no secrets of them."""
        _check_uri(kwargs.get("uri"))
        _check_connection_id(kwargs.get("webhook_conn_id"))
        shown: tuple[tuple[str, type, Callable[[Any], object]], ...] = (
            ("payloads", list, Withheld),
            ("uri", str, WithheldUri),
            ("headers", Mapping, Withheld),
        )
        for name, kind, withhold in shown:
            if isinstance(kwargs.get(name), kind):
                kwargs[name] = withhold(kwargs[name])
        return super().partial(**kwargs)

    def execute(self, context: Context) -> Report:
        """Send what is not acknowledged yet; return the report."""
        # The POST's client is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.webhook import WebhookHook

        payloads = check_payloads(disclosed(self.payloads))
        hook = WebhookHook(self.webhook_conn_id, uri=disclosed(self.uri))
        receiver = hook.get_conn()
        hook.check_headers(self.headers or {})
        ti = context.get("ti")
        # Airflow raises max_tries when a task is cleared, and at no retry.
        book = _Book(context["task_state_store"], generation=ti.max_tries if ti is not None else 0)
        outstanding = set(book.ledger.outstanding(payload["message_id"] for payload in payloads))
        to_send = [payload for payload in payloads if payload["message_id"] in outstanding]
        self.log.info(
            "Sending %d of %d payloads to %s (%s), %d are acknowledged already",
            len(to_send),
            len(payloads),
            receiver,
            f"connection {self.webhook_conn_id!r}" if self.uri is None else "uri",
            len(payloads) - len(to_send),
        )
        started_at = datetime.now(timezone.utc)
        outcomes: dict[str, Acknowledgement] = {}
        try:
            self._deliver(to_send, hook, book, outcomes)
        finally:  # after the task's time-out, too, the report tells what is undelivered
            report = _report(payloads, book.ledger, outcomes, started_at)
            self.log.info(
                "%d of %d payloads delivered, %d POSTs in %.1f s",
                report["delivered"],
                report["total"],
                len(outcomes),
                (datetime.now(timezone.utc) - started_at).total_seconds(),
            )
            if report["delivered"] < report["total"] and ti is not None:
                # Airflow pushes what a task returns, hence nothing for one that fails.
                ti.xcom_push(key="return_value", value=report)
        if report["delivered"] < report["total"]:
            raise _undelivered(report, payloads, book.ledger, outcomes)
        return report

    def on_kill(self) -> None:
        """Send nothing more; what is under way may end, and is recorded."""
        self._stopped = True

    def _deliver(
        self,
        payloads: Iterable[Payload],
        hook: WebhookHook,
        book: _Book,
        outcomes: dict[str, Acknowledgement],
    ) -> None:
        """POST each payload once, and put what became of it into ``outcomes``, by message id."""
        waiting = iter(payloads)
        under_way: dict[Future[Acknowledgement], Payload] = {}

        def collect() -> None:
            done, _ = wait(under_way, timeout=book.due_in(), return_when=FIRST_COMPLETED)
            for future in done:
                payload = under_way.pop(future)
                outcomes[payload["message_id"]] = result = future.result()
                self._record(payload, result, book.ledger)
            book.write_if_due()

        with book, ThreadPoolExecutor(self.concurrency, thread_name_prefix="webhook") as pool:
            try:
                while True:
                    for payload in islice(waiting, 0 if self._stopped else self.concurrency - len(under_way)):
                        book.ledger.posting(payload["message_id"])
                        book.write_if_due()
                        under_way[pool.submit(self._send, hook, payload)] = payload
                    if not under_way:
                        return
                    collect()
            finally:  # after the task's time-out, too, what is under way may end, and is recorded
                while under_way:
                    collect()

    def _send(self, hook: WebhookHook, payload: Payload) -> Acknowledgement:
        from airflow_insightly_hooks.hooks.webhook import Acknowledgement

        try:
            return hook.send(payload["body"], message_id=payload["message_id"], headers=self.headers)
        except InsightlyHooksError as error:
            return Acknowledgement(False, None, str(error), None, 0.0, sent=False)
        except Exception as error:  # one payload's fault must not keep back the others
            return Acknowledgement(False, None, f"unexpected {type(error).__name__}", None, 0.0)

    def _record(self, payload: Payload, result: Acknowledgement, ledger: Ledger) -> None:
        message_id = payload["message_id"]
        if result.acknowledged:
            ledger.answered(message_id, delivery.ACKNOWLEDGED)
            return
        if result.sent:
            ledger.answered(message_id, delivery.GONE if result.gone else delivery.FAILED)
            what = f"was not acknowledged, POST {ledger[message_id].attempts}"
        else:
            ledger.not_posted(message_id)
            what = "was not sent"
        about = (payload["record_type"], payload["record_id"], message_id)
        self.log.warning("%s %s (%s) %s: %s", *about, what, result.error)


def _check_uri(uri: object) -> None:
    """Refuse what can be seen to be no URI, and a template that holds a password in clear.

    Airflow logs a template that it can't render, so what is secret must come from inside of the braces.
    """
    if not isinstance(uri, str):
        return
    if not is_template(uri):
        Endpoint.from_uri(uri)
        return
    literal = re.search(r"://([^/]*)@", re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", uri))
    if literal and literal[1].strip(":"):
        raise InvalidConnection("uri", "URI", "user information in a template must be templates, too")


def _check_connection_id(webhook_conn_id: object) -> None:
    if isinstance(webhook_conn_id, str) and "://" in webhook_conn_id:
        raise InvalidConnection("webhook_conn_id", "id", "it is the id of a connection; a URI goes to uri")


class _Book:
    """The ledger in the task state store: read once, written every second and at the end."""

    def __init__(self, store: Any, generation: int) -> None:
        self._store = store
        head = store.get(delivery.HEAD)
        blocks = [store.get(key) for key in delivery.block_keys(head)]
        self.ledger = Ledger.load(head, blocks, generation)
        self._due = 0.0  # the first write comes before the first POST

    def __enter__(self) -> _Book:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.write()

    def due_in(self) -> float:
        """Return the seconds until the next write is due."""
        return max(0.0, self._due - time.monotonic())

    def write_if_due(self) -> None:
        if not self.due_in():
            self.write()

    def write(self) -> None:
        for key, value in self.ledger.changed():
            self._store.set(key, value)
        self._due = time.monotonic() + LEDGER_INTERVAL


def _report(
    payloads: list[Payload],
    ledger: Ledger,
    outcomes: Mapping[str, Acknowledgement],
    started_at: datetime,
) -> Report:
    undelivered = [
        _undelivered_item(payload, ledger, outcomes.get(payload["message_id"]))
        for payload in payloads
        if ledger[payload["message_id"]].state != delivery.ACKNOWLEDGED
    ]
    return {
        "total": len(payloads),
        "delivered": len(payloads) - len(undelivered),
        "undelivered": undelivered[:UNDELIVERED_LISTED],
        "attempts": sum(ledger[payload["message_id"]].attempts for payload in payloads),
        "started_at": iso_time(started_at),
        "ended_at": iso_time(datetime.now(timezone.utc)),
    }


def _undelivered_item(
    payload: Payload, ledger: Ledger, outcome: Acknowledgement | None
) -> UndeliveredPayload:
    entry = ledger[payload["message_id"]]
    if outcome is not None:
        error = outcome.error
    elif entry.state == delivery.GONE:
        error = "the receiver will not take it (said in an earlier try)"
    else:
        error = "not sent: the task was stopped"
    return {
        "message_id": payload["message_id"],
        "record_type": payload["record_type"],
        "record_id": payload["record_id"],
        "event": payload["event"],
        "status": outcome.status if outcome is not None else None,
        "error": error,
        "attempts": entry.attempts,
    }


def _undelivered(
    report: Report,
    payloads: list[Payload],
    ledger: Ledger,
    outcomes: Mapping[str, Acknowledgement],
) -> UndeliveredError:
    states = {ledger[payload["message_id"]].state for payload in payloads}
    if states <= {delivery.ACKNOWLEDGED, delivery.GONE}:
        return UndeliverableError(report)
    delays = [outcome.retry_after for outcome in outcomes.values() if outcome.retry_after is not None]
    return UndeliveredError(report, max(delays, default=None))
