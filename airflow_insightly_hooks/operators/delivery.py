"""One try of a deliver task: POSTs side by side, and the ledger written before and while they go out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.observability import stats

from airflow_insightly_hooks.core import delivery
from airflow_insightly_hooks.core.delivery import Ledger
from airflow_insightly_hooks.core.errors import InsightlyHooksError, SupersededError
from airflow_insightly_hooks.core.ledger_store import LedgerStore
from airflow_insightly_hooks.core.line import Line
from airflow_insightly_hooks.core.payload import Payload
from airflow_insightly_hooks.core.report import Failure, Tally
from airflow_insightly_hooks.core.throttle import Throttle

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.webhook import Acknowledgement

__all__ = ["Book", "Delivery"]

LEDGER_INTERVAL = 1.0
"""Seconds between two writes of the ledger; what a kill can cost is the acknowledgements of so long."""
WRITE_AGAIN_AFTER = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before a write of the ledger that failed is tried again; nothing is POSTed meanwhile."""
PROGRESS_INTERVAL = 5.0
WARNINGS = 20
"""Failures that are logged one by one; further ones are counted."""
LARGEST_BATCH = 5_000

STOPPED = "not sent: the task was stopped"
TAKEN_OVER = "not sent: a later try of this task has taken over"
NOT_RECORDED = "not sent: the ledger can't be written"
HELD_BACK = "not sent: held back by an earlier change"
REFUSED = "refused before it was sent"


class _Attempt(NamedTuple):
    """What came of a POST, and whether the payload was refused before anything was tried."""

    result: Acknowledgement
    is_refused: bool = False


