"""Announce changes to Airflow. Many webhooks within a second share one event.

An event names a span of time (``core.incoming.announced``). The run that it starts reads at least up to the
span's end. While the event is younger than a second, no such run can have read yet. So another webhook of a
change within the span needs no event of its own. Webhooks that come while an event is being stored wait for
it. If it doesn't cover their changes, they share the next event.

If contents are kept, a run lists them at once and doesn't wait for the span's end. So an event then counts
only if it is stored after the contents.
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
from airflow_insightly_hooks.incoming.threads import TIMEOUT, Threads

__all__ = ["Announcer", "Announcers"]

log = logging.getLogger(__name__)

EVENT_LASTS = 1.0
"""Seconds for which an event covers all changes in its span."""
LONGEST_SPAN = timedelta(minutes=15)
"""The longest span of an event that also covers the changes of an earlier event. Without a limit, spans would
grow as long as webhooks come without a pause, and a DAG's first run begins where its event's span begins."""
STORES = 4
"""How many events of all record types are stored at once. Each takes a connection to Airflow's database."""
MOST_ANNOUNCERS = 1_000
"""If there are more announcers, idle ones are dropped: a sender may name any number of custom objects."""


class _StoredEvent(NamedTuple):
    """The span of a stored event, and when it was stored, by the monotonic clock."""

    span: ChangeWindow
    at: float


class _Event:
    """An event that is to be stored.

    :param span: the span of the changes that the event covers.
    :ivar stored: the number of assets on which the event was stored, once it is.
    """

    def __init__(self, span: ChangeWindow) -> None:
        self.span = span
        self._last, self._asked_at = span.start, 0.0
        self.stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # All requests that waited may have given up: read the exception, so that asyncio doesn't log it.
        self.stored.add_done_callback(lambda stored: stored.cancelled() or stored.exception())

    def wait_for(self, span: ChangeWindow) -> None:
        """Cover the changes of a webhook that waits for this event."""
        self.add_span(span)
        self._last, self._asked_at = max(self._last, span.start), time.monotonic()

    def is_covered_by(self, stored: _StoredEvent) -> bool:
        """Return whether a stored event covers all waiting webhooks: their changes, and stored after them."""
        return self.span.start in stored.span and self._last in stored.span and self._asked_at <= stored.at

    def add_span(self, span: ChangeWindow) -> None:
        """Cover the changes of another span, too."""
        self.span = ChangeWindow(min(self.span.start, span.start), max(self.span.end, span.end))


class Announcer:
    """Announces the changes of an account's records of one type. It stores one event after another.

    :param store: stores an event and returns the number of assets.
    :param threads: the threads in which ``store`` is called.
    """

    def __init__(self, store: Callable[[ChangeWindow], int], threads: Threads) -> None:
        self._store = store
        self._threads = threads
        self._next: _Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_stored: _StoredEvent | None = None

    async def announce(self, span: ChangeWindow, *, new_event: bool = False) -> bool:
        """Wait until an event that covers the changes is stored.

        :param new_event: whether only an event that is stored from now on counts.
        :returns: ``False`` if no DAG is scheduled by these changes.
        :raises Refusal: 503, if the event can't be stored in time.
        """
        recent = self._recent_span()
        if recent is not None and span.start in recent and not new_event:
            return True
        if self._next is None:
            self._next = _Event(span)
        event = self._next
        event.wait_for(span)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._store_events())
        try:
            return await asyncio.wait_for(asyncio.shield(event.stored), TIMEOUT) > 0
        except asyncio.TimeoutError:
            log.warning(
                "An event was not stored within %g s: the sender is asked to try again; check the load of "
                "Airflow's database",
                TIMEOUT,
            )
        except Refusal:
            raise unavailable() from None
        except Exception as error:  # from the database's driver; its text may hold the statement
            log.warning(
                "An event can't be stored: %s; the sender is asked to try again; check Airflow's database",
                type(error).__name__,
            )
        raise unavailable()

    @property
    def is_idle(self) -> bool:
        """Whether no event is being stored, and none was stored within the last second."""
        return (self._task is None or self._task.done()) and self._recent_span() is None

    def _recent_span(self) -> ChangeWindow | None:
        if self._last_stored is None or time.monotonic() - self._last_stored.at >= EVENT_LASTS:
            return None
        return self._last_stored.span

    async def _store_events(self) -> None:
        meanwhile: _StoredEvent | None = None  # the event that was being stored when the webhooks came
        while (event := self._next) is not None:
            self._next = None
            if meanwhile is not None and event.is_covered_by(meanwhile):
                event.stored.set_result(1)
                continue
            recent = self._recent_span()
            if recent is not None and event.span.end - recent.start <= LONGEST_SPAN:
                event.add_span(recent)  # so that changes of alternating seconds don't each need an event
            meanwhile = None
            try:
                count, at = await self._threads.run(self._store_event, event.span)
            except Exception as error:
                event.stored.set_exception(error)
                continue
            if count:
                self._last_stored = meanwhile = _StoredEvent(event.span, at)
            event.stored.set_result(count)

    def _store_event(self, span: ChangeWindow) -> tuple[int, float]:
        return self._store(span), time.monotonic()


class Announcers:
    """All announcers of this process, by the account's connection and record type."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Announcer] = {}
        self._threads = Threads(STORES)

    def of(self, insightly_conn_id: str, record_type: str) -> Announcer:
        """Return the announcer for an account's records of one type."""
        key = (insightly_conn_id, record_type)
        if key not in self._known:
            if len(self._known) >= MOST_ANNOUNCERS:
                self._known = {known: one for known, one in self._known.items() if not one.is_idle}
            self._known[key] = Announcer(lambda span: _announce(*key, span), self._threads)
        return self._known[key]


def _announce(insightly_conn_id: str, record_type: str, span: ChangeWindow) -> int:
    with create_session(scoped=False) as session:
        return announce(session, insightly_conn_id, record_type, span)
