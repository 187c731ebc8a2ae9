"""POSTing payloads to a receiver until it has acknowledged them, or their attempts are used up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_insightly_hooks.core.bounds import MOST_CONCURRENT, check_seconds, check_whole
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, Ledger
from airflow_insightly_hooks.core.delivery.report import make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.resend_requests import read_requests
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.errors import InsightlyHooksError, InvalidConnection
from airflow_insightly_hooks.core.payload import Payload, check_payloads
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.hooks.assets import with_asset
from airflow_insightly_hooks.operators.common.payload_chunks import MissingChunkError, read_chunk
from airflow_insightly_hooks.operators.common.redacted_arguments import (
    Redacted,
    RedactedField,
    RedactedUriField,
    check_uri,
    unredacted,
)
from airflow_insightly_hooks.operators.delivery.delivery import (
    Delivery,
    expect,
    note_receiver,
    record_unsent,
)
from airflow_insightly_hooks.operators.delivery.dry_run import DRY_RUN_REASON, dry_report, dry_store
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.outcome import (
    FAIL,
    REPORT,
    MissingPayloadsError,
    UndeliverableError,
    check_on_undelivered,
    drop_event,
    judge,
    push_report,
    set_event,
)
from airflow_insightly_hooks.operators.links import ReceiverLink
from airflow_insightly_hooks.operators.retry import RETRY_AFTER
from airflow_insightly_hooks.runs.airflow_runs import is_dry_run
from airflow_insightly_hooks.runs.task_state import TaskState

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryPolicy
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["MissingChunkError", "MissingPayloadsError", "UndeliverableError", "WebhookOperator"]

DEFAULT_CONNECTION = "webhook_default"


class WebhookOperator(BaseOperator):
    """POSTs payloads to a receiver, and reports which ones the receiver acknowledged.

    A payload is POSTed up to ``1 + retries`` times (three by default), once in each try of the task. A retry
    POSTs only the payloads that are not acknowledged yet. A cleared task does the same, with new attempts.
    Acknowledgements are kept in the task state store. If a receiver answers 429 or slows down, the task
    makes fewer POSTs at once for a while.

    :param payloads: the output of ``BuildPayloadOperator``, or one of its chunks with
        ``.expand(payloads=…)``.
    :param webhook_conn_id: the receiver: a connection of type ``insightly_webhook``.
    :param uri: the receiver's URI, instead of a connection. User name and password in it are allowed. The
        rendered field does not show them, but Airflow stores a DAG's file and the arguments of ``.expand()``.
        So put a password into a template such as ``{{ var.value.receiver }}``, or into a connection.
    :param concurrency: the most POSTs at once.
    :param headers: further HTTP headers, which take precedence over the connection's. They are not templates,
        and no place for secrets.
    :param ordered: whether the changes of one record are sent one after another, in the order of
        ``changed_at``; different records are sent side by side. If one fails, later changes of the same
        record wait. ``False`` (default) promises no order.
    :param give_up_after: how many failures in a row, in which nothing could be sent, end the try (20 by
        default). The other payloads stay unsent and keep their attempts. ``None`` or 0: never.
    :param on_undelivered: what to do if a payload is undelivered after the last attempt: ``"fail"``
        (default) fails the task, ``"report"`` lets it succeed.
    :param undelivered_asset: an asset that then gets an event, with the report as its ``extra``; only with
        ``"report"``. It is added to ``outlets``. If everything is delivered it gets no event: the operator
        removes it from the task's outlets.
    :param is_dry_run: ``True``, or a run's param ``dry_run``, does everything except the POST. The log shows
        which messages would go out, without their contents; the report has ``dry_run`` and ``would_send``.
        Nothing counts as sent: a task that is cleared without a dry run sends it. ``False`` by default.
    :param retries: 2 by default, which means three attempts; 0 means one attempt. Each try reads it again.
    :param retry_delay: seconds or a ``timedelta``; 60 s by default. A receiver's ``Retry-After`` makes it
        longer, up to an hour.
    :param retry_policy: the policy that makes it longer; ``None`` waits ``retry_delay`` only.
    :raises MissingChunkError: if its chunk is no longer in XCom; nothing was sent.
    :raises UndeliveredError: if a payload is undelivered. The error has the report and names the records.
    :raises MissingPayloadsError: if messages were asked to be sent again whose payloads are gone; the others
        were sent.
    :raises UndeliverableError: if none of the undelivered payloads may be sent again before the task is
        cleared; it fails the task without a retry.
    :raises SupersededError: if a later try of this task has begun while this one was still alive.
    :raises InvalidConnection: if the receiver can't be sent to; nothing was sent.
    :raises InvalidPayload: if ``payloads`` or ``headers`` are not as described here; nothing was sent.
    :raises InvalidTime: if ``ordered`` is set, and the ``changed_at`` of a payload is not a time; nothing was
        sent.

    XCom, whether the task succeeds or fails: a report ``{"total", "delivered", "undelivered", "attempts",
    "started_at", "ended_at"}``, below 48 KB. ``undelivered`` lists up to 200 entries ``{"message_id",
    "record_type", "record_id", "event", "status", "error", "attempts"}``. If there are more,
    ``undelivered_count`` has their number. ``attempts`` is the number of POSTs.

    Metrics, tagged as Airflow tags a task's: the counters ``insightly_webhook.delivered``, ``.undelivered``
    (at the end of each try), ``.attempts`` (POSTs) and ``.in_doubt`` (payloads that an interrupted try may
    have sent), and the timing ``insightly_webhook.latency`` of each POST.
    """

    template_fields = ("payloads", "webhook_conn_id", "uri")
    operator_extra_links = (ReceiverLink(),)
    ui_color = "#d8e8f3"

    payloads = RedactedField()
    uri = RedactedUriField()

    def __init__(
        self,
        *,
        payloads: Any,
        webhook_conn_id: str = DEFAULT_CONNECTION,
        uri: str | None = None,
        concurrency: int = 8,
        headers: Mapping[str, str] | None = None,
        ordered: bool = False,
        give_up_after: int | None = 20,
        on_undelivered: str = FAIL,
        undelivered_asset: Asset | None = None,
        is_dry_run: bool = False,
        retries: int | None = 2,
        retry_delay: timedelta | float = timedelta(seconds=60),
        retry_policy: RetryPolicy | None = RETRY_AFTER,
        **kwargs: Any,
    ) -> None:
        check_seconds("retry_delay", retry_delay, or_timedelta=True)
        super().__init__(retries=retries, retry_delay=retry_delay, retry_policy=retry_policy, **kwargs)
        check_whole("concurrency", concurrency, at_least=1, at_most=MOST_CONCURRENT)
        check_uri(uri)
        _check_connection_id(webhook_conn_id)
        if uri is not None and webhook_conn_id != DEFAULT_CONNECTION:
            raise ValueError("webhook_conn_id and uri name two receivers: give one of them")
        if headers is not None and not isinstance(headers, Mapping | Redacted):
            raise ValueError("headers must be a mapping of names to values")
        if give_up_after is not None:
            check_whole("give_up_after", give_up_after, at_least=0)
        check_on_undelivered(on_undelivered)
        if undelivered_asset is not None and on_undelivered != REPORT:
            raise ValueError(
                f"undelivered_asset needs on_undelivered='{REPORT}': a failed task emits no events"
            )
        self.payloads = payloads
        self.webhook_conn_id = webhook_conn_id
        self.uri = uri
        self.concurrency = concurrency
        self.headers = unredacted(headers)
        self.ordered = ordered
        self.give_up_after = give_up_after
        self.on_undelivered = on_undelivered
        self.is_dry_run = is_dry_run
        self.undelivered_asset = undelivered_asset
        if undelivered_asset is not None:
            self.outlets = with_asset(self.outlets, undelivered_asset)
        self._stopped = False  # no threading.Event: Airflow copies operators, locks included

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Take the arguments that all mapped tasks share. The serialized DAG shows no secrets in them."""
        check_uri(kwargs.get("uri"))
        _check_connection_id(kwargs.get("webhook_conn_id"))
        if isinstance(kwargs.get("headers"), Mapping):
            kwargs["headers"] = Redacted(kwargs["headers"])
        if asset := kwargs.get("undelivered_asset"):
            kwargs["outlets"] = with_asset(kwargs.get("outlets"), asset)
        return super().partial(**RedactedField.in_partial(cls, kwargs))

    def execute(self, context: Context) -> Report:
        """Send the payloads that are not acknowledged yet; return the report."""
        # The POST's client is loaded in the worker only, so that DAGs parse fast.
        from airflow_insightly_hooks.hooks.webhook import WebhookHook

        payloads = check_payloads(read_chunk(unredacted(self.payloads), context.get("ti")))
        hook = WebhookHook(self.webhook_conn_id, uri=unredacted(self.uri))
        try:
            receiver = hook.get_conn()
            hook.check_headers(self.headers or {})
        except (InsightlyHooksError, AirflowNotFoundException) as error:
            self._record_unusable(context, hook, payloads, str(error))
            raise
        if not payloads:
            self.log.info("There are no payloads to send to %s", receiver)
            self._drop_event()
            self._check_resends(context)
            now = datetime.now(timezone.utc)
            return make_report([], Ledger(), {}, str, now, now)
        ti: Any = context.get("ti")
        writer = self._open_ledger(context)
        delivery = Delivery(
            hook,
            writer,
            headers=self.headers,
            concurrency=self.concurrency,
            give_up_after=self.give_up_after or 0,
            is_stopped=lambda: self._stopped,
            log=self.log,
            ti=ti,
        )
        delivery.log_payloads_in_doubt(payload["message_id"] for payload in payloads)
        for payload in payloads:
            writer.ledger.go_on_from(payload["message_id"], payload.get("earlier", ""))
        expect(writer.ledger, payloads)
        missing = self._missing_resends(writer.ledger, payloads)
        if is_dry_run(context, self.is_dry_run):
            record_unsent(writer, payloads, lambda _message: DRY_RUN_REASON)
            self._drop_event()
            return dry_report(self.log, payloads, writer.ledger, str(receiver))
        queue = SendQueue(payloads, writer.ledger, ordered=self.ordered)
        self.log.info(
            "Sending %d of %s to %s (%s), acknowledged already: %d",
            len(queue),
            counted(len(payloads), "payload"),
            receiver,
            f"connection {self.webhook_conn_id!r}" if self.uri is None else "uri",
            sum(writer.ledger[payload["message_id"]].state == ACKNOWLEDGED for payload in payloads),
        )
        try:
            self._post(context, delivery, queue)
        finally:  # after the task's time-out, too, the report lists the undelivered payloads
            delivery.record_unsent(payloads)
            report = delivery.report(payloads)
            self._tell(report, delivery)
            if report["delivered"] < report["total"] and ti is not None and not writer.is_lost:
                push_report(ti, report, self.log)
        if report["delivered"] == report["total"]:
            self._drop_event()
            if missing:
                push_report(ti, report, self.log)
                raise MissingPayloadsError(missing)
            return report
        may_go_on = len(SendQueue(payloads, writer.ledger, ordered=self.ordered)) > 0
        self._judge(context, payloads, delivery, report, may_go_on=may_go_on)
        self._emit_event(context, report)
        return report

    def _check_resends(self, context: Context) -> None:
        """Fail a task without payloads if messages were asked to be sent again.

        :raises MissingPayloadsError: with these messages.
        """
        if is_dry_run(context, self.is_dry_run) or not read_requests(context["task_state_store"]):
            return
        writer = self._open_ledger(context)
        if missing := self._missing_resends(writer.ledger, []):
            writer.write()
            raise MissingPayloadsError(missing)

    def _missing_resends(self, ledger: Ledger, payloads: Sequence[Payload]) -> list[str]:
        """Log that messages are sent again; return the ids of those without a payload."""
        if not ledger.requested:
            return []
        self.log.info(
            "%s asked to be sent again%s",
            "1 message was" if len(ledger.requested) == 1 else f"{len(ledger.requested)} messages were",
            ". Nothing else is sent" if ledger.is_restricted else "",
        )
        present = {payload["message_id"] for payload in payloads}
        missing = sorted(m for m in ledger.requested - present if ledger[m].state != ACKNOWLEDGED)
        if missing:
            self.log.error("%s", MissingPayloadsError(missing))
        return missing

    def _open_ledger(self, context: Context) -> LedgerWriter:
        store = TaskState(context["task_state_store"])
        is_dry = is_dry_run(context, self.is_dry_run)
        writer = LedgerWriter(dry_store(store) if is_dry else store, context.get("ti"), self.retries)
        if is_dry:
            writer.ledger.about["dry_run"] = True
        return writer

    def _record_unusable(
        self, context: Context, hook: WebhookHook, payloads: Sequence[Payload], error: str
    ) -> None:
        """Record in the ledger that the connection, or the headers, can't be used."""
        if not payloads:
            return
        writer = self._open_ledger(context)
        note_receiver(writer.ledger, hook, None)
        expect(writer.ledger, payloads)
        record_unsent(writer, payloads, lambda _message: error)

    def on_kill(self) -> None:
        """Begin no more POSTs. Those that have begun may end, and are recorded."""
        self._stopped = True

    def _post(self, context: Context, delivery: Delivery, queue: SendQueue) -> None:  # noqa: ARG002 — for subclasses
        """POST what is in the queue."""
        delivery.post(queue)

    def _judge(
        self,
        context: Context,
        payloads: Sequence[Payload],  # noqa: ARG002 — likewise
        delivery: Delivery,
        report: Report,
        *,
        may_go_on: bool,
    ) -> None:
        """End a try that has left payloads undelivered: see ``outcome.judge``."""
        judge(
            report,
            context.get("ti"),
            may_go_on=may_go_on,
            on_undelivered=self.on_undelivered,
            retry_after=delivery.retry_after,
            log=self.log,
            is_stopped=self._stopped,
        )

    def _tell(self, report: Report, delivery: Delivery) -> None:
        """Log the result of the try, and send its metrics."""
        self.log.info(
            "%d of %s delivered, %s in %.1f s",
            report["delivered"],
            counted(report["total"], "payload"),
            counted(delivery.tally.posted, "POST"),
            time.monotonic() - delivery.tally.started,
        )
        if delivery.has_given_up:
            self.log.warning(
                "Stopped after %s failures in a row (give_up_after). The other payloads are not sent yet",
                self.give_up_after,
            )
        delivery.log_failures_and_count_try(report["total"] - report["delivered"])

    def _emit_event(self, context: Context, report: Report) -> None:
        if self.undelivered_asset is not None:
            set_event(context, self.undelivered_asset, report)

    def _drop_event(self) -> None:
        if self.undelivered_asset is not None:
            drop_event(self, self.undelivered_asset)


def _check_connection_id(webhook_conn_id: object) -> None:
    if isinstance(webhook_conn_id, str) and "://" in webhook_conn_id:
        raise InvalidConnection(
            "webhook_conn_id", "id", "it must be the id of a connection. For a URI use the argument uri"
        )
