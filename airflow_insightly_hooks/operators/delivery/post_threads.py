"""The threads of one try of a deliver task: each takes the next payload, and POSTs it when it may.

When there is nothing to send, they close connections that are no longer needed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from airflow_insightly_hooks.core.delivery.cpu_limit import CpuLimit
from airflow_insightly_hooks.core.delivery.receiver_limit import ReceiverLimit
from airflow_insightly_hooks.core.errors import InsightlyHooksError, type_and_place
from airflow_insightly_hooks.core.payload import Payload
from airflow_insightly_hooks.hooks.connection_failures import NO_MORE_THREADS
from airflow_insightly_hooks.hooks.post.post_result import PostResult

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnection, KeptConnections
    from airflow_insightly_hooks.hooks.rate_limit import RateLimit

__all__ = ["Attempt", "PostThreads"]

LOOKS_AT_IDLE = 0.1
"""Seconds after which an idle thread looks again for connections to close."""
MOST_OWN_FAULTS = 20
"""The most failures in a row that this worker causes, and not the receiver; then no more are tried."""


class Attempt(NamedTuple):
    """The result of a POST.

    :param ended_at: the time when it ended, in seconds since 1970.
    :param is_refused: whether the payload was refused before a connection was tried.
    """

    payload: Payload
    result: PostResult
    ended_at: float
    is_refused: bool = False


class PostThreads:
    """Threads that POST the payloads they are given, also while the caller is busy recording results.

    They begin no POST while the task is told to end, and after too many failures in a row in which nothing
    could be sent. If a POST that had begun before gets an answer, they continue.

    :param send: makes one POST; its second argument says that the connection is no longer needed after it.
        Several threads call it.
    :param connections: the connections that are reused.
    :param receiver_limit: how many POSTs the receiver can take at once.
    :param rate_limit: says when a POST may begin. A payload that waits for it counts as not begun.
    :param give_up_after: how many failures in a row, in which nothing could be sent to the receiver, stop the
        threads; 0: never.
    :param record_within: seconds: if an answer waits longer to be recorded, no POST begins.
    :param is_secured: whether the receiver is reached by TLS, which does most of its work outside of Python.
    :param is_stopped: whether the task was told to end.
    :param goes_alone: whether a payload's answer must count at once; then its connection is closed after it.
    :ivar done: the results; ``None`` for a connection that was closed.
    :ivar unreachable: the number of failures in a row in which nothing could be sent.
    """

    def __init__(
        self,
        send: Callable[[Payload, bool], PostResult],
        connections: KeptConnections,
        receiver_limit: ReceiverLimit,
        rate_limit: RateLimit,
        *,
        goes_alone: Callable[[Payload], bool],
        give_up_after: int,
        record_within: float,
        is_secured: bool,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._send, self._receiver_limit, self._rate_limit = send, receiver_limit, rate_limit
        self._connections, self._goes_alone = connections, goes_alone
        self._give_up_after, self._is_stopped = give_up_after, is_stopped
        self._record_within = record_within
        self._cpu_limit = None if is_secured else CpuLimit(receiver_limit.most)
        self._elapsed = 0.0  # seconds of the last POST
        self._pool = ThreadPoolExecutor(receiver_limit.most, thread_name_prefix="webhook")
        self._threads: list[Future[None]] = []
        self._ready: deque[Payload] = deque()
        self._under_way = 0
        self._unrecorded: deque[float] = deque()  # when the POSTs ended that are not recorded yet
        self._are_all_given = False
        self._is_closed = False
        self._turn = threading.Condition()  # guards the attributes above and below
        self._own_faults = 0
        self._lack = ""
        self.unreachable = 0
        self.done: SimpleQueue[Attempt | None] = SimpleQueue()

    @property
    def ready(self) -> int:
        """The number of payloads that wait for a thread."""
        return len(self._ready)

    @property
    def have_work(self) -> bool:
        """Whether a POST is running, or will be, or its result was not taken from ``done`` yet."""
        with self._turn:
            is_waiting = bool(self._ready) and not self.is_held
            return is_waiting or self._under_way > 0 or not self.done.empty()

    @property
    def has_given_up(self) -> bool:
        """Whether ``give_up_after`` failures in a row were reached."""
        return 0 < self._give_up_after <= self.unreachable

    @property
    def lack(self) -> str | None:
        """What this machine lacked too many times in a row; ``None`` if it lacks nothing."""
        return self._lack if self._own_faults >= MOST_OWN_FAULTS else None

    @property
    def is_held(self) -> bool:
        """Whether no POST may begin now."""
        return self._is_stopped() or self.has_given_up or self.lack is not None

    def give(self, payloads: deque[Payload], *, are_all: bool) -> None:
        """Take these payloads from the queue, and send them.

        :param are_all: whether no more payloads will follow; see ``expect_more``.
        """
        with self._turn:
            self._are_all_given = are_all
            while payloads:
                self._ready.append(payloads.popleft())
            wanted = min(self._receiver_limit.most, self._under_way + len(self._ready))
            self._turn.notify_all()
        while len(self._threads) < wanted:
            try:
                self._threads.append(self._pool.submit(self._work))
            except RuntimeError:  # the machine starts no more threads: those that run go on
                if not self._threads:
                    self._own_faults, self._lack = MOST_OWN_FAULTS, NO_MORE_THREADS
                return

    def expect_more(self, *, are_expected: bool) -> None:
        """Say whether more payloads may follow. If not, connections are closed after the present ones."""
        with self._turn:
            if self._are_all_given == are_expected:
                self._are_all_given = not are_expected
                self._turn.notify_all()

    @property
    def are_limited(self) -> bool:
        """Whether the process's CPU limits the number of POSTs at once."""
        return self._cpu_limit is not None and self._cpu_limit.is_limiting

    def measure_cpu(self) -> None:
        """Measure how many threads the process's CPU can serve. To be called from time to time."""
        if self._cpu_limit is None:
            return
        with self._turn:
            limit = self._cpu_limit.limit
            self._cpu_limit.measure(time.monotonic(), time.process_time(), self._elapsed)
            if self._cpu_limit.limit > limit:
                self._turn.notify_all()

    def recorded(self, count: int) -> None:
        """Say that the first ``count`` results are recorded."""
        with self._turn:
            for _ in range(count):
                self._unrecorded.popleft()
            self._turn.notify_all()

    def check(self) -> None:
        """Raise the error that has ended a thread, if one has."""
        for thread in self._threads:
            if thread.done():
                thread.result()

    def take_back(self, into: deque[Payload], *, but: int = 0) -> None:
        """Move the payloads that wait for a thread, except the first ``but``, into a queue."""
        with self._turn:
            while len(self._ready) > but:
                into.appendleft(self._ready.pop())

    def close(self) -> None:
        """Begin no more POSTs."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()

    def join(self) -> None:
        """Wait until all threads have ended; to be called after ``close``."""
        self._pool.shutdown()

    def _work(self) -> None:
        attempt = None
        while (work := self._next(attempt)) is not None:
            if isinstance(work, tuple):
                attempt = self._attempt(*work)
            else:
                attempt = None
                self._connections.end(work)
                self.done.put(None)

    def _next(self, ended: Attempt | None) -> tuple[Payload, bool] | KeptConnection | None:
        """Process the last result, wait, and return a thread's next piece of work.

        It is a payload, with whether its connection is no longer needed after it; or a connection to close;
        or ``None`` at the end.
        """
        with self._turn:
            if ended is not None:
                self._under_way -= 1
                self._elapsed = ended.result.elapsed
                self._unrecorded.append(time.monotonic())
                self._account(ended)
                self.done.put(ended)  # last: its reader must see whether the threads continue
            while True:
                is_idle = self._is_closed or (self._are_all_given and not self._ready)
                connection = self._connections.take_to_end(everything=is_idle)
                if connection is not None or self._is_closed:
                    return connection
                until = LOOKS_AT_IDLE if self._connections.have_open else None
                if self._ready and self._may_begin():
                    until = self._rate_limit.take()
                    if not until:
                        self._under_way += 1
                        payload = self._ready.popleft()
                        # The other threads send the payloads that are ready then.
                        is_last = self._are_all_given and len(self._ready) < self._limit
                        return payload, is_last or self._goes_alone(payload)
                self._turn.wait(until)

    def _may_begin(self) -> bool:
        since = self._unrecorded[0] if self._unrecorded else float("inf")
        is_recorded = time.monotonic() - since < self._record_within
        return self._under_way < self._limit and is_recorded and not self.is_held

    @property
    def _limit(self) -> int:
        """The most POSTs at once, for now."""
        limit = self._receiver_limit.limit
        return limit if self._cpu_limit is None else min(limit, self._cpu_limit.limit)

    def _account(self, ended: Attempt) -> None:
        result = ended.result
        if result.sent:
            was_held, limit = self.unreachable or self._own_faults, self._receiver_limit.limit
            self.unreachable = self._own_faults = 0
            if result.status is not None:  # without an answer, the time says nothing about the receiver
                self._receiver_limit.answered(
                    time.monotonic(),
                    result.elapsed,
                    acknowledged=result.acknowledged,
                    overrun=result.status == 429 or (result.status == 503 and result.retry_after is not None),
                )
            if was_held or self._receiver_limit.limit > limit:
                self._turn.notify_all()
        elif result.is_own_fault:
            self._own_faults += 1
            self._lack = result.error or ""
        elif not ended.is_refused:
            self.unreachable += 1

    def _attempt(self, payload: Payload, is_last: bool) -> Attempt:
        began = time.monotonic()
        try:
            return Attempt(payload, self._send(payload, is_last), time.time())
        except InsightlyHooksError as error:
            refused = PostResult(acknowledged=False, error=str(error), sent=False)
            return Attempt(payload, refused, time.time(), is_refused=True)
        except Exception as error:  # an error of one payload must not stop the others
            took = time.monotonic() - began
            failed = PostResult(acknowledged=False, error=f"unexpected {type_and_place(error)}", elapsed=took)
            return Attempt(payload, failed, time.time())
