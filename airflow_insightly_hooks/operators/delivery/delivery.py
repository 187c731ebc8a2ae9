"""Delivering payloads to one receiver in one try of a task, in one batch or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome, about_of
from airflow_insightly_hooks.core.delivery.ledger import IN_DOUBT, Ledger
from airflow_insightly_hooks.core.delivery.report import Failure, Tally, make_report
from airflow_insightly_hooks.core.delivery.report_types import Report
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.payload import Payload, why_undeliverable
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.operators.delivery import metrics
from airflow_insightly_hooks.operators.delivery.concurrent_posts import ConcurrentPosts
from airflow_insightly_hooks.operators.delivery.ledger_writer import LedgerWriter
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnections
    from airflow_insightly_hooks.hooks.post.post_result import PostResult
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

__all__ = ["Delivery", "expect", "note_receiver", "record_unsent"]

UNSENT = "not sent: the task ended before its turn came"
LONGEST_RECEIVER = 500


class Delivery:
    """POSTs payloads to a receiver, and records and reports the results.

    :param hook: the hook of the receiver, whose connection was checked.
    :param writer: the ledger of this try.
    :param headers: further HTTP headers.
    :param concurrency: the most POSTs at once.
    :param give_up_after: how many failures in a row, in which nothing could be sent, end the try; 0: never.
    :param is_stopped: whether the task was told to end.
    :param log: the log for progress and failures.
    :param ti: the task instance, for the tags of metrics; ``None`` outside of Airflow.
    :param progress: the progress log, if it is shared with other deliveries.
    :ivar tally: the counts so far.
    :ivar retry_after: the longest time that the receiver asked to wait, in seconds; ``None`` if it did not.
    """

    def __init__(
        self,
        hook: WebhookHook,
        writer: LedgerWriter,
        *,
        headers: Mapping[str, str] | None,
        concurrency: int,
        give_up_after: int,
        is_stopped: Callable[[], bool],
        log: Any,
        ti: Any,
        progress: DeliveryProgress | None = None,
    ) -> None:
        self._hook, self._writer = hook, writer
        self._headers = headers
        self._concurrency, self._give_up_after = concurrency, give_up_after
        self._is_stopped, self._log = is_stopped, log
        self._tags = metrics.tags_of(ti)
        self._failures: dict[str, Failure] = {}
        self._last: ConcurrentPosts | None = None
        self._started_at = datetime.now(timezone.utc)
        self.tally = Tally(0, time.monotonic())
        self._progress = progress or DeliveryProgress(log)
        self._progress.add(self.tally)
        note_receiver(writer.ledger, hook, str(hook.get_conn()))
        self.retry_after: float | None = None

    @property
    def writer(self) -> LedgerWriter:
        """The writer of this try's ledger."""
        return self._writer

    @property
    def ledger(self) -> Ledger:
        """The ledger of this try."""
        return self._writer.ledger

    @property
    def failures(self) -> Mapping[str, Failure]:
        """Why messages were not acknowledged in this try, by message id."""
        return self._failures

    @property
    def has_given_up(self) -> bool:
        """Whether the try has ended after ``give_up_after`` failures in a row."""
        return self._last is not None and self._last.has_given_up

    def log_payloads_in_doubt(self, messages: Iterable[str], receiver: str = "") -> None:
        """Log and count the messages that an earlier try has left in doubt.

        :param receiver: the beginning of the log line.
        """
        in_doubt = sum(self._writer.ledger[message].state == IN_DOUBT for message in messages)
        if in_doubt:
            self._log.info(
                "%s%s in doubt: an earlier try was interrupted, and may have sent %s",
                *(receiver, counted(in_doubt, "payload"), "it" if in_doubt == 1 else "them"),
            )
            metrics.count_in_doubt(in_doubt, self._tags)

    def post(self, queue: SendQueue) -> None:
        """POST each payload of the queue at most once, and record the results."""
        self.tally.to_send += len(queue)
        self._last = posts = ConcurrentPosts(
            queue,
            self._writer,
            self._send,
            self._connections,
            self._hook.rate_limit,
            concurrency=self._concurrency,
            give_up_after=self._give_up_after,
            is_secured=self._hook.get_conn().is_secured,
            is_stopped=self._is_stopped,
            log=self._log,
            tags=self._tags,
            progress=self._progress,
            tally=self.tally,  # the limit of failures in the log is for the try, not the batch
        )
        try:
            posts.run()
        finally:
            self._failures |= posts.failures
            if posts.retry_after is not None:
                self.retry_after = max(self.retry_after or 0.0, posts.retry_after)

    @cached_property
    def _connections(self) -> KeptConnections:
        """The connections of the try. After a surplus answer, none of the receiver's is used again."""
        return self._hook.keep_connections()

    def _send(self, payload: Payload, is_last: bool) -> PostResult:
        return self._hook.send(
            payload["body"],
            message_id=payload["message_id"],
            headers=self._headers,
            waits=False,
            connections=self._connections,
            is_last=is_last,
        )

    def record_unsent(self, payloads: Iterable[Payload]) -> None:
        """Record in the ledger why payloads were not sent in this try, if it can be written."""
        record_unsent(
            self._writer, (p for p in payloads if p["message_id"] not in self._failures), self.why_unsent
        )

    def why_unsent(self, message: str) -> str:
        """Return why a message that still waits was not sent."""
        return self._last.why_unsent(message) if self._last is not None else UNSENT

    def report(
        self,
        payloads: Iterable[Payload],
        why_unsent: Callable[[str], str] | None = None,
        report_count: int = 1,
    ) -> Report:
        """Return the report of this try.

        :param why_unsent: message id -> why it was not tried; ``None`` uses the method ``why_unsent``.
        :param report_count: how many reports share the size limit of one.
        """
        return make_report(
            payloads,
            self._writer.ledger,
            self._failures,
            why_unsent or self.why_unsent,
            self._started_at,
            datetime.now(timezone.utc),
            report_count,
        )

    def log_failures_and_count_try(self, undelivered: int) -> None:
        """Log a table of failures, and send the metrics of the try.

        :param undelivered: how many payloads are undelivered after the try.
        """
        if self.tally.acknowledged:
            self._log.info("Delivered: %s", self.tally.list_delivered())
        if table := self.tally.table():
            self._log.info("%s", table)
        metrics.count_try(self.tally, undelivered, self._tags)


