"""Connections that serve several POSTs of one try, and which of their answers count.

A receiver, or a proxy before it, may send a response twice, or late. On a connection that is used again, that
one is read as the answer to the next message, and so is each that follows: in the end there is one response
too many. So what was answered on such a connection counts once the connection has ended without a byte too
many. Its last request asks the receiver to close it, and what comes is read to the end; a receiver that
doesn't close it is told, after a while, that nothing more is sent (a half-close). A connection lives for some
seconds at most, so that no answer waits long.

A response that came although the receiver's TCP had not acknowledged the request yet is one too many, too.

If a connection breaks before a message is answered, or is reset, a byte too many can't show any more, and the
answers may have shifted by one. So the last one doesn't count, unless it was a reset while nothing was under
way; and if one of them was no acknowledgement, none counts but the first one, which always does. (Two late
responses on one connection that neither show before it breaks would be needed to hide more. To count none
would have receivers that break connections now and then get everything twice.)
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
"""Seconds for which a connection waits for its next request at most."""
KEEP_ALIVE_SHARE = 0.8
"""The part of what ``Keep-Alive: timeout=…`` tells after which a connection isn't used any more."""
LIFE_FACTOR = 50
"""How many times as long as it took to open it a connection lives: to open others costs 2 % then …"""
SHORTEST_LIFE, LONGEST_LIFE = 0.1, 10.0
"""… but so many seconds at least, and at most."""
ANSWERS_WITHIN = 2.0
"""Seconds within which a receiver must answer for its connection to be used again: else there is little to
gain, and it would take long to see that nothing more comes."""
SHORTEST_QUIET = 0.05
"""Seconds to wait at least for a receiver to close a connection, until it is half-closed."""
ENDS_WITHIN = 1.0
"""Seconds to wait then for the receiver's end of it."""
RESETS_WITHIN = 1.0
"""Seconds within which the reset of a connection comes to which something was sent after its end."""
LOOKS_FOR_RESET = 0.002

_KEEP_ALIVE = re.compile(r"(timeout|max)\s*=\s*\"?([0-9]{1,9})")


class _NothingRead(Exception):
    """The receiver had closed the connection before the request came: it can have read nothing of it."""


class KeptConnection:
    """A connection that serves one POST after another.

    :param transport: the way to the receiver.
    :param deadline: of the first exchange.
    :ivar answers: how many messages were answered on it.
    :ivar counting: how many of these answers count, from the first one on; ``None`` until it has ended.
    :ivar has_surplus: whether a byte came too many.
    :ivar is_mute: whether the receiver has not ended it when it was told that nothing more is sent.
    """

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self.connection = Connection(transport, deadline)
        self.answers = 0
        self.counting: int | None = None
        self.has_surplus = False
        self.is_mute = False
        self._opened_at = self._idle_since = time.monotonic()
        self._life = SHORTEST_LIFE
        self._are_all_taken = True  # each message was acknowledged
        self._is_early = False  # an answer came before its request can have been read
        self._longest = 0.0  # seconds that an answer took
        self._requests_left = math.inf
        self._idle_limit = IDLE_LIMIT

    def open(self, endpoint: Endpoint) -> None:
        """Connect; raises what ``Connection.open`` does."""
        self.connection.open(endpoint)
        taken = time.monotonic() - self._opened_at
        self._life = min(max(LIFE_FACTOR * taken, SHORTEST_LIFE), LONGEST_LIFE)

    @property
    def _is_past_life(self) -> bool:
        """Whether an answer to one more request would come when its time is over."""
        return time.monotonic() - self._opened_at + self._longest > self._life

    @property
    def is_to_end(self) -> bool:
        """Whether it has waited for a further request for too long."""
        idle = time.monotonic() - self._idle_since
        # Past its life it waits for a moment only: for a last request that asks to close it.
        return idle > self._idle_limit or (idle > SHORTEST_LIFE and self._is_past_life)

    @property
    def is_last(self) -> bool:
        """Whether the next request is its last one."""
        return self._is_past_life or self._requests_left <= 1

    def post(self, endpoint: Endpoint, headers: Headers, body: bytes, *, is_last: bool) -> Response:
        """POST, as ``Connection.post`` does.

        :raises _NothingRead: if the receiver can have read nothing.
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
        self._heed_keep_alive(response)
        self._is_early = response.is_early or (before is not None and self._is_unacknowledged(before))
        # A receiver may refuse a message that it hasn't read, but not take it. The first answer is that to
        # the first message, in any case.
        is_duplicate = before is not None and self._is_early and 200 <= response.status < 300
        self.has_surplus = is_duplicate or (connection.is_complete and connection.has_surplus)
        self.answers += 1
        return response

    def note(self, *, is_taken: bool) -> None:
        """Note whether the last answer acknowledges its message."""
        self._are_all_taken = self._are_all_taken and is_taken

    def _is_unacknowledged(self, before: TcpState) -> bool:
        """Return whether the receiver's TCP has not acknowledged the whole request yet.

        :param before: of the connection, before the request.
        """
        now = self.connection.stream.tcp_state()
        if now is None:
            return False
        # After a reset nothing waits to be acknowledged; what was acknowledged may be an earlier request.
        return (
            not now.is_acknowledged or now.acknowledged - before.acknowledged < self.connection.stream.written
        )

    def _is_unread(self, before: TcpState) -> bool:
        """Return whether the receiver can have read nothing of the request that got no answer.

        That is so if this machine could send nothing, since the connection had been reset; or if the receiver
        had closed it: its end came and acknowledged nothing of the request, and nor does the reset that
        answers the request.

        :param before: of the connection, before the request.
        :raises DeadlineExceeded: if the time is over before that shows.
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

    def _heed_keep_alive(self, response: Response) -> None:
        """Take account of what a ``Keep-Alive`` header tells."""
        self._requests_left -= 1
        for name, value in response.headers:
            if name == "keep-alive":
                told = {key: int(number) for key, number in _KEEP_ALIVE.findall(value.lower())}
                if "max" in told:  # it counts down, or is always the same and counts this request, too
                    self._requests_left = min(self._requests_left, told["max"] - 1)
                if "timeout" in told:
                    self._idle_limit = min(IDLE_LIMIT, KEEP_ALIVE_SHARE * told["timeout"])

    @property
    def may_wait(self) -> bool:
        """Whether it may serve a further request, after the last response."""
        return (
            self.connection.allows_another
            and not (self.has_surplus or self._is_early)
            and self._requests_left > 0
            and self._longest <= ANSWERS_WITHIN
            and self.connection.stream.can_be_kept
        )

    def is_open(self) -> bool:
        """Return whether nothing has come behind the last answer, not its end either; else close it."""
        waiting = self.connection.stream.take_waiting()
        if waiting is None:
            return True
        self.has_surplus = bool(waiting)
        self.close(is_answered=True)
        return False

    def end(self) -> None:
        """Wait for its end, and say which of its answers count."""
        if self.connection.is_complete and not self.has_surplus:
            quiet = min(max(2 * self._longest, SHORTEST_QUIET), ANSWERS_WITHIN)
            last = self.connection.stream.take_last(quiet, ENDS_WITHIN)
            self.has_surplus = bool(last)
            self.is_mute = last is None
        self.close(is_answered=self.connection.is_complete)

    def close(self, *, is_answered: bool) -> None:
        """Close it now, and say which of its answers count.

        :param is_answered: whether all that the receiver can have read was answered, to the answer's end.
        """
        self.connection.close()
        if self.has_surplus:
            self.counting = 0
        elif not self._are_all_taken and (not is_answered or self.connection.stream.was_reset):
            self.counting = min(self.answers, 1)
        else:
            self.counting = self.answers if is_answered else max(self.answers - 1, min(self.answers, 1))


