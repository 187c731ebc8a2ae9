"""One watch of an account's records of one type, for all watchers that this triggerer runs.

The triggers of the watchers share a stream of Airflow, with acknowledgement. The watch polls every
``poll_interval``; the shortest interval of all watchers counts. Each watcher gets a notice of each poll. It
reports changes in an event after they have settled. A watcher with a longer interval reports them when its
own interval is over.

The state of the records' asset (``hooks.assets``) keeps the time up to which changes were reported. The watch
gets this state without a watcher, because a stream belongs to no watcher, and a watcher may belong to another
asset. The time moves only in ``advance``. Airflow calls it when the events are in its database. So after a
triggerer was killed, changes whose event may be lost are reported again. If a watcher fails to report
changes, the next poll finds them again.

Events only wake DAGs. Airflow can delay an event until the next event comes, and keeps no event for a paused
DAG. But the cursors of the DAGs are in the same asset's state. As long as a cursor is behind, the changes are
reported again. If the DAG has a watcher of its own, only this DAG is woken (``triggers.own_cursor``).
Otherwise all DAGs that share the watcher are woken, after growing delays (``triggers.shared_cursors``).

If Insightly's webhooks wake DAGs, polls are rare, and only a safety net: the endpoint stores the events
itself. Between polls, the watch reads the announced changes (``triggers.announcements``), and has them
reported again as long as a DAG is behind. If a poll finds a change that was announced, it is not reported to
these DAGs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple, Protocol

from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_insightly_hooks.core.bounds import POLL_INTERVAL
from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.core.state.versions import check_version
from airflow_insightly_hooks.hooks.assets import WATCHED, records_asset
from airflow_insightly_hooks.hooks.process_registry import ProcessRegistry
from airflow_insightly_hooks.triggers.announcements import LOOK_INTERVAL, Announcement, Announcements
from airflow_insightly_hooks.triggers.late_polls import LatePolls
from airflow_insightly_hooks.triggers.own_cursor import FIRST_REPEAT
from airflow_insightly_hooks.triggers.polls import ONE_SECOND, Poll, poller, sleep_until
from airflow_insightly_hooks.triggers.shared_cursors import SharedCursors

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["ChangeNotice", "Watch", "Watcher", "state_of", "watching"]

log = logging.getLogger(__name__)

LONGEST_BACKOFF = 300.0
"""The most seconds until a failed poll is repeated, unless ``poll_interval`` is longer."""
AFTER_WEBHOOK = POLL_INTERVAL
"""Seconds that DAGs get to read announced changes before they are reported again."""
LONGEST_PAST = timedelta(days=1)
"""How far back a watch begins after it was stopped. DAGs that have run continue from their cursors anyway."""


class Watcher(Protocol):
    """The attributes of a watcher that a watch uses."""

    record_type: str
    insightly_conn_id: str
    poll_interval: float
    settle: float
    lookback: float
    cursor: str | None
    push: bool
    """Whether webhooks wake the DAGs, too."""
    unreported_since: datetime | None
    """The time from which it has changes that it has not reported yet; ``None`` if there are none."""


class ChangeNotice(NamedTuple):
    """A notice to all watchers, of a poll or between polls: whether there are changes in ``[since, until)``.

    :param since: the start of the changes.
    :param until: the end of the changes. With a late change, it is later than the end of each run that may
        have missed this change.
    :param is_new: whether there are changes.
    :param poll: the poll; ``None`` between polls, and at the first start of a watch, which has made no poll.
    :param polled_until: the time up to which the watch has looked for changes.
    :param is_repeat: whether the changes are reported again, for DAGs that have not read them yet.
    :param is_announced: whether webhooks have announced all of the changes.
    :param announced: the latest announcement of webhooks; ``None`` if there is none, or if webhooks wake no
        watcher's DAGs.
    """

    since: datetime
    until: datetime
    is_new: bool
    poll: Poll | None
    polled_until: datetime
    is_repeat: bool = False
    is_announced: bool = False
    announced: Announcement | None = None


_watchers = ProcessRegistry[tuple[str, str], list[Watcher]](lambda _key: [])
"""The watchers that listen, by connection id and record type."""


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Register a watcher as listening."""
    of_these = _watchers.get((watcher.insightly_conn_id, watcher.record_type))
    of_these.append(watcher)
    try:
        yield
    finally:
        of_these.remove(watcher)


