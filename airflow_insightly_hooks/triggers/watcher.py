"""One watch over an account's records of one type, for all watchers that this triggerer runs.

The watchers' triggers share a stream of Airflow's, with acknowledgement. A poll every ``poll_interval`` (the
shortest of all watchers) goes to each of them; each says what is new once that has settled, and a watcher
with a longer interval holds it back until its own is over.

Up to where changes were said is kept in the state of the records' asset (``hooks.assets``), which the watch
reaches by itself: a stream belongs to no watcher, and a watcher's own asset may be one of several. It moves
in ``advance`` alone, which Airflow calls when what was said is in its database. So a triggerer that is killed
says again what may have got lost; what a watcher has failed to say, the next poll finds again.

Events are wake-up calls. Airflow can hold one back until the next one comes, and keeps none for a paused DAG;
but the cursors of the DAGs that such events wake stand in the same asset's state. As long as one of them is
behind, it is said again: to that DAG alone if it has a watcher of its own (``triggers.own_cursor``), else to
all who share one, after longer and longer (``triggers.shared_cursors``).

Where watchers are woken by Insightly's webhooks, polls are rare, and only a safety net: the endpoint stores
events by itself. Between polls, the watch looks at what was announced (``triggers.announcements``), and has
that said again as long as a DAG is behind. What a poll finds that was announced is no news to them.
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
AFTER_WEBHOOK = POLL_INTERVAL
"""Seconds that DAGs get to read what the endpoint has told them of."""
LONGEST_PAST = timedelta(days=1)
"""How far back a watch begins that has stopped before: DAGs that have run go on from their cursors anyway."""


class Watcher(Protocol):
    """What a watch asks of its watchers."""

    record_type: str
    insightly_conn_id: str
    poll_interval: float
    settle: float
    lookback: float
    cursor: str | None
    push: bool
    """Whether webhooks wake the DAGs, too."""
    unsaid_since: datetime | None
    """From when on it holds changes back."""


class ChangeNotice(NamedTuple):
    """What a poll, or a look between polls, says to all watchers: if there are changes in ``[since, until)``.

    :param since: from when on.
    :param until: up to when; later than all that a run may have read that knows nothing of a late change.
    :param is_new: whether there are any.
    :param poll: ``None`` at a watch's first start, which says only where it begins, and between polls.
    :param place: up to when changes have been looked for.
    :param is_repeat: whether it is said again, for DAGs that have not read it yet.
    :param is_announced: whether webhooks have told of all of it.
    :param announced: what webhooks have told of last; ``None`` where no watcher is for that.
    """

    since: datetime
    until: datetime
    is_new: bool
    poll: Poll | None
    place: datetime
    is_repeat: bool = False
    is_announced: bool = False
    announced: Announcement | None = None


_watchers = ProcessRegistry[tuple[str, str], list[Watcher]](lambda _key: [])
"""Who listens, by connection id and record type."""


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Count a watcher in for as long as it listens."""
    of_these = _watchers.get((watcher.insightly_conn_id, watcher.record_type))
    of_these.append(watcher)
    try:
        yield
    finally:
        of_these.remove(watcher)


