"""One try of a deliver task: POSTs side by side, and the ledger written before and while they go out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from queue import Empty
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.observability import stats

from airflow_insightly_hooks.core.delivery import ledger as delivery
from airflow_insightly_hooks.core.delivery.cpu_limit import MEASURE_INTERVAL
from airflow_insightly_hooks.core.delivery.ledger import Ledger
from airflow_insightly_hooks.core.delivery.ledger_store import LedgerStore
from airflow_insightly_hooks.core.delivery.receiver_limit import ReceiverLimit
from airflow_insightly_hooks.core.delivery.report import Failure, Tally
from airflow_insightly_hooks.core.delivery.send_queue import SendQueue
from airflow_insightly_hooks.core.errors import SupersededError, told
from airflow_insightly_hooks.core.payload import Payload
from airflow_insightly_hooks.operators.delivery.post_threads import Attempt, Workers

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.rate_limit import RateLimit
    from airflow_insightly_hooks.hooks.webhook import Acknowledgement

__all__ = ["Delivery", "LedgerWriter", "count_try", "push_report"]

LEDGER_INTERVAL = 1.0
"""Seconds between two writes of the ledger; what a kill can cost is the acknowledgements of so long."""
RECORD_WITHIN = 1.25
"""Intervals until no POST begins while an answer isn't recorded: a write takes a fraction of one."""
NOTE_INTERVAL = 0.01
"""Seconds for which answers gather before they are noted, while there is enough to send."""
WRITE_AGAIN_AFTER = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before a write of the ledger that failed is tried again; POSTs go on meanwhile until an
answer has waited ``RECORD_WITHIN`` for its record."""
PROGRESS_INTERVAL = 5.0
WARNINGS = 20
"""Failures that are logged one by one; further ones are counted."""
LARGEST_BATCH = 5_000

STOPPED = "not sent: the task was stopped"
TAKEN_OVER = "not sent: a later try of this task has taken over"
NOT_RECORDED = "not sent: the ledger can't be written"
HELD_BACK = "not sent: held back by an earlier change"
REFUSED = "refused before it was sent"


class LedgerWriter:
    """The ledger of this try, in the task state store.

    :param generation: the present round of attempts.
    :param token: this try's, unlike any other's.
    """

    def __init__(self, store: Any, generation: int, token: str) -> None:
        self._store = LedgerStore(store, token)
        self.ledger: Ledger = self._store.open(generation)
        self.is_lost = False  # a later try has it
        self.is_broken = False  # it couldn't be written for so long that the try ends
        self._due = 0.0  # the first write comes before the first POST

    def due_in(self) -> float:
        """Return the seconds until the next write is due."""
        return max(0.0, self._due - time.monotonic())

    def write(self) -> None:
        """Write what has changed, again and again for some seconds where that fails.

        :raises SupersededError: if a later try has the ledger now.
        :raises Exception: what the store raised, if it can't be written.
        """
        if self.is_lost:
            raise SupersededError
        delays = iter(() if self.is_broken else WRITE_AGAIN_AFTER)
        while True:
            try:
                self._store.write(self.ledger)
            except SupersededError:
                self.is_lost = True
                raise
            except Exception:
                delay = next(delays, None)
                if delay is None:
                    self.is_broken = True
                    raise
                time.sleep(delay)
            else:
                self._due = time.monotonic() + LEDGER_INTERVAL
                return


class Delivery:
    """Sends each payload of a line once, at most.

    :param send: makes one POST; called from several threads.
    :param rate_limit: when a POST may begin.
    :param concurrency: how many are under way at once, at most.
    :param give_up_after: failures in a row in which nothing could be sent, until no more are tried; 0: never.
    :param is_secured: whether TLS is spoken with the receiver.
    :param is_stopped: whether the task is to end.
    :param log: where progress and failures go.
    :param tags: what metrics are tagged with.
    :param tally: where it is counted, if not in one of its own.
    :ivar failures: what was tried and not acknowledged, by message id.
    :ivar retry_after: the longest that the receiver asked to wait, in seconds; ``None`` where it didn't.
    """

    def __init__(
        self,
        queue: SendQueue,
        writer: LedgerWriter,
        send: Callable[[Payload], Acknowledgement],
        rate_limit: RateLimit,
        *,
        concurrency: int,
        give_up_after: int,
        is_secured: bool,
        is_stopped: Callable[[], bool],
        log: Any,
        tags: dict[str, str],
        tally: Tally | None = None,
    ) -> None:
        self._queue, self._writer = queue, writer
        self._ledger = writer.ledger
        self._receiver_limit = ReceiverLimit(concurrency)
        self._workers = Workers(
            send,
            self._receiver_limit,
            rate_limit,
            give_up_after=give_up_after,
            record_within=RECORD_WITHIN * LEDGER_INTERVAL,
            is_secured=is_secured,
            is_stopped=is_stopped,
        )
        self._log, self._tags = log, tags
        self._prepared: deque[Payload] = deque()  # noted as in doubt, not given to the workers yet
        self._noted = 0  # how many answers the next write records
        self._batch = self._least_batch = 2 * concurrency
        self._batch_at = float("-inf")
        self.failures: dict[str, Failure] = {}
        self.retry_after: float | None = None
        self.tally = Tally(len(queue), time.monotonic()) if tally is None else tally
        self._posted_before = self.tally.posted
        self._progress_at = time.monotonic() + PROGRESS_INTERVAL

    def run(self) -> None:
        """Send; return when nothing is left, or nothing more is to be sent, and all of it is recorded."""
        try:
            self._prepare()
            while self._workers.have_work:
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
        return self._workers.has_given_up

    def why_unsent(self, message_id: str) -> str:
        """Return why a message that still waits wasn't sent."""
        if self._writer.is_lost:
            return TAKEN_OVER
        if self._writer.is_broken:
            return NOT_RECORDED
        if message_id in self._held_back:
            return HELD_BACK
        if self.has_given_up:
            return f"not sent: the receiver couldn't be reached {self._workers.unreachable} times in a row"
        if self._workers.lack is not None:
            return f"not sent: {self._workers.lack}"
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
        if self._workers.is_held or not self._is_running_out:
            return
        now = time.monotonic()
        if now - self._batch_at < LEDGER_INTERVAL:
            growth = 2 if now - self._batch_at > LEDGER_INTERVAL / 4 else 4
            self._batch = min(self._batch * growth, LARGEST_BATCH)
        else:
            self._batch = max(self._batch // 2, self._least_batch)
        self._batch_at = now
        for payload in self._queue.take(self._batch):
            self._prepared.append(payload)
            self._ledger.posting(payload["message_id"])
        if self._prepared:
            self._record()
            self._workers.give(self._prepared)

    def _record(self) -> None:
        noted, self._noted = self._noted, 0
        self._posted_before = self.tally.posted
        self._writer.write()
        self._workers.recorded(noted)

    def _record_if_due(self) -> None:
        if not self._writer.due_in():
            self._put_off()
            self._record()

    def _put_off(self) -> None:
        """Take out of doubt what won't be come to within an interval, where the receiver has slowed down."""
        at_once = max(self.tally.posted - self._posted_before, self._least_batch)
        self._workers.take_back(self._prepared, but=at_once)
        if self._prepared:
            for payload in self._prepared:
                self._ledger.not_posted(payload["message_id"])
            self._queue.put_back(self._prepared)
            self._prepared.clear()
            self._batch = at_once

    @property
    def _is_running_out(self) -> bool:
        return self._workers.ready <= self._batch // 4

    def _collect(self) -> None:
        """Wait for an answer, and note what has come; write the ledger when that is due."""
        wait = self._writer.due_in()
        if self._workers.are_limited:  # so that they are no more, soon after answers take longer
            wait = min(wait, MEASURE_INTERVAL)
        try:
            self._note(self._workers.done.get(timeout=wait))
            if not self._is_running_out:
                time.sleep(NOTE_INTERVAL)  # to be woken for each would take the workers' time
            while True:
                self._note(self._workers.done.get_nowait())
        except Empty:
            self._workers.check()
        self._workers.measure_cpu()
        self._record_if_due()
        if (now := time.monotonic()) >= self._progress_at:
            self._log.info("%s", self.tally.progress(now))
            self._progress_at = now + PROGRESS_INTERVAL

    def _finish(self) -> None:
        """Send no more, wait for what is under way, and write the ledger a last time; may be begun again."""
        self._workers.close()
        self._workers.take_back(self._prepared)
        while self._prepared:
            self._ledger.not_posted(self._prepared[0]["message_id"])
            self._prepared.popleft()
        while self._workers.have_work:
            is_writable = not self._writer.is_lost and not self._writer.is_broken
            with suppress(Empty):
                self._note(self._workers.done.get(timeout=self._writer.due_in() if is_writable else None))
            if is_writable:
                with suppress(Exception):  # the last write tells of it
                    self._record_if_due()
        self._workers.join()
        self._writer.write()

    # --- what came of it ---------------------------------------------------------------------------------

    def _note(self, attempt: Attempt) -> None:
        payload, result, is_refused = attempt
        self._noted += 1
        if result.sent:
            self.tally.posted += 1
            stats.timing("insightly_webhook.latency", timedelta(seconds=result.elapsed), tags=self._tags)
        if result.acknowledged:
            self._ledger.answered(payload["message_id"], delivery.ACKNOWLEDGED)
            self._queue.delivered(payload)
            self.tally.acknowledged += 1
        else:
            self.tally.failed(REFUSED if is_refused else result.error or "not acknowledged")
            self._note_failure(payload, result)

    def _note_failure(self, payload: Payload, result: Acknowledgement) -> None:
        message_id = payload["message_id"]
        error = result.error or "not acknowledged"
        if result.sent:
            self._ledger.answered(message_id, delivery.GONE if result.gone else delivery.FAILED)
            what = f"was not acknowledged, POST {self._ledger[message_id].attempts}"
        else:
            self._ledger.not_posted(message_id)
            what = "was not sent"
        if result.retry_after is not None:
            self.retry_after = max(self.retry_after or 0.0, result.retry_after)
        self.failures[message_id] = Failure(result.status, error)
        if self.tally.failures <= WARNINGS:
            about = (payload["record_type"], payload["record_id"], message_id)
            self._log.warning("%s %s (%s) %s: %s", *about, what, error)
        elif self.tally.failures == WARNINGS + 1:
            self._log.warning("Further failures are counted only: see the report, and the table at the end")


def count_try(tally: Tally, undelivered: int, tags: dict[str, str]) -> None:
    """Count in Airflow's metrics what a try has done, and how many are undelivered after it."""
    for name, count in {
        "delivered": tally.acknowledged,
        "undelivered": undelivered,
        "attempts": tally.posted,
    }.items():
        if count:
            stats.incr(f"insightly_webhook.{name}", count, tags=tags)


def push_report(ti: Any, report: Any, log: Any) -> None:
    """Push what a task that fails has to tell: Airflow pushes what a task returns, hence nothing then."""
    try:
        ti.xcom_push(key="return_value", value=report)
    except Exception as error:  # what ended the task matters more
        log.warning("The report can't be stored: %s", told(error))