def note_receiver(ledger: Ledger, hook: WebhookHook, receiver: str | None) -> None:
    """Record in the ledger where its messages go.

    :param receiver: the URI without user information; ``None`` if it is unknown.
    """
    if hook.conn_id is not None:
        ledger.about["conn_id"] = hook.conn_id
    if receiver is not None:
        ledger.about["receiver"] = receiver[:LONGEST_RECEIVER]


def expect(ledger: Ledger, payloads: Iterable[Payload]) -> None:
    """Record in the ledger which change each message is about."""
    for payload in payloads:
        about = (payload["record_type"], payload["record_id"], payload["event"], payload["changed_at"])
        ledger.expect(payload["message_id"], about_of(*about))


def record_unsent(
    writer: LedgerWriter, payloads: Iterable[Payload], why_unsent: Callable[[str], str]
) -> None:
    """Record in the ledger why payloads that still wait were not sent, if it can be written.

    :param why_unsent: message id -> the reason, for payloads that have a body.
    """
    ledger, now = writer.ledger, datetime.now(timezone.utc)
    are_some = False
    for payload in payloads:
        if ledger.is_settled(message := payload["message_id"]):
            continue
        reason = why_undeliverable(payload)
        error = why_unsent(message) if reason is None else f"no body can be built: {reason}"
        ledger.keep_outcome(message, PostOutcome(now, 0.0, None, error, is_sent=False))
        are_some = True
    if are_some and not writer.is_lost:
        with suppress(Exception):  # no message depends on it
            writer.write()