class Watch(SharedStreamProducer):
    """Polls, again and again; a poll that fails is tried again after longer and longer, and ends nothing.

    :param insightly_conn_id: a connection of type ``insightly``.
    :param record_type: a name of Insightly's API.
    :param poll_interval: seconds between two polls, as long as no watcher listens.
    :param settle: seconds that changes take to be visible, likewise.
    :param lookback: seconds after which a change is not waited for any more, likewise.
    :param push: whether webhooks tell of changes, likewise.
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
        self._said: datetime | None = None  # acknowledged
        self._stored: datetime | None = None
        self._is_unsaid = False
        self._settles_at: datetime | None = None
        self._unread = SharedCursors(self._state)
        self._announcements: Announcements | None = None

    async def open_stream(self) -> AsyncIterator[tuple[ChangeNotice, ChangeNotice]]:
        """Yield what each poll says, and what there is to say between polls."""
        failures, has_begun = 0, False
        while True:
            started = time.monotonic()
            retry_in: float | None = None
            try:
                notice = await self._notice()
            except Exception as error:  # a stream that ends takes its watchers along, again and again
                failures += 1
                retry_in = await self._outlast(error, failures)
            else:
                if not has_begun and self._is_pushed():
                    # The runs that a first event makes may fail, too, and no poll would find that out.
                    self._unread.said(notice.since, notice.until, AFTER_WEBHOOK, is_announced=True)
                failures, has_begun = 0, True
                self._since = notice.place
                yield notice, notice
            ended = time.monotonic()
            while (left := self._seconds_left(started, ended, retry_in)) > 0:
                await asyncio.sleep(min(left, LOOK_INTERVAL))
                if left > LOOK_INTERVAL and self._since is not None and self._is_pushed():
                    notice = await self._between_polls(self._since)
                    yield notice, notice

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Keep up to where changes were said, now that it is in Airflow's database."""
        for item in batch:
            notice: ChangeNotice = item.broker_payload
            if not item.outcome.is_clean and self._since is not None:
                self._since = min(self._since, notice.since)
                self._is_unsaid = self._is_unsaid or (notice.is_new and not notice.is_announced)
                return
            if notice.is_new or self._said is None:
                self._said = notice.place
        held_back = [w.unsaid_since for w in self._watchers if w.unsaid_since is not None]
        place = min(held_back, default=self._said)
        if place is not None and self._said is not None:
            await self._store(min(place, self._said))

    def _next_interval(self) -> float:
        """Return the seconds from this poll to the next: the one place that decides how often is asked."""
        wanted = min((watcher.poll_interval for watcher in self._watchers), default=self._poll_interval)
        side_by_side = sum(bool(of) for (conn_id, _), of in _watchers.items() if conn_id == self._conn_id)
        return self._poller.spaced(wanted, side_by_side)

    def _seconds_left(self, started: float, ended: float, retry_in: float | None) -> float:
        """Return how long to wait until the next poll; watchers that come or go meanwhile change that.

        :param started: when the last one was begun.
        :param ended: when it was done.
        :param retry_in: how long after that it is tried again, if it has failed.
        """
        interval = self._next_interval()
        wait = max(interval - (ended - started), interval / 5) if retry_in is None else retry_in
        return ended + wait - time.monotonic()

    async def _notice(self) -> ChangeNotice:
        """Return what there is to say after one poll."""
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
        until = place = max([since, settled, *(change + ONE_SECOND for change in changes)])
        announced, unannounced = await self._announced(since, poll.server_time, changes)
        if self._settles_at is not None and poll.server_time < self._settles_at:
            is_late = False  # what was said last is read later than this
        is_late, self._is_unsaid = is_late or self._is_unsaid, False
        if is_late:  # a run reads it whose window ends later than that of any which may have passed it by
            until = max(until, settled + ONE_SECOND)
        is_new = bool(changes) or is_late
        is_announced = is_new and not is_late and not unannounced
        if is_new:
            self._settles_at = until + settle
        if is_new and not (is_announced and self._is_pushed(all)):
            longest = POLL_INTERVAL if self._is_pushed() else math.inf
            self._unread.said(since, until, max(min(self._next_interval(), longest), FIRST_REPEAT))
        elif self._is_shared() and (again := await self._unread.to_repeat()) is not None:
            return ChangeNotice(
                again[0], max(until, again[1]), True, poll, place, is_repeat=True, announced=announced
            )
        return ChangeNotice(since, until, is_new, poll, place, is_announced=is_announced, announced=announced)

    async def _between_polls(self, place: datetime) -> ChangeNotice:
        """Return what there is to say without a poll: that a DAG has not read what was announced."""
        announced = None
        try:
            announced, _ = await self._announced(place)
            again = await self._unread.to_repeat() if self._is_shared() else None
        except Exception as error:  # it would end the stream
            log.warning("Looking for webhooks of %s failed: %s", self._record_type, type(error).__name__)
            again = None
        if again is not None:
            until = max(place, again[1])
            return ChangeNotice(again[0], until, True, None, place, is_repeat=True, announced=announced)
        return ChangeNotice(place, place, False, None, place, announced=announced)

    async def _announced(
        self, place: datetime, server_time: datetime | None = None, changes: Sequence[datetime] = ()
    ) -> tuple[Announcement | None, Sequence[datetime]]:
        """Look at what webhooks have told of, if a watcher is for that.

        :param place: up to when polls had looked for changes before.
        :param server_time: that of an answer that has just come.
        :param changes: what a poll has found.
        :returns: what they have told of last, and those of the changes that they haven't told of.
        """
        if not self._is_pushed():
            self._announcements = None
            return None, changes
        if self._announcements is None:
            self._announcements = Announcements(self._state, self._conn_id, self._record_type)
        if server_time is not None:
            self._announcements.set_clock(server_time)
        before = self._announcements.latest
        await self._announcements.look(place, self._longest_settle())
        unannounced = self._announcements.unannounced(changes)
        self._announcements.warn_of_missed()
        latest = self._announcements.latest
        if latest is not None and latest != before:
            self._unread.said(*latest, AFTER_WEBHOOK, is_announced=True)
        return latest, unannounced

    def _is_pushed(self, of: Callable[[Iterable[bool]], bool] = any) -> bool:
        """Return whether any watcher, or all, are for what webhooks tell of."""
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

    async def _store(self, place: datetime) -> None:
        if self._stored is not None and place <= self._stored:
            return
        try:
            await self._state.aset(WATCHED, iso_time(place))
        except Exception as error:  # it would end the stream
            # Such as where no task of ours keeps a cursor, so that Airflow doesn't know the asset.
            log.info("Up to when %s were watched is not kept: %s", self._record_type, _told(error))
        self._stored = place

    async def _outlast(self, error: Exception, failures: int) -> float:
        """Say that a poll has failed, and return in how many seconds to try again.

        If the day's requests are spent, it waits until they start anew: no run could read anything, either.
        """
        interval = self._next_interval()
        if self._is_pushed():
            interval = min(interval, POLL_INTERVAL)
        if getattr(error, "day_is_spent", False):
            # At least an interval: our clock may be ahead of the one by which the day ends.
            soonest = datetime.now(timezone.utc) + timedelta(seconds=interval)
            moment = max(getattr(error, "resets_at", None) or soonest, soonest)
            log.warning("%s; watching %s goes on at %s", error, self._record_type, iso_time(moment))
            await sleep_until(moment)
            return 0
        longest = max(LONGEST_BACKOFF, interval)
        delay = min(interval * 2.0 ** min(failures, 10), longest) * random.uniform(0.8, 1)
        log.warning("Looking for %s failed (%s); again in %.1f s", self._record_type, _told(error), delay)
        return delay


def state_of(insightly_conn_id: str, record_type: str) -> AssetStateStoreAccessors:
    """Return the state of the asset that stands for the records, as Airflow gives it to triggers."""
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    return AssetStateStoreAccessors([records_asset(insightly_conn_id, record_type)])


def _told(error: Exception) -> str:
    """Return what can be said of an error: our own say it themselves, others might hold secrets."""
    return str(error) if isinstance(error, InsightlyHooksError) else type(error).__name__
