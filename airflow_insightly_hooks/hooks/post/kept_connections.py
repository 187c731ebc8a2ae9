"""Use connections for several POSTs of one try, and decide which of their answers count.

A receiver, or a proxy before it, may send a response twice, or late. On a connection that is used again, this
response is then read as the answer to the next message. All later answers are shifted by one, and in the end
there is one response too many. So the answers on a reused connection count only once the connection has ended
without surplus bytes. Its last request asks the receiver to close it, and it is read to its end. If the
receiver doesn't close it, this side ends its own half after a while (a half-close). A connection lives for
some seconds at most, so that no answer stays undecided for long.

A response is also surplus if it came before the receiver's TCP had acknowledged the request.

A connection may break before a message is answered, or be reset. Then surplus bytes can't be seen any more,
and the answers may have shifted by one. So the last answer doesn't count, unless the connection was reset
between two requests. If one of the messages was not acknowledged, only the first answer counts; it always
does. To get a wrong answer past this, one connection would need two late responses that both stay unseen
until it breaks. If no answer counted, receivers that sometimes break connections would get all messages
twice.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import httpcore

from airflow_insightly_hooks.hooks.post.connection import Connection, Headers
from airflow_insightly_hooks.hooks.post.deadline import Deadline
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.hooks.post.exchange import FAILURES, check_address, not_delivered
from airflow_insightly_hooks.hooks.post.response import InvalidResponse, Response
from airflow_insightly_hooks.hooks.post.stream import TcpState
from airflow_insightly_hooks.hooks.post.transport import Transport

__all__ = ["KeptConnection", "KeptConnections", "ProvisionalAnswer"]

IDLE_LIMIT = 5.0
"""The most seconds that a connection waits for its next request."""
KEEP_ALIVE_SHARE = 0.8
"""The fraction of ``Keep-Alive: timeout=…`` after which a connection isn't used again."""
LIFE_FACTOR = 50
"""The life of a connection, in multiples of the time to open it. So opening takes 2 % of the time."""
SHORTEST_LIFE, LONGEST_LIFE = 0.1, 10.0
"""The bounds of this life, in seconds."""
ANSWERS_WITHIN = 2.0
"""A connection is used again only if its receiver answers within so many seconds.

With a slower receiver there is little to gain, and it takes long to see that no surplus bytes come.
"""
SHORTEST_QUIET = 0.05
"""The least seconds to wait for a receiver to close a connection, before it is half-closed."""
ENDS_WITHIN = 1.0
"""Seconds to wait for the receiver's end after the half-close."""
RESETS_WITHIN = 1.0
"""Seconds to wait for a reset after a request was sent on a connection that the receiver had closed."""
LOOKS_FOR_RESET = 0.002
"""Seconds between two checks for the reset."""

_KEEP_ALIVE = re.compile(r"(timeout|max)\s*=\s*\"?([0-9]{1,9})")


class _NothingRead(Exception):
    """The receiver had closed the connection before the request came, so it can't have read any of it."""


