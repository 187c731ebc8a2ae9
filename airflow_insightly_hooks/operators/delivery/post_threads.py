"""The threads of one try of a deliver task: each takes what is ready, and POSTs it when it may.

When there is nothing to send, they end connections that aren't needed any more.
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
from airflow_insightly_hooks.core.errors import InsightlyHooksError, told
from airflow_insightly_hooks.core.payload import Payload
from airflow_insightly_hooks.hooks.connection_failures import NO_MORE_THREADS
from airflow_insightly_hooks.hooks.post.post_result import PostResult

if TYPE_CHECKING:
    from airflow_insightly_hooks.hooks.post.kept_connections import KeptConnection, KeptConnections
    from airflow_insightly_hooks.hooks.rate_limit import RateLimit

__all__ = ["Attempt", "PostThreads"]

LOOKS_AT_IDLE = 0.1
"""Seconds after which a thread without work looks again for connections to end."""
MOST_OWN_FAULTS = 20
"""Failures in a row for what this worker lacks, until no more are tried: it says nothing of the receiver."""


class Attempt(NamedTuple):
    """What came of a POST.

    :param ended_at: when it ended, in seconds since 1970.
    :param is_refused: whether the payload was refused before anything was tried.
    """

    payload: Payload
    result: PostResult
    ended_at: float
    is_refused: bool = False


class PostThreads:
    """Threads that send what they are given; they go on while whoever gives it is busy recording.

    They hold while the task is to end, and after too many failures in a row in which nothing could be sent:
    an answer to what is still under way sets them going again.

    :param send: makes one POST, told whether its connection isn't needed any more; for several threads.
    :param connections: those that are used again.
    :param receiver_limit: how many may be under way at once, for the receiver's sake.
    :param rate_limit: when each may begin; nobody who waits for it is under way.
    :param give_up_after: so many such failures in a row that are the receiver's; 0: never.
    :param record_within: seconds until none begins while what has ended isn't recorded.
    :param is_secured: whether TLS is spoken, most of whose work isn't Python's.
    :param is_stopped: whether the task is to end.
    :param goes_alone: whether a payload must not wait for a connection's end until its answer counts.
    :ivar done: what came of each; ``None`` where a connection has ended.
    :ivar unreachable: failures in a row in which nothing could be sent.
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
        self._elapsed = 0.0  # seconds that the last POST took
        self._pool = ThreadPoolExecutor(receiver_limit.most, thread_name_prefix="webhook")
        self._threads: list[Future[None]] = []
        self._ready: deque[Payload] = deque()
        self._under_way = 0
        self._unrecorded: deque[float] = deque()  # when what isn't recorded yet has ended
        self._are_all_given = False
        self._is_closed = False
        self._turn = threading.Condition()  # for all of the above, and what follows
        self._own_faults = 0
        self._lack = ""
        self.unreachable = 0
        self.done: SimpleQueue[Attempt | None] = SimpleQueue()

    @property
    def ready(self) -> int:
        """How many wait for a thread."""
        return len(self._ready)

    @property
    def have_work(self) -> bool:
        """Whether something is under way, or will be, or wasn't taken from ``done`` yet."""
        with self._turn:
            is_waiting = bool(self._ready) and not self.is_held
            return is_waiting or self._under_way > 0 or not self.done.empty()

    @property
    def has_given_up(self) -> bool:
        """Whether too many in a row couldn't be sent."""
        return 0 < self._give_up_after <= self.unreachable

    @property
    def lack(self) -> str | None:
        """What this machine lacked too many times in a row."""
        return self._lack if self._own_faults >= MOST_OWN_FAULTS else None

    @property
    def is_held(self) -> bool:
        """Whether no more are sent, for now."""
        return self._is_stopped() or self.has_given_up or self.lack is not None

    def give(self, payloads: deque[Payload], *, are_all: bool) -> None:
        """Have these sent; they are taken from the queue.

        :param are_all: whether no more are to be given; see ``expect_more``.
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
            except RuntimeError:  # the machine starts no more of them: those that there are go on
                if not self._threads:
                    self._own_faults, self._lack = MOST_OWN_FAULTS, NO_MORE_THREADS
                return

    def expect_more(self, *, are_expected: bool) -> None:
        """Note whether there is more to be given; if not, connections end with what is ready."""
        with self._turn:
            if self._are_all_given == are_expected:
                self._are_all_given = not are_expected
                self._turn.notify_all()

    @property
    def are_limited(self) -> bool:
        """Whether fewer may be under way, for now, for what the process makes of them."""
        return self._cpu_limit is not None and self._cpu_limit.is_limiting

    def measure_cpu(self) -> None:
        """See how many threads the process has use for; to be called now and then."""
        if self._cpu_limit is None:
            return
        with self._turn:
            limit = self._cpu_limit.limit
            self._cpu_limit.measure(time.monotonic(), time.process_time(), self._elapsed)
            if self._cpu_limit.limit > limit:
                self._turn.notify_all()

    def recorded(self, count: int) -> None:
        """Note that the first so many of what has ended are recorded."""
        with self._turn:
            for _ in range(count):
                self._unrecorded.popleft()
            self._turn.notify_all()

    def check(self) -> None:
        """Raise what ended a thread, which nothing should."""
        for thread in self._threads:
            if thread.done():
                thread.result()

    def take_back(self, into: deque[Payload], *, but: int = 0) -> None:
        """Send none of those that wait for a thread, but the first few; put them into a queue."""
        with self._turn:
            while len(self._ready) > but:
                into.appendleft(self._ready.pop())

    def close(self) -> None:
        """Send no more."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()

    def join(self) -> None:
        """Wait until no thread is left; after ``close``."""
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
        """Take account of what has ended, and return what to send next, once that may go.

        Beside a payload stands whether its connection isn't needed any more. Else it is a connection to end;
        at the end, nothing.
        """
        with self._turn:
            if ended is not None:
                self._under_way -= 1
                self._elapsed = ended.result.elapsed
                self._unrecorded.append(time.monotonic())
                self._account(ended)
                self.done.put(ended)  # last: who sees it sees whether it set the threads going again
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
                        # What is ready then is for the other threads.
                        is_last = self._are_all_given and len(self._ready) < self._limit
                        return payload, is_last or self._goes_alone(payload)
                self._turn.wait(until)

    def _may_begin(self) -> bool:
        since = self._unrecorded[0] if self._unrecorded else float("inf")
        is_recorded = time.monotonic() - since < self._record_within
        return self._under_way < self._limit and is_recorded and not self.is_held

    @property
    def _limit(self) -> int:
        """How many may be under way at once, for now."""
        limit = self._receiver_limit.limit
        return limit if self._cpu_limit is None else min(limit, self._cpu_limit.limit)

    def _account(self, ended: Attempt) -> None:
        result = ended.result
        if result.sent:
            was_held, limit = self.unreachable or self._own_faults, self._receiver_limit.limit
            self.unreachable = self._own_faults = 0
            if result.status is not None:  # without an answer, the time tells nothing of the receiver
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
        except Exception as error:  # one payload's fault must not keep back the others
            took = time.monotonic() - began
            failed = PostResult(acknowledged=False, error=f"unexpected {told(error)}", elapsed=took)
            return Attempt(payload, failed, time.time())