class ProvisionalAnswer(NamedTuple):
    """An answer that counts, or doesn't, once its connection has ended.

    :param number: which one on that connection it is, from 1 on.
    """

    connection: KeptConnection
    number: int

    @property
    def counts(self) -> bool | None:
        """Whether it counts; ``None`` until that is known."""
        counting = self.connection.counting
        return None if counting is None else self.number <= counting


class KeptConnections:
    """The connections of one try to a receiver; shared by the threads that send to it.

    :param transport: the way to the receiver.
    :param is_taken: whether a response acknowledges its message.
    :ivar are_used_again: whether they are; not any more once one had a byte too many, never ended, or broke
        when it was used again: some servers end connections without a word, just after an answer.
        Those that aren't needed any more are ended by ``take_to_end`` and ``end``.
    """

    def __init__(self, transport: Transport, is_taken: Callable[[Response], bool]) -> None:
        self._transport, self._is_taken = transport, is_taken
        self._idle: list[KeptConnection] = []  # the one that was used last comes last
        self._to_end: list[KeptConnection] = []
        self._lock = threading.Lock()
        self.are_used_again = True

    def post(
        self, endpoint: Endpoint, headers: Headers, body: bytes, deadline: Deadline, *, is_last: bool
    ) -> tuple[Response, ProvisionalAnswer | None]:
        """POST ``body`` and return the final response, and what tells whether it counts.

        That is ``None`` where it counts in any case: nothing else was answered on its connection.

        :param endpoint: the transport's; or another path there. Redirects are responses like others.
        :param deadline: of this exchange, and of those before it that led here.
        :param is_last: whether the connection is not needed any more.
        :raises NotDelivered: if there is no final response within the time limit.
        :raises ValueError: if a header holds what none can; nothing was sent.
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
            is_last = is_last or kept.is_last or not self.are_used_again
            response = kept.post(endpoint, headers, body, is_last=is_last)
            kept.note(is_taken=self._is_taken(response))
        except _NothingRead:
            kept.close(is_answered=True)
            raise
        except FAILURES as error:
            failure = not_delivered(error, kept.connection, self._transport)
            if kept.answers and isinstance(error, InvalidResponse | httpcore.NetworkError):
                self.are_used_again = False
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
            kept.connection.close()  # no other was answered there: it is the answer to this one
            return None
        else:
            self._note_end(kept)
            self._put(self._to_end, kept)
        return provisional

    def _put(self, connections: list[KeptConnection], kept: KeptConnection) -> None:
        with self._lock:
            connections.append(kept)

    def _take(self, deadline: Deadline) -> KeptConnection | None:
        """Begin the next exchange on a connection that can be used again; ``None`` where all are busy."""
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle and self.are_used_again else None
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
        if kept.has_surplus or kept.is_mute or not kept.connection.is_complete:
            self.are_used_again = False

    @property
    def have_open(self) -> bool:
        """Whether some wait for a request, or for their end."""
        return bool(self._idle or self._to_end)

    def take_to_end(self, *, everything: bool) -> KeptConnection | None:
        """Take one whose time is over, or any, for ``end``."""
        with self._lock:
            if self._to_end:
                return self._to_end.pop()
            for number, kept in enumerate(self._idle):
                if everything or not self.are_used_again or kept.is_to_end:
                    return self._idle.pop(number)
        return None

    def end(self, kept: KeptConnection) -> None:
        """End one that isn't used any more; this may take some seconds."""
        kept.end()
        self._note_end(kept)