class KeptConnection:
    """A connection that serves one POST after another.

    :param transport: the transport that connects to the receiver.
    :param deadline: the deadline of the first exchange.
    :ivar answers: the number of messages that were answered on the connection.
    :ivar valid_answers: the number of these answers that count, from the first one on; ``None`` until it has
        ended.
    :ivar has_surplus: whether surplus bytes were received.
    :ivar stays_open: whether the receiver has not ended the connection after the half-close.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self.connection = Connection(transport, deadline)
        self.answers = 0
        self.valid_answers: int | None = None
        self.has_surplus = False
        self.stays_open = False
        self._opened_at = self._idle_since = time.monotonic()
        self._life = SHORTEST_LIFE
        self._are_all_acknowledged = True  # whether all messages were acknowledged
        self._is_early = False  # whether an answer came before its request can have been read
        self._longest = 0.0  # seconds of the slowest answer
        self._requests_left = math.inf
        self._idle_limit = IDLE_LIMIT

    def open(self, endpoint: Endpoint) -> None:
        """Connect. It raises the errors of ``Connection.open``."""
        self.connection.open(endpoint)
        taken = time.monotonic() - self._opened_at
        self._life = min(max(LIFE_FACTOR * taken, SHORTEST_LIFE), LONGEST_LIFE)

    @property
    def _is_past_life(self) -> bool:
        """Whether the connection's life would be over before the answer to one more request came."""
        return time.monotonic() - self._opened_at + self._longest > self._life

    @property
    def is_to_end(self) -> bool:
        """Whether it has waited too long for another request."""
        idle = time.monotonic() - self._idle_since
        # Past its life it waits only a moment, for a last request that asks the receiver to close it.
        return idle > self._idle_limit or (idle > SHORTEST_LIFE and self._is_past_life)

    @property
    def is_last(self) -> bool:
        """Whether the next request is its last one."""
        return self._is_past_life or self._requests_left <= 1

    def post(self, endpoint: Endpoint, headers: Headers, body: bytes, *, is_last: bool) -> Response:
        """POST, as ``Connection.post`` does.

        :raises _NothingRead: if the receiver can't have read any of the request.
        """
        connection, stream = self.connection, self.connection.stream
        before = stream.tcp_state() if self.answers else None
        started = time.monotonic()
        try:
            response = connection.post(endpoint, headers, body, is_last=is_last)
        except (InvalidResponse, httpcore.NetworkError):
            if before is not None and not stream.received and self._is_unread(before):
                raise _NothingRead from None
            raise
        now = time.monotonic()
        self._idle_since = now
        self._longest = max(self._longest, now - started)
        self._apply_keep_alive(response)
        self._is_early = response.is_early or (before is not None and self._is_unacknowledged(before))
        # A receiver may refuse a message before it has read it, but it can't accept it. The first answer
        # always belongs to the first message.
        is_duplicate = before is not None and self._is_early and 200 <= response.status < 300
        self.has_surplus = is_duplicate or (connection.is_complete and connection.has_surplus)
        self.answers += 1
        return response

    def note(self, *, is_acknowledged: bool) -> None:
        """Record whether the last answer acknowledges its message."""
        self._are_all_acknowledged = self._are_all_acknowledged and is_acknowledged

    def _is_unacknowledged(self, before: TcpState) -> bool:
        """Return whether the receiver's TCP has not acknowledged the whole request yet.

        :param before: the connection's state before the request.
        """
        now = self.connection.stream.tcp_state()
        if now is None:
            return False
        # After a reset no bytes wait for an acknowledgement, so the number of acknowledged bytes counts, too.
        return (
            not now.is_acknowledged or now.acknowledged - before.acknowledged < self.connection.stream.written
        )

    def _is_unread(self, before: TcpState) -> bool:
        """Return whether the receiver can't have read any of a request that got no answer.

        There are two cases. The connection had been reset, so this machine could send nothing. Or the
        receiver had closed the connection: its end came, a reset answered the request, and neither of them
        acknowledged any of the request.

        :param before: the connection's state before the request.
        :raises DeadlineExceeded: if the time is over before this can be seen.
        """
        stream = self.connection.stream
        if not stream.written:
            stream.was_reset = True
            return True
        until = time.monotonic() + RESETS_WITHIN
        while (now := stream.tcp_state()) and now.acknowledged == before.acknowledged:
            if now.is_closed or time.monotonic() > until:
                return now.is_closed and now.received > before.received
            time.sleep(min(LOOKS_FOR_RESET, stream.deadline.left()))
        return False

    def _apply_keep_alive(self, response: Response) -> None:
        """Take over the limits of a ``Keep-Alive`` header."""
        self._requests_left -= 1
        for name, value in response.headers:
            if name == "keep-alive":
                limits = {key: int(number) for key, number in _KEEP_ALIVE.findall(value.lower())}
                if "max" in limits:  # it counts down, or is a constant that includes this request
                    self._requests_left = min(self._requests_left, limits["max"] - 1)
                if "timeout" in limits:
                    self._idle_limit = min(IDLE_LIMIT, KEEP_ALIVE_SHARE * limits["timeout"])

    @property
    def may_wait(self) -> bool:
        """Whether it may serve another request after the last response."""
        return (
            self.connection.allows_another
            and not (self.has_surplus or self._is_early)
            and self._requests_left > 0
            and self._longest <= ANSWERS_WITHIN
            and self.connection.stream.can_be_kept
        )

    def is_open(self) -> bool:
        """Return whether the connection can still be used; close it if bytes or its end came meanwhile."""
        waiting = self.connection.stream.take_waiting()
        if waiting is None:
            return True
        self.has_surplus = bool(waiting)
        self.close(is_answered=True)
        return False

    def end(self) -> None:
        """Wait for the end of the connection, and decide which of its answers count."""
        if self.connection.is_complete and not self.has_surplus:
            quiet = min(max(2 * self._longest, SHORTEST_QUIET), ANSWERS_WITHIN)
            last = self.connection.stream.take_last(quiet, ENDS_WITHIN)
            self.has_surplus = bool(last)
            self.stays_open = last is None
        self.close(is_answered=self.connection.is_complete)

    def close(self, *, is_answered: bool) -> None:
        """Close the connection now, and decide which of its answers count.

        :param is_answered: whether every request that the receiver may have read got a complete answer.
        """
        self.connection.close()
        if self.has_surplus:
            self.valid_answers = 0
        elif not self._are_all_acknowledged and (not is_answered or self.connection.stream.was_reset):
            self.valid_answers = min(self.answers, 1)
        else:
            self.valid_answers = self.answers if is_answered else max(self.answers - 1, min(self.answers, 1))


class ProvisionalAnswer(NamedTuple):
    """An answer of which it isn't known yet whether it counts. The end of its connection decides it.

    :param connection: the answer's connection.
    :param number: the number of the answer on this connection, from 1.
    """

    connection: KeptConnection
    number: int

    @property
    def counts(self) -> bool | None:
        """Whether the answer counts; ``None`` until the connection has ended."""
        valid_answers = self.connection.valid_answers
        return None if valid_answers is None else self.number <= valid_answers


