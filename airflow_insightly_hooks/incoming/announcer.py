"""Telling Airflow of changes, so that many webhooks within a second make one event.

An event names a span of time (``core.incoming.announced``). The run that it starts reads up to the span's end
at least. So a webhook of a change within the span needs no event, as long as the event is younger than a
second: no run that it has made can have read yet. Webhooks that come while an event is being stored wait for
it; if it doesn't tell of their changes, they share the next one.

Where contents are kept, a run lists them at once, without waiting for the span's end. So there only an
event counts that is stored later than the contents are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from airflow.utils.session import create_session

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.database.announcements import announce
from airflow_insightly_hooks.incoming.answers import Refusal, unavailable
from airflow_insightly_hooks.incoming.threads import PATIENCE, Threads

__all__ = ["Announcer", "Announcers"]

log = logging.getLogger(__name__)

EVENT_LASTS = 1.0
"""Seconds for which an event tells of all changes in its span."""
LONGEST_SPAN = timedelta(minutes=15)
"""Of an event that tells of an earlier one's changes, too: while webhooks come without a pause, spans would
grow, and a DAG's first run begins where its event's span does."""
STORES = 4
"""How many events are stored at once, of all record types: each takes a connection of Airflow's database."""
MOST_ANNOUNCERS = 1_000
"""Beyond this many, idle ones are dropped: a sender may name as many custom objects as it likes."""


class _Told(NamedTuple):
    """What a stored event tells of, and when it was stored, by the monotonic clock."""

    span: ChangeWindow
    at: float


class _Event:
    """An event that is to be stored.

    :param span: which changes it tells of.
    :ivar stored: to how many assets it was said, once it is stored.
    """

    def __init__(self, span: ChangeWindow) -> None:
        self.span = span
        self._last, self._asked_at = span.start, 0.0
        self.stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Those who wait may all have given up.
        self.stored.add_done_callback(lambda stored: stored.cancelled() or stored.exception())

    def wait_for(self, span: ChangeWindow) -> None:
        """Have it tell of the changes of a webhook that waits for it."""
        self.take(span)
        self._last, self._asked_at = max(self._last, span.start), time.monotonic()

    def is_told_by(self, told: _Told) -> bool:
        """Return whether an event tells of all that wait: of their changes, and stored after they came."""
        return self.span.start in told.span and self._last in told.span and self._asked_at <= told.at

    def take(self, span: ChangeWindow) -> None:
        """Have it tell of further changes, too."""
        self.span = ChangeWindow(min(self.span.start, span.start), max(self.span.end, span.end))


class Announcer:
    """Tells of the changes of an account's records of one type; its events are stored one after another.

    :param store: stores an event; returns on how many assets.
    :param threads: where it does so.
    """

    def __init__(self, store: Callable[[ChangeWindow], int], threads: Threads) -> None:
        self._store = store
        self._threads = threads
        self._next: _Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._told: _Told | None = None

    async def tell(self, span: ChangeWindow, *, anew: bool = False) -> bool:
        """Return once an event is stored that tells of the changes; ``False`` if no DAG waits for any.

        :param anew: whether that must be one which is stored from now on.
        :raises Refusal: 503, if it can't be stored in time.
        """
        told = self._lately_told()
        if told is not None and span.start in told and not anew:
            return True
        if self._next is None:
            self._next = _Event(span)
        event = self._next
        event.wait_for(span)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._store_events())
        try:
            return await asyncio.wait_for(asyncio.shield(event.stored), PATIENCE) > 0
        except asyncio.TimeoutError:
            log.warning("An event was not stored within %g s", PATIENCE)
        except Refusal:
            raise unavailable() from None
        except Exception as error:  # of the database's driver; its text may hold the statement
            log.warning("An event can't be stored: %s", type(error).__name__)
        raise unavailable()

    @property
    def is_idle(self) -> bool:
        """Whether it stores nothing, and has told of nothing lately."""
        return (self._task is None or self._task.done()) and self._lately_told() is None

    def _lately_told(self) -> ChangeWindow | None:
        if self._told is None or time.monotonic() - self._told.at >= EVENT_LASTS:
            return None
        return self._told.span

    async def _store_events(self) -> None:
        meanwhile: _Told | None = None  # what was being stored when they came
        while (event := self._next) is not None:
            self._next = None
            if meanwhile is not None and event.is_told_by(meanwhile):
                event.stored.set_result(1)
                continue
            told = self._lately_told()
            if told is not None and event.span.end - told.start <= LONGEST_SPAN:
                event.take(told)  # so that changes which come by turns of several seconds need no event each
            meanwhile = None
            try:
                count, at = await self._threads.run(self._store_event, event.span)
            except Exception as error:
                event.stored.set_exception(error)
                continue
            if count:
                self._told = meanwhile = _Told(event.span, at)
            event.stored.set_result(count)

    def _store_event(self, span: ChangeWindow) -> tuple[int, float]:
        return self._store(span), time.monotonic()


class Announcers:
    """All announcers of this process, by connection of the account, and record type."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Announcer] = {}
        self._threads = Threads(STORES)

    def of(self, insightly_conn_id: str, record_type: str) -> Announcer:
        """Return the one for an account's records of one type."""
        key = (insightly_conn_id, record_type)
        if key not in self._known:
            if len(self._known) >= MOST_ANNOUNCERS:
                self._known = {known: one for known, one in self._known.items() if not one.is_idle}
            self._known[key] = Announcer(lambda span: _announce(*key, span), self._threads)
        return self._known[key]


def _announce(insightly_conn_id: str, record_type: str, span: ChangeWindow) -> int:
    with create_session(scoped=False) as session:
        return announce(session, insightly_conn_id, record_type, span)
