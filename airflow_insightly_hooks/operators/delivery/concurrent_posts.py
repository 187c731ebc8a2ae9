"""POSTs side by side, and the ledger written before and while they go out."""

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
from airflow_insightly_hooks.operators.delivery import ledger_writer, metrics
from airflow_insightly_hooks.operators.delivery.post_threads import Attempt, PostThreads
from airflow_insightly_hooks.operators.delivery.progress import DeliveryProgress

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnection, KeptConnections
    from airflow_insightly_hooks.hooks.post.post_result import PostResult
    from airflow_insightly_hooks.hooks.rate_limit import RateLimit

__all__ = ["ConcurrentPosts"]

RECORD_WITHIN = 1.25
"""Intervals until no POST begins while an answer isn't recorded: a write takes a fraction of one."""
NOTE_INTERVAL = 0.01
"""Seconds for which answers gather before they are noted, while there is enough to send."""
WARNINGS = 20
"""Failures that are logged one by one; further ones are counted."""
LARGEST_BATCH = 5_000

STOPPED = "not sent: the task was stopped"
TAKEN_OVER = "not sent: a later try of this task has taken over"
NOT_RECORDED = "not sent: the ledger can't be written"
HELD_BACK = "not sent: held back by an earlier change"
REFUSED = "refused before it was sent"
SURPLUS = "in doubt: the receiver answered once too often on its connection"
BROKEN = "in doubt: its connection broke before the next answer came"


class ConcurrentPosts:
    """POSTs each payload of a queue once, at most.

    :param send: makes one POST, told whether its connection isn't needed any more; for several threads.
    :param connections: those that are used again; all have ended at the end.
    :param rate_limit: when a POST may begin.
    :param concurrency: how many are under way at once, at most.
    :param give_up_after: failures in a row in which nothing could be sent, until no more are tried; 0: never.
    :param is_secured: whether TLS is spoken with the receiver.
    :param is_stopped: whether the task is to end.
    :param log: where progress and failures go.
    :param tags: what metrics are tagged with.
    :param tally: where it is counted.
    :param progress: what tells now and then how far it is.
    :ivar failures: what was tried and not acknowledged, by message id.
    :ivar retry_after: the longest that the receiver asked to wait, in seconds; ``None`` where it didn't.
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
        self._prepared: deque[Payload] = deque()  # noted as in doubt, not given to the workers yet
        self._provisional: dict[KeptConnection, list[Attempt]] = {}  # what counts once these have ended
        self._noted = 0  # how many answers the next write records
        self._batch = self._least_batch = 2 * concurrency
        self._batch_at = float("-inf")
        self.failures: dict[str, Failure] = {}
        self.retry_after: float | None = None
        self._tally = tally
        self._posted_before = self._tally.posted
        self._progress = progress

    def run(self) -> None:
        """Send; return when nothing is left, or nothing more is to be sent, and all of it is recorded."""
        try:
            self._prepare()
            while self._threads.have_work or (self._provisional and not self._threads.is_held):
                self._collect()
                self._prepare()
        finally:  # after the task's time-out, too, what is under way may end, and is recorded
            try:
                self._finish()
            except AirflowTaskTimeout:  # it comes once, and may come now
                self._finish()
                raise

    @property
    def has_given_up(self) -> bool:
        """Whether too many in a row couldn't be sent."""
        return self._threads.has_given_up

    def why_unsent(self, message_id: str) -> str:
        """Return why a message that still waits wasn't sent."""
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
        """Write the next ones as in doubt, so that no POST goes out of which the ledger knows nothing.

        A batch is to last about as long as the interval of writes: a larger one would put into doubt, if the
        task is killed, what it never came to. Hence it grows while it lasts less, and faster while it lasts
        less than a quarter. While it is written, the rest of the last one goes out.
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
        """Mark as unsent again what will not be reached within an interval, if the receiver is slower now."""
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
        """Whether there is more to send now, or may be, once what is under way is delivered."""
        return self._queue.has_free or (bool(len(self._queue)) and self._threads.have_work)

    @property
    def _is_running_out(self) -> bool:
        return self._threads.ready <= self._batch // 4

    def _collect(self) -> None:
        """Wait for an answer, and note what has come; write the ledger when that is due."""
        wait = self._writer.due_in()
        if self._threads.are_limited:  # so that they are no more, soon after answers take longer
            wait = min(wait, MEASURE_INTERVAL)
        try:
            self._note(self._threads.done.get(timeout=wait))
            if not self._is_running_out:
                time.sleep(NOTE_INTERVAL)  # to be woken for each would take the workers' time
            while True:
                self._note(self._threads.done.get_nowait())
        except Empty:
            self._threads.check()
        self._settle()
        self._threads.measure_cpu()
        self._record_if_due()
        self._progress.log_if_due()

    def _finish(self) -> None:
        """Send no more, wait for what is under way, and write the ledger a last time; may be begun again."""
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
                with suppress(Exception):  # the last write tells of it
                    self._record_if_due()
        self._threads.join()
        self._settle()
        self._writer.write()

    # --- what came of it ---------------------------------------------------------------------------------

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
        """Count what came over connections that have ended, and have sent again what doesn't count."""
        for connection in [one for one in self._provisional if one.counting is not None]:
            again = []
            for attempt in self._provisional.pop(connection):
                result = attempt.result
                # One that isn't in step with its message at worst has this sent again by the next try.
                is_failure = not (result.acknowledged or result.gone or connection.has_surplus)
                if is_failure or result.provisional is None or result.provisional.counts:
                    self._count(attempt)
                else:
                    again.append(attempt.payload)
            self._send_again(again, connection)

    def _send_again(self, payloads: list[Payload], connection: KeptConnection) -> None:
        """Leave these in doubt, and send them again if they have attempts left."""
        if not payloads:
            return
        reason = SURPLUS if connection.has_surplus else BROKEN
        self._log.warning("What was answered to %d payloads doesn't count: %s", len(payloads), reason)
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
            self._log.warning("Further failures are counted only: see the report, and the table at the end")


def _outcome(attempt: Attempt) -> PostOutcome:
    result = attempt.result
    at = datetime.fromtimestamp(attempt.ended_at, timezone.utc)
    error = None if result.acknowledged else result.error or "not acknowledged"
    return PostOutcome(at, result.elapsed, result.status, error, result.response, is_sent=result.sent)