class KeptConnections:
    """The connections of one try to a receiver. The threads that send to it share this object.

    Callers end unused connections with ``take_to_end`` and ``end``.

    :param transport: the transport that connects to the receiver.
    :param is_acknowledgement: returns whether a response acknowledges its message.
    :ivar is_reuse_allowed: whether connections may serve more than one request. It becomes false when one
        had surplus bytes, did not end, or broke when it was used again. Some servers close connections right
        after an answer, without announcing it.
    """

    def __init__(self, transport: Transport, is_acknowledgement: Callable[[Response], bool]) -> None:
        self._transport, self._is_acknowledgement = transport, is_acknowledgement
        self._idle: list[KeptConnection] = []  # in the order of their last use
        self._to_end: list[KeptConnection] = []
        self._lock = threading.Lock()
        self.is_reuse_allowed = True

    def post(
        self, endpoint: Endpoint, headers: Headers, body: bytes, deadline: Deadline, *, is_last: bool
    ) -> tuple[Response, ProvisionalAnswer | None]:
        """POST ``body``, and return the final response and a ``ProvisionalAnswer``.

        The ``ProvisionalAnswer`` is ``None`` if the response counts in any case, because its connection has
        no other answer.

        :param endpoint: the transport's endpoint, or another path there. A redirect is returned like any
            other response.
        :param deadline: the deadline of this exchange, and of earlier exchanges that were redirected here.
        :param is_last: whether the connection is not needed any more.
        :raises NotDelivered: if there is no final response within the time limit.
        :raises ValueError: if a header is not valid in HTTP; nothing was sent.
        """
        check_address(self._transport)
        with suppress(_NothingRead):
            return self._post(self._take(deadline), endpoint, headers, body, deadline, is_last=is_last)
        return self._post(None, endpoint, headers, body, deadline, is_last=is_last)

    def _post(
        self,
        kept: KeptConnection | None,
        endpoint: Endpoint,
        headers: Headers,
        body: bytes,
        deadline: Deadline,
        *,
        is_last: bool,
    ) -> tuple[Response, ProvisionalAnswer | None]:
        is_new = kept is None
        kept = kept or KeptConnection(self._transport, deadline)
        try:
            if is_new:
                kept.open(endpoint)
            is_last = is_last or kept.is_last or not self.is_reuse_allowed
            response = kept.post(endpoint, headers, body, is_last=is_last)
            kept.note(is_acknowledged=self._is_acknowledgement(response))
        except _NothingRead:
            kept.close(is_answered=True)
            raise
        except FAILURES as error:
            failure = not_delivered(error, kept.connection, self._transport)
            if kept.answers and isinstance(error, InvalidResponse | httpcore.NetworkError):
                self.is_reuse_allowed = False
        except BaseException:
            kept.close(is_answered=False)
            raise
        else:
            return response, self._keep_or_end(kept, is_last=is_last)
        kept.close(is_answered=False)
        raise failure

    def _keep_or_end(self, kept: KeptConnection, *, is_last: bool) -> ProvisionalAnswer | None:
        provisional = ProvisionalAnswer(kept, kept.answers)  # before others use it again
        if not is_last and kept.may_wait:
            self._put(self._idle, kept)
        elif kept.answers == 1 and (is_last or not kept.has_surplus):
            kept.connection.close()  # it is the only answer of the connection, so it belongs to the message
            return None
        else:
            self._note_end(kept)
            self._put(self._to_end, kept)
        return provisional

    def _put(self, connections: list[KeptConnection], kept: KeptConnection) -> None:
        with self._lock:
            connections.append(kept)

    def _take(self, deadline: Deadline) -> KeptConnection | None:
        """Return a connection with the next exchange begun; ``None`` if no connection can be used again."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle and self.is_reuse_allowed else None
            if kept is None:
                return None
            if kept.is_to_end:
                self._put(self._to_end, kept)
            elif kept.is_open():
                kept.connection.begin(deadline)
                return kept
            else:
                self._note_end(kept)

    def _note_end(self, kept: KeptConnection) -> None:
        if kept.has_surplus or kept.stays_open or not kept.connection.is_complete:
            self.is_reuse_allowed = False

    @property
    def have_open(self) -> bool:
        """Whether connections are open that wait for a request or for their end."""
        return bool(self._idle or self._to_end)

    def take_to_end(self, *, everything: bool) -> KeptConnection | None:
        """Remove and return a connection for ``end``: one whose time is over; ``None`` if there is none.

        :param everything: whether to return connections whose time is not over, too.
        """
        with self._lock:
            if self._to_end:
                return self._to_end.pop()
            for number, kept in enumerate(self._idle):
                if everything or not self.is_reuse_allowed or kept.is_to_end:
                    return self._idle.pop(number)
        return None

    def end(self, kept: KeptConnection) -> None:
        """End a connection that isn't used any more. This may take some seconds."""
        kept.end()
        self._note_end(kept)