class Book:
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

    def write_if_due(self) -> None:
        """Write if the last write is an interval ago."""
        if not self.due_in():
            self.write()

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
    :param concurrency: how many are under way at once, at most.
    :param give_up_after: failures in a row in which nothing could be sent, until no more are tried; 0: never.
    :param is_stopped: whether the task is to end.
    :param log: where progress and failures go.
    :param tags: what metrics are tagged with.
    :ivar failures: what was tried and not acknowledged, by message id.
    :ivar retry_after: the longest that the receiver asked to wait, in seconds; ``None`` where it didn't.
    """

    def __init__(
        self,
        line: Line,
        book: Book,
        send: Callable[[Payload], Acknowledgement],
        *,
        concurrency: int,
        give_up_after: int,
        is_stopped: Callable[[], bool],
        log: Any,
        tags: dict[str, str],
    ) -> None:
        self._line, self._book, self._send = line, book, send
        self._ledger = book.ledger
        self._concurrency = concurrency
        self._throttle = Throttle(concurrency)
        self._give_up_after = give_up_after
        self._is_stopped = is_stopped
        self._log, self._tags = log, tags
        self._ready: deque[Payload] = deque()  # written as in doubt, not POSTed yet
        self._under_way: dict[Future[_Attempt], Payload] = {}
        self._done: SimpleQueue[Future[_Attempt]] = SimpleQueue()
        self._batch = 2 * concurrency
        self._batch_at = float("-inf")
        self._unreachable = 0  # failures in a row in which nothing could be sent
        self.failures: dict[str, Failure] = {}
        self.retry_after: float | None = None
        self.tally = Tally(len(line), time.monotonic())
        self._progress_at = time.monotonic() + PROGRESS_INTERVAL

    def run(self) -> None:
        """Send; return when nothing is left, or nothing more is to be sent, and all of it is recorded."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="webhook") as pool:
            try:
                self._launch(pool)
                while self._under_way:
                    self._collect()
                    self._launch(pool)
            finally:  # after the task's time-out, too, what is under way may end, and is recorded
                while self._ready:
                    self._ledger.not_posted(self._ready.popleft()["message_id"])
                self._finish()

    @property
    def has_given_up(self) -> bool:
        """Whether too many in a row couldn't be sent."""
        return 0 < self._give_up_after <= self._unreachable

    def why_unsent(self, message_id: str) -> str:
        """Return why a message that still waits wasn't sent."""
        if self._book.is_lost:
            return TAKEN_OVER
        if self._book.is_broken:
            return NOT_RECORDED
        if message_id in self._held_back:
            return HELD_BACK
        if self.has_given_up:
            return f"not sent: the receiver couldn't be reached {self._unreachable} times in a row"
        return STOPPED

    @cached_property
    def _held_back(self) -> set[str]:
        return self._line.held_back()

    # --- sending -----------------------------------------------------------------------------------------

    def _launch(self, pool: ThreadPoolExecutor) -> None:
        while (
            len(self._under_way) < self._throttle.limit and not self._is_stopped() and not self.has_given_up
        ):
            if not self._ready:
                self._prepare()
            if not self._ready:
                return
            payload = self._ready.popleft()
            future = pool.submit(self._attempt, payload)
            self._under_way[future] = payload
            future.add_done_callback(self._done.put)

    def _attempt(self, payload: Payload) -> _Attempt:
        """Make one POST; in a thread."""
        from airflow_insightly_hooks.hooks.webhook import Acknowledgement

        try:
            return _Attempt(self._send(payload))
        except InsightlyHooksError as error:
            return _Attempt(Acknowledgement(False, None, str(error), None, 0.0, sent=False), is_refused=True)
        except Exception as error:  # one payload's fault must not keep back the others
            return _Attempt(Acknowledgement(False, None, f"unexpected {type(error).__name__}", None, 0.0))

    def _prepare(self) -> None:
        """Write the next ones as in doubt, so that no POST goes out of which the ledger knows nothing.

        A batch is to last about as long as the interval of writes: a larger one would put into doubt, if the
        task is killed, what it never came to.
        """
        now = time.monotonic()
        if now - self._batch_at < LEDGER_INTERVAL:
            self._batch = min(self._batch * 2, LARGEST_BATCH)
        else:
            self._batch = max(self._batch // 2, 2 * self._concurrency)
        self._batch_at = now
        for payload in self._line.take(self._batch):
            self._ledger.posting(payload["message_id"])
            self._ready.append(payload)
        if self._ready:
            self._book.write()

    def _collect(self) -> None:
        """Wait for an answer, and note what has come; write the ledger when that is due."""
        try:
            self._note(self._done.get(timeout=self._book.due_in()))
            while True:
                self._note(self._done.get_nowait())
        except Empty:
            pass
        self._book.write_if_due()
        if (now := time.monotonic()) >= self._progress_at:
            self._log.info("%s", self.tally.progress(now))
            self._progress_at = now + PROGRESS_INTERVAL

    def _finish(self) -> None:
        """Wait for what is under way, and write the ledger a last time."""
        while self._under_way:
            is_writable = not self._book.is_lost and not self._book.is_broken
            timeout = self._book.due_in() if is_writable else None
            done, _ = wait(self._under_way, timeout=timeout, return_when=FIRST_COMPLETED)
            for future in done:
                self._note(future)
            if is_writable:
                with suppress(Exception):  # the last write tells of it
                    self._book.write_if_due()
        self._book.write()

    # --- what came of it ---------------------------------------------------------------------------------

    def _note(self, future: Future[_Attempt]) -> None:
        payload = self._under_way.pop(future)
        result, is_refused = future.result()
        if result.sent:
            self.tally.posted += 1
            self._unreachable = 0
            stats.timing("insightly_webhook.latency", timedelta(seconds=result.elapsed), tags=self._tags)
            self._throttle.answered(
                time.monotonic(),
                result.elapsed,
                acknowledged=result.acknowledged,
                overrun=result.status == 429 or (result.status == 503 and result.retry_after is not None),
            )
        elif not is_refused:
            self._unreachable += 1
        if result.acknowledged:
            self._ledger.answered(payload["message_id"], delivery.ACKNOWLEDGED)
            self._line.delivered(payload)
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
