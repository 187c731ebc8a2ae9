"""What one webhook of a workflow has to send in a task that reads its changes batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk.observability import stats

from airflow_insightly_hooks.core.delivery.ledger import IN_DOUBT
from airflow_insightly_hooks.core.delivery.report import Failure, Tally, make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.detection.changes import RecordChange
from airflow_insightly_hooks.core.errors import InvalidState
from airflow_insightly_hooks.core.payload import Payload, build_body
from airflow_insightly_hooks.core.records import CUSTOM_FIELDS
from airflow_insightly_hooks.core.workflow.definition import Webhook
from airflow_insightly_hooks.operators.delivery.delivery_try import Delivery, LedgerWriter, count_try
from airflow_insightly_hooks.operators.payload import id_of, payload_of

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["BatchDelivery"]

GIVE_UP_AFTER = 20
"""Failures in a row in which nothing could be sent, until the receiver isn't tried any more in this try."""
LEFT = "not sent again: its record has left the window, or no longer meets the criteria"
UNREAD = "not sent again yet: the window was not read to its end"
UNSENT = "not sent: the task ended before its turn came"


class BatchDelivery:
    """The messages of one webhook, in one try.

    A message is noted in the ledger before anything else is done about it, and stays there until it is
    acknowledged; so what a later try doesn't come across any more is missed.

    :param webhook: what is sent; its ``fields`` and ``envelope`` rendered.
    :param scope: what its messages belong to.
    :param record_type: the records' type.
    :param hook: the receiver, checked.
    :param writer: the ledger of this try.
    :param custom_dates: returns the names of custom fields that hold dates; asked only if records have some.
    :param is_stopped: whether the task is to end.
    :param log: where progress and failures go.
    :param tags: what metrics are tagged with.
    :ivar retry_after: the longest that the receiver asked to wait, in seconds; ``None`` where it didn't.
    """

    def __init__(
        self,
        webhook: Webhook,
        scope: str,
        record_type: str,
        hook: WebhookHook,
        writer: LedgerWriter,
        custom_dates: Callable[[], frozenset[str]],
        *,
        is_stopped: Callable[[], bool],
        log: Any,
        tags: dict[str, str],
    ) -> None:
        self._webhook, self._scope, self._record_type = webhook, scope, record_type
        self._hook, self._writer, self._ledger = hook, writer, writer.ledger
        self._custom_dates = custom_dates
        self._is_stopped, self._log, self._tags = is_stopped, log, tags
        self._unseen = {message for message, _ in self._ledger.unacknowledged()}
        self._failures: dict[str, Failure] = {}
        self._tally = Tally(0, time.monotonic())
        self._last: Delivery | None = None
        self._started_at = datetime.now(timezone.utc)
        self.retry_after: float | None = None
        in_doubt = sum(self._ledger[message].state == IN_DOUBT for message in self._unseen)
        if in_doubt:
            log.info("%s: %d payloads are in doubt: an earlier try was interrupted", webhook.name, in_doubt)
            stats.incr("insightly_webhook.in_doubt", in_doubt, tags=tags)

    @property
    def is_lost(self) -> bool:
        """Whether a later try of the task has the ledger."""
        return self._writer.is_lost

    def expect(self, changes: Iterable[RecordChange]) -> None:
        """Note the changes' messages, and store that."""
        for change in changes:
            message = id_of(change, self._scope)
            self._unseen.discard(message)
            self._ledger.expect(message, f"{change['record_id']} {change['event']}")
        self._writer.write()

    def drop(self, changes: Iterable[RecordChange]) -> None:
        """Forget messages that are not to be sent after all."""
        self._ledger.forget([id_of(change, self._scope) for change in changes])

    def deliver(self, changes: Iterable[RecordChange]) -> None:
        """POST what is not acknowledged, once each, and record what came of it."""
        if self._last is not None and self._last.has_given_up:
            return
        payloads = self._payloads(c for c in changes if not self._ledger[id_of(c, self._scope)].is_settled)
        if payloads:
            self._post(payloads)
        archived = self._ledger.archive_acknowledged()
        self._writer.write()  # the archive is stored before the entries go
        self._ledger.forget(archived)

    def _post(self, payloads: list[Payload]) -> None:
        self._last = work = Delivery(
            SendQueue(payloads, self._ledger, ordered=False),
            self._writer,
            self._send,
            self._hook.rate_limit,
            concurrency=self._webhook.concurrency,
            give_up_after=GIVE_UP_AFTER,
            is_secured=self._hook.get_conn().is_secured,
            is_stopped=self._is_stopped,
            log=self._log,
            tags=self._tags,
            tally=self._tally,  # failures that are logged one by one are so many a try, not a batch
        )
        self._tally.to_send += len(payloads)
        try:
            work.run()
        finally:
            self._failures |= work.failures
            if work.retry_after is not None:
                self.retry_after = max(self.retry_after or 0.0, work.retry_after)

    def _send(self, payload: Payload) -> Any:
        return self._hook.send(
            payload["body"],
            message_id=payload["message_id"],
            headers=self._webhook.headers or None,
            waits=False,
        )

    def _payloads(self, changes: Iterable[RecordChange]) -> list[Payload]:
        webhook = self._webhook
        return [
            payload_of(
                change,
                self._scope,
                build_body(
                    change["record"],
                    record_type=change["record_type"],
                    envelope=webhook.envelope,
                    date_format=webhook.date_format,
                    timezone=webhook.timezone,
                    fields=webhook.fields,
                    custom_date_fields=self._custom_dates() if change["record"].get(CUSTOM_FIELDS) else (),
                ),
            )
            for change in changes
        ]

    # --- what came of it -----------------------------------------------------------------------------------

    def may_go_on(self) -> bool:
        """Return whether a later try can POST something, after the window was read to its end."""
        return any(
            not self._ledger[message].is_settled and message not in self._unseen
            for message, _ in self._ledger.unacknowledged()
        )

    def report(self, *, is_read: bool, share: int) -> Report:
        """Return the report of the try, and log and count what it says.

        :param is_read: whether the window was read to its end.
        :param share: how many reports share the room that there is for one.
        """
        self._ledger.forget(self._ledger.archive_acknowledged())
        report = make_report(
            self._left(),
            self._ledger,
            self._failures,
            lambda message: self._why_unsent(message, is_read=is_read),
            self._started_at,
            datetime.now(timezone.utc),
            share,
        )
        undelivered, delivered = report["total"], len(self._ledger.archive)
        report["total"] += delivered
        report["delivered"] = delivered
        report["attempts"] += self._ledger.archived_attempts
        self._log.info(
            "%s: %d of %d payloads delivered, %d POSTs in this try",
            self._webhook.name,
            delivered,
            report["total"],
            self._tally.posted,
        )
        if table := self._tally.table():
            self._log.info("%s", table)
        count_try(self._tally, undelivered, self._tags)
        return report

    def _left(self) -> Iterator[Payload]:
        """Yield what is undelivered, without bodies."""
        for message, about in self._ledger.unacknowledged():
            record_id, _, event = about.partition(" ")
            if not record_id.isdecimal():
                raise InvalidState(self._webhook.name, "the ledger doesn't say what a message is about")
            yield {
                "message_id": message,
                "record_type": self._record_type,
                "record_id": int(record_id),
                "event": event,
                "changed_at": "",
                "body": "",
            }

    def _why_unsent(self, message: str, *, is_read: bool) -> str:
        if message in self._unseen:
            return LEFT if is_read else UNREAD
        return self._last.why_unsent(message) if self._last is not None else UNSENT
