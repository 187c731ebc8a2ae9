"""Concurrent POSTs, with the ledger written before and during them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from queue import Empty
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_insightly_hooks.core.delivery.cpu_limit import MEASURE_INTERVAL
from airflow_insightly_hooks.core.delivery.delivery_record import PostOutcome
from airflow_insightly_hooks.core.delivery.ledger import ACKNOWLEDGED, FAILED, GONE
from airflow_insightly_hooks.core.delivery.receiver_limit import ReceiverLimit
from airflow_insightly_hooks.core.delivery.report import Failure, Tally
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.payload import Payload
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.operators.delivery import ledger_writer, metrics
from airflow_insightly_hooks.operators.delivery.post_threads import Attempt, PostThreads
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnection, KeptConnections
    from airflow_insightly_hooks.hooks.post.post_result import PostResult
    from airflow_insightly_hooks.hooks.rate_limit import RateLimit

__all__ = ["ConcurrentPosts"]

RECORD_WITHIN = 1.25
"""Ledger intervals: no POST begins if an answer waits longer to be recorded. A write takes less than one."""
NOTE_INTERVAL = 0.01
"""Seconds between two rounds of processing answers, while there is enough to send."""
WARNINGS = 20
"""The most failures that are logged one by one; further ones are counted."""
LARGEST_BATCH = 5_000

STOPPED = "not sent: the task was stopped"
TAKEN_OVER = "not sent: a later try of this task has taken over"
NOT_RECORDED = "not sent: the ledger can't be written"
HELD_BACK = "not sent: an earlier change of the same record is undelivered"
REFUSED = "refused before it was sent"
SURPLUS = "in doubt: the receiver sent a surplus answer on its connection"
BROKEN = "in doubt: its connection broke before the next answer came"


class ConcurrentPosts:
    """POSTs each payload of a queue at most once.

    :param send: makes one POST; its second argument says that the connection is no longer needed after it.
        Several threads call it.
    :param connections: the connections that are reused; all are closed at the end.
    :param rate_limit: says when a POST may begin.
    :param concurrency: the most POSTs at once.
    :param give_up_after: how many failures in a row, in which nothing could be sent, end the try; 0: never.
    :param is_secured: whether the receiver is reached by TLS.
    :param is_stopped: whether the task was told to end.
    :param log: the log for progress and failures.
    :param tags: the tags of metrics.
    :param tally: the counts of the try, which are added to.
    :param progress: logs the progress from time to time.
    :ivar failures: the messages that were tried and not acknowledged, by message id.
    :ivar retry_after: the longest time that the receiver asked to wait, in seconds; ``None`` if it did not.
    """

    def __init__(
        self,
        queue: SendQueue,
        writer: ledger_writer.LedgerWriter,
        send: Callable[[Payload, bool], PostResult],
        connections: KeptConnections,
        rate_limit: RateLimit,
        *,
        concurrency: int,
        give_up_after: int,
        is_secured: bool,
        is_stopped: Callable[[], bool],
        log: Any,
        tags: dict[str, str],
        tally: Tally,
        progress: DeliveryProgress,
    ) -> None:
        self._queue, self._writer = queue, writer
        self._ledger = writer.ledger
        self._receiver_limit = ReceiverLimit(concurrency)
        self._threads = PostThreads(
            send,
            connections,
            self._receiver_limit,
            rate_limit,
            goes_alone=queue.is_awaited,
            give_up_after=give_up_after,
            record_within=RECORD_WITHIN * ledger_writer.LEDGER_INTERVAL,
            is_secured=is_secured,
            is_stopped=is_stopped,
        )
        self._log, self._tags = log, tags
        self._prepared: deque[Payload] = deque()  # recorded as in doubt, not given to the threads yet
        self._provisional: dict[
            KeptConnection, list[Attempt]
        ] = {}  # results that count once these have ended
        self._noted = 0  # how many answers the next write records
        self._batch = self._least_batch = 2 * concurrency
        self._batch_at = float("-inf")
        self.failures: dict[str, Failure] = {}
        self.retry_after: float | None = None
        self._tally = tally
        self._posted_before = self._tally.posted
        self._progress = progress

    def run(self) -> None:
        """Send the queue; return when it is empty, or no more may be sent, and the results are recorded."""
        try:
            self._prepare()
            while self._threads.have_work or (self._provisional and not self._threads.is_held):
                self._collect()
                self._prepare()
        finally:  # after the task's time-out, too, POSTs may end, and are recorded
            try:
                self._finish()
            except AirflowTaskTimeout:  # it comes only once, but may come now
                self._finish()
                raise

    @property
    def has_given_up(self) -> bool:
        """Whether the try has ended after ``give_up_after`` failures in a row."""
        return self._threads.has_given_up

    def why_unsent(self, message_id: str) -> str:
        """Return why a message that still waits was not sent."""
        if self._writer.is_lost:
            return TAKEN_OVER
        if self._writer.is_broken:
            return NOT_RECORDED
        if message_id in self._held_back:
            return HELD_BACK
        if self.has_given_up:
            return f"not sent: the receiver couldn't be reached {self._threads.unreachable} times in a row"
        if self._threads.lack is not None:
            return f"not sent: {self._threads.lack}"
        return STOPPED

    @cached_property
    def _held_back(self) -> set[str]:
        return self._queue.held_back()

    # --- sending -----------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Record the next batch as in doubt, so that the ledger knows of each POST before it goes out.

        A batch should last about as long as the interval of writes. If the task is killed, all messages of a
        larger one would be in doubt, also those that were not sent. So the batch grows while it lasts less
        than the interval, and faster while it lasts less than a quarter of it. While a batch is recorded, the
        rest of the one before goes out.
        """
        self._threads.expect_more(are_expected=self._has_more)
        if self._threads.is_held or not self._is_running_out:
            return
        now = time.monotonic()
        if now - self._batch_at < ledger_writer.LEDGER_INTERVAL:
            growth = 2 if now - self._batch_at > ledger_writer.LEDGER_INTERVAL / 4 else 4
            self._batch = min(self._batch * growth, LARGEST_BATCH)
        else:
            self._batch = max(self._batch // 2, self._least_batch)
        self._batch_at = now
        for payload in self._queue.take(self._batch):
            self._prepared.append(payload)
            self._ledger.posting(payload["message_id"])
        if self._prepared:
            self._record()
            self._threads.give(self._prepared, are_all=not len(self._queue))

    def _record(self) -> None:
        noted, self._noted = self._noted, 0
        self._posted_before = self._tally.posted
        self._writer.write()
        self._threads.recorded(noted)

    def _record_if_due(self) -> None:
        if not self._writer.due_in():
            self._put_off()
            self._record()

    def _put_off(self) -> None:
        """Mark the messages as unsent that a slower receiver will not get within the interval."""
        at_once = max(self._tally.posted - self._posted_before, self._least_batch)
        self._threads.take_back(self._prepared, but=at_once)
        if self._prepared:
            for payload in self._prepared:
                self._ledger.not_posted(payload["message_id"])
            self._queue.put_back(self._prepared)
            self._prepared.clear()
            self._batch = at_once

    @property
    def _has_more(self) -> bool:
        """Whether there is more to send now, or may be once the present POSTs have ended."""
        return self._queue.has_free or (bool(len(self._queue)) and self._threads.have_work)

    @property
    def _is_running_out(self) -> bool:
        return self._threads.ready <= self._batch // 4

    def _collect(self) -> None:
        """Wait for an answer, and process all that have come; write the ledger if that is due."""
        wait = self._writer.due_in()
        if self._threads.are_limited:  # so that the limit ends soon after answers take longer
            wait = min(wait, MEASURE_INTERVAL)
        try:
            self._note(self._threads.done.get(timeout=wait))
            if not self._is_running_out:
                time.sleep(NOTE_INTERVAL)  # waking for each answer would take time from the threads
            while True:
                self._note(self._threads.done.get_nowait())
        except Empty:
            self._threads.check()
        self._settle()
        self._threads.measure_cpu()
        self._record_if_due()
        self._progress.log_if_due()

    def _finish(self) -> None:
        """Begin no more POSTs, wait for the present ones, and write the ledger. It may be called again."""
        self._threads.close()
        self._threads.take_back(self._prepared)
        while self._prepared:
            self._ledger.not_posted(self._prepared[0]["message_id"])
            self._prepared.popleft()
        while self._threads.have_work:
            is_writable = not self._writer.is_lost and not self._writer.is_broken
            with suppress(Empty):
                self._note(self._threads.done.get(timeout=self._writer.due_in() if is_writable else None))
            if is_writable:
                with suppress(Exception):  # the last write reports it
                    self._record_if_due()
        self._threads.join()
        self._settle()
        self._writer.write()

    # --- results -----------------------------------------------------------------------------------------

    def _note(self, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        self._noted += 1
        if attempt.result.sent:
            self._tally.posted += 1
            metrics.time_post(attempt.result.elapsed, self._tags)
        if attempt.result.provisional is None:
            self._count(attempt)
        else:
            self._provisional.setdefault(attempt.result.provisional.connection, []).append(attempt)

    def _settle(self) -> None:
        """Count the answers of connections that have ended; send messages again whose answers don't count."""
        for connection in [one for one in self._provisional if one.valid_answers is not None]:
            again = []
            for attempt in self._provisional.pop(connection):
                result = attempt.result
                # If a failure belongs to another message, the next try at worst sends this one again.
                is_failure = not (result.acknowledged or result.gone or connection.has_surplus)
                if is_failure or result.provisional is None or result.provisional.counts:
                    self._count(attempt)
                else:
                    again.append(attempt.payload)
            self._send_again(again, connection)

    def _send_again(self, payloads: list[Payload], connection: KeptConnection) -> None:
        """Leave these messages in doubt, and send them again if they have attempts left."""
        if not payloads:
            return
        reason = SURPLUS if connection.has_surplus else BROKEN
        self._log.warning("%s: the answer doesn't count: %s", counted(len(payloads), "payload"), reason)
        for payload in payloads:
            message_id = payload["message_id"]
            self.failures[message_id] = Failure(None, reason)
            now = datetime.now(timezone.utc)
            self._ledger.keep_outcome(message_id, PostOutcome(now, 0.0, None, reason))
            if self._ledger.is_settled(message_id):
                self._tally.failed(reason)
        self._queue.put_back(p for p in payloads if not self._ledger.is_settled(p["message_id"]))

    def _count(self, attempt: Attempt) -> None:
        payload, result = attempt.payload, attempt.result
        if result.acknowledged:
            self._ledger.answered(payload["message_id"], ACKNOWLEDGED, _outcome(attempt))
            self._queue.delivered(payload)
            self._tally.delivered(payload)
        else:
            self._tally.failed(REFUSED if attempt.is_refused else result.error or "not acknowledged")
            self._note_failure(attempt)

    def _note_failure(self, attempt: Attempt) -> None:
        payload, result = attempt.payload, attempt.result
        message_id = payload["message_id"]
        failure = Failure(result.status, result.error or "not acknowledged", result.response)
        if result.sent:
            self._ledger.answered(message_id, GONE if result.gone else FAILED, _outcome(attempt))
            what = f"was not acknowledged, POST {self._ledger[message_id].attempts}"
        else:
            self._ledger.not_posted(message_id, _outcome(attempt))
            what = "was not sent"
        if result.retry_after is not None:
            self.retry_after = max(self.retry_after or 0.0, result.retry_after)
        self.failures[message_id] = failure
        if self._tally.failures <= WARNINGS:
            about = (payload["record_type"], payload["record_id"], message_id)
            self._log.warning("%s %s (%s) %s: %s", *about, what, failure)
        elif self._tally.failures == WARNINGS + 1:
            self._log.warning("Further failures are only counted: see the report, and the table at the end")


def _outcome(attempt: Attempt) -> PostOutcome:
    result = attempt.result
    at = datetime.fromtimestamp(attempt.ended_at, timezone.utc)
    error = None if result.acknowledged else result.error or "not acknowledged"
    return PostOutcome(at, result.elapsed, result.status, error, result.response, is_sent=result.sent)