class Watch(SharedStreamProducer):
    """Polls again and again. After a failed poll, it polls again after growing delays, and never ends.

    The values of listening watchers replace ``poll_interval``, ``settle``, ``lookback`` and ``push``.

    :param insightly_conn_id: the id of a connection of type ``insightly``.
    :param record_type: a record type's name in Insightly's API.
    :param poll_interval: seconds between two polls.
    :param settle: seconds that changes need to become visible.
    :param lookback: seconds; how far back the watch looks for changes that become visible late.
    :param push: whether webhooks announce changes.
    """

    def __init__(
        self,
        insightly_conn_id: str,
        record_type: str,
        poll_interval: float,
        settle: float,
        lookback: float,
        push: bool = False,
    ) -> None:
        self._conn_id = insightly_conn_id
        self._poller = poller(insightly_conn_id)
        self._record_type = record_type
        self._watchers = _watchers.get((insightly_conn_id, record_type))
        self._poll_interval, self._settle, self._lookback = poll_interval, settle, lookback
        self._push = push
        self._polls = LatePolls(self._poller, record_type)
        self._state = state_of(insightly_conn_id, record_type)
        self._since: datetime | None = None
        self._reported_until: datetime | None = None  # acknowledged
        self._stored: datetime | None = None
        self._has_unreported = False
        self._settles_at: datetime | None = None
        self._unread = SharedCursors(self._state)
        self._announcements: Announcements | None = None

    async def open_stream(self) -> AsyncIterator[tuple[ChangeNotice, ChangeNotice]]:
        """Yield a notice for each poll, and notices between polls."""
        failures, has_begun = 0, False
        while True:
            started = time.monotonic()
            retry_in: float | None = None
            try:
                notice = await self._notice()
            except Exception as error:  # if the stream ended, its watchers would end, too, again and again
                failures += 1
                retry_in = await self._retry_delay(error, failures)
            else:
                if not has_begun and self._is_pushed():
                    # The runs of the first event may fail, too, and no poll would notice it.
                    self._unread.reported(notice.since, notice.until, AFTER_WEBHOOK, is_announced=True)
                failures, has_begun = 0, True
                self._since = notice.polled_until
                yield notice, notice
            ended = time.monotonic()
            while (left := self._seconds_left(started, ended, retry_in)) > 0:
                await asyncio.sleep(min(left, LOOK_INTERVAL))
                if left > LOOK_INTERVAL and self._since is not None and self._is_pushed():
                    notice = await self._between_polls(self._since)
                    yield notice, notice

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Store the time up to which changes were reported, after the events are in Airflow's database."""
        for item in batch:
            notice: ChangeNotice = item.broker_payload
            if not item.outcome.is_clean and self._since is not None:
                self._since = min(self._since, notice.since)
                self._has_unreported = self._has_unreported or (notice.is_new and not notice.is_announced)
                return
            if notice.is_new or self._reported_until is None:
                self._reported_until = notice.polled_until
        unreported = [w.unreported_since for w in self._watchers if w.unreported_since is not None]
        until = min(unreported, default=self._reported_until)
        if until is not None and self._reported_until is not None:
            await self._store(min(until, self._reported_until))

    def _next_interval(self) -> float:
        """Return the seconds from this poll to the next. Only this method decides how often to poll."""
        wanted = min((watcher.poll_interval for watcher in self._watchers), default=self._poll_interval)
        side_by_side = sum(bool(of) for (conn_id, _), of in _watchers.items() if conn_id == self._conn_id)
        return self._poller.spaced(wanted, side_by_side)

    def _seconds_left(self, started: float, ended: float, retry_in: float | None) -> float:
        """Return the seconds until the next poll. They change when watchers come or go.

        :param started: when the last poll began.
        :param ended: when the last poll ended.
        :param retry_in: seconds from its end until it is tried again, if it has failed; otherwise ``None``.
        """
        interval = self._next_interval()
        wait = max(interval - (ended - started), interval / 5) if retry_in is None else retry_in
        return ended + wait - time.monotonic()

    async def _notice(self) -> ChangeNotice:
        """Poll once, and return the notice."""
        if self._since is None:
            self._since = await self._restored()
        settle = self._longest_settle()
        if self._since is None:
            now = await self._poller.server_time()
            begin = (now - settle).replace(microsecond=0)
            announced, _ = await self._announced(begin, now)
            return ChangeNotice(begin, begin, True, None, begin, announced=announced)
        since = self._since
        lookback = timedelta(seconds=max((w.lookback for w in self._watchers), default=self._lookback))
        poll, changes, is_late = await self._polls.poll(since, lookback)
        settled = (poll.server_time - settle).replace(microsecond=0)
        until = polled_until = max([since, settled, *(change + ONE_SECOND for change in changes)])
        announced, unannounced = await self._announced(since, poll.server_time, changes)
        if self._settles_at is not None and poll.server_time < self._settles_at:
            is_late = False  # runs read the last reported changes later than this poll, so they find it, too
        is_late, self._has_unreported = is_late or self._has_unreported, False
        if is_late:  # the window must end later than the window of each run that may have missed the change
            until = max(until, settled + ONE_SECOND)
        is_new = bool(changes) or is_late
        is_announced = is_new and not is_late and not unannounced
        if is_new:
            self._settles_at = until + settle
        if is_new and not (is_announced and self._is_pushed(all)):
            longest = POLL_INTERVAL if self._is_pushed() else math.inf
            self._unread.reported(since, until, max(min(self._next_interval(), longest), FIRST_REPEAT))
        elif self._is_shared() and (again := await self._unread.due_repeat()) is not None:
            return ChangeNotice(
                again[0], max(until, again[1]), True, poll, polled_until, is_repeat=True, announced=announced
            )
        return ChangeNotice(
            since, until, is_new, poll, polled_until, is_announced=is_announced, announced=announced
        )

    async def _between_polls(self, polled_until: datetime) -> ChangeNotice:
        """Return a notice without a poll. It repeats announced changes if a DAG has not read them."""
        announced = None
        try:
            announced, _ = await self._announced(polled_until)
            again = await self._unread.due_repeat() if self._is_shared() else None
        except Exception as error:  # it would end the stream
            log.warning(
                "The announced changes of %s can't be read: %s", self._record_type, type(error).__name__
            )
            again = None
        if again is not None:
            until = max(polled_until, again[1])
            return ChangeNotice(
                again[0], until, True, None, polled_until, is_repeat=True, announced=announced
            )
        return ChangeNotice(polled_until, polled_until, False, None, polled_until, announced=announced)

    async def _announced(
        self, polled_until: datetime, server_time: datetime | None = None, changes: Sequence[datetime] = ()
    ) -> tuple[Announcement | None, Sequence[datetime]]:
        """Read the announced changes, if webhooks wake the DAGs of a watcher.

        :param polled_until: the time up to which earlier polls have looked for changes.
        :param server_time: the server's time by an answer that has just come; ``None`` without one.
        :param changes: the times of the changes that a poll has found.
        :returns: the latest announcement, and the changes that webhooks have not announced.
        """
        if not self._is_pushed():
            self._announcements = None
            return None, changes
        if self._announcements is None:
            self._announcements = Announcements(self._state, self._conn_id, self._record_type)
        if server_time is not None:
            self._announcements.set_clock(server_time)
        before = self._announcements.latest
        await self._announcements.look(polled_until, self._longest_settle())
        unannounced = self._announcements.unannounced(changes)
        self._announcements.warn_of_missed()
        latest = self._announcements.latest
        if latest is not None and latest != before:
            self._unread.reported(*latest, AFTER_WEBHOOK, is_announced=True)
        return latest, unannounced

    def _is_pushed(self, of: Callable[[Iterable[bool]], bool] = any) -> bool:
        """Return whether webhooks wake the DAGs of any watcher, or of all watchers."""
        return of(watcher.push for watcher in self._watchers) if self._watchers else self._push

    def _is_shared(self) -> bool:
        """Return whether a watcher wakes DAGs whose cursors it doesn't know."""
        return any(watcher.cursor is None for watcher in self._watchers)

    def _longest_settle(self) -> timedelta:
        return timedelta(seconds=max((w.settle for w in self._watchers), default=self._settle))

    async def _restored(self) -> datetime | None:
        text = await self._state.aget(WATCHED)
        check_version(WATCHED, text)
        if text is None:
            return None
        self._stored = api_time(text, WATCHED)
        return max(self._stored, datetime.now(timezone.utc) - LONGEST_PAST)

    async def _store(self, until: datetime) -> None:
        if self._stored is not None and until <= self._stored:
            return
        try:
            await self._state.aset(WATCHED, iso_time(until))
        except Exception as error:  # it would end the stream
            # For example, no task keeps a cursor in the asset's state, so Airflow doesn't know the asset.
            log.info(
                "The time up to which %s were watched is not kept: %s", self._record_type, _error_text(error)
            )
        self._stored = until

    async def _retry_delay(self, error: Exception, failures: int) -> float:
        """Log that a poll has failed, and return the seconds until the next try.

        If the day's requests are used up, it waits until the next day: runs couldn't read anything, either.
        """
        interval = self._next_interval()
        if self._is_pushed():
            interval = min(interval, POLL_INTERVAL)
        if getattr(error, "day_is_spent", False):
            # It waits at least an interval: this machine's clock may be ahead of the server's.
            soonest = datetime.now(timezone.utc) + timedelta(seconds=interval)
            moment = max(getattr(error, "resets_at", None) or soonest, soonest)
            log.warning("%s; watching %s goes on at %s", error, self._record_type, iso_time(moment))
            await sleep_until(moment)
            return 0
        longest = max(LONGEST_BACKOFF, interval)
        delay = min(interval * 2.0 ** min(failures, 10), longest) * random.uniform(0.8, 1)
        log.warning(
            "Looking for %s failed (%s): trying again in %.1f s", self._record_type, _error_text(error), delay
        )
        return delay


def state_of(insightly_conn_id: str, record_type: str) -> AssetStateStoreAccessors:
    """Return the state of the records' asset, in the form that Airflow gives to triggers."""
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    return AssetStateStoreAccessors([records_asset(insightly_conn_id, record_type)])


def _error_text(error: Exception) -> str:
    """Return the text of this package's errors, and the class of others, whose text may hold secrets."""
    return str(error) if isinstance(error, InsightlyHooksError) else type(error).__name__
