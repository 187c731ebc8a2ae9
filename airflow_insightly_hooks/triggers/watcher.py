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
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple, Protocol

from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.hooks.assets import WATCHED, records_asset
from airflow_insightly_hooks.hooks.process_registry import ProcessRegistry
from airflow_insightly_hooks.triggers.late_polls import LatePolls
from airflow_insightly_hooks.triggers.own_cursor import FIRST_REPEAT
from airflow_insightly_hooks.triggers.polls import ONE_SECOND, Poll, poller, sleep_until
from airflow_insightly_hooks.triggers.shared_cursors import SharedCursors

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

__all__ = ["ChangeNotice", "Watch", "Watcher", "state_of", "watching"]

log = logging.getLogger(__name__)

LONGEST_BACKOFF = 300.0
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
    unsaid_since: datetime | None
    """From when on it holds changes back."""


class ChangeNotice(NamedTuple):
    """What one poll says to all watchers: whether there are changes in ``[since, until)``.

    :param since: from when on.
    :param until: up to when; later than all that a run may have read that knows nothing of a late change.
    :param is_new: whether there are any.
    :param poll: ``None`` at a watch's first start, which says only where it begins.
    :param place: up to when changes have been looked for.
    :param is_repeat: whether it is said again, for DAGs that have not read it yet.
    """

    since: datetime
    until: datetime
    is_new: bool
    poll: Poll | None
    place: datetime
    is_repeat: bool = False


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
    """

    def __init__(
        self, insightly_conn_id: str, record_type: str, poll_interval: float, settle: float, lookback: float
    ) -> None:
        self._conn_id = insightly_conn_id
        self._poller = poller(insightly_conn_id)
        self._record_type = record_type
        self._watchers = _watchers.get((insightly_conn_id, record_type))
        self._poll_interval, self._settle, self._lookback = poll_interval, settle, lookback
        self._polls = LatePolls(self._poller, record_type)
        self._state = state_of(insightly_conn_id, record_type)
        self._since: datetime | None = None
        self._said: datetime | None = None  # acknowledged
        self._stored: datetime | None = None
        self._is_unsaid = False
        self._settles_at: datetime | None = None
        self._unread = SharedCursors(self._state)

    async def open_stream(self) -> AsyncIterator[tuple[ChangeNotice, ChangeNotice]]:
        """Yield what each poll says."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                notice = await self._notice()
            except Exception as error:  # a stream that ends takes its watchers along, again and again
                failures += 1
                await self._outlast(error, failures)
                continue
            failures = 0
            self._since = notice.place
            yield notice, notice
            elapsed = time.monotonic() - started
            interval = self._next_interval()
            await asyncio.sleep(max(interval - elapsed, interval / 5))

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Keep up to where changes were said, now that it is in Airflow's database."""
        for item in batch:
            notice: ChangeNotice = item.broker_payload
            if not item.outcome.is_clean and self._since is not None:
                self._since = min(self._since, notice.since)
                self._is_unsaid = self._is_unsaid or notice.is_new
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

    async def _notice(self) -> ChangeNotice:
        """Return what there is to say after one poll."""
        if self._since is None:
            self._since = await self._restored()
        settle = timedelta(seconds=max((w.settle for w in self._watchers), default=self._settle))
        if self._since is None:
            begin = (await self._poller.server_time() - settle).replace(microsecond=0)
            return ChangeNotice(begin, begin, True, None, begin)
        since = self._since
        lookback = timedelta(seconds=max((w.lookback for w in self._watchers), default=self._lookback))
        poll, changes, is_late = await self._polls.poll(since, lookback)
        settled = (poll.server_time - settle).replace(microsecond=0)
        until = place = max([since, settled, *(change + ONE_SECOND for change in changes)])
        if self._settles_at is not None and poll.server_time < self._settles_at:
            is_late = False  # what was said last is read later than this
        is_late, self._is_unsaid = is_late or self._is_unsaid, False
        if is_late:  # a run reads it whose window ends later than that of any which may have passed it by
            until = max(until, settled + ONE_SECOND)
        if changes or is_late:
            self._settles_at = until + settle
            self._unread.said(since, until, max(self._next_interval(), FIRST_REPEAT))
        elif self._is_shared() and (again := await self._unread.to_repeat()) is not None:
            return ChangeNotice(again[0], max(until, again[1]), True, poll, place, is_repeat=True)
        return ChangeNotice(since, until, bool(changes) or is_late, poll, place)

    def _is_shared(self) -> bool:
        """Return whether a watcher wakes DAGs whose cursors it doesn't know."""
        return any(watcher.cursor is None for watcher in self._watchers)

    async def _restored(self) -> datetime | None:
        text = await self._state.aget(WATCHED)
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

    async def _outlast(self, error: Exception, failures: int) -> None:
        """Wait after a poll that failed, and say so."""
        interval = self._next_interval()
        if getattr(error, "day_is_spent", False):
            # At least an interval: our clock may be ahead of the one by which the day ends.
            soonest = datetime.now(timezone.utc) + timedelta(seconds=interval)
            moment = max(getattr(error, "resets_at", None) or soonest, soonest)
            log.warning("%s; watching %s goes on at %s", error, self._record_type, iso_time(moment))
            await sleep_until(moment)
            return
        longest = max(LONGEST_BACKOFF, interval)
        delay = min(interval * 2 ** min(failures, 10), longest) * random.uniform(0.8, 1)
        log.warning("Looking for %s failed (%s); again in %.1f s", self._record_type, _told(error), delay)
        await asyncio.sleep(delay)


def state_of(insightly_conn_id: str, record_type: str) -> AssetStateStoreAccessors:
    """Return the state of the asset that stands for the records, as Airflow gives it to triggers."""
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    return AssetStateStoreAccessors([records_asset(insightly_conn_id, record_type)])


def _told(error: Exception) -> str:
    """Return what can be said of an error: our own say it themselves, others might hold secrets."""
    return str(error) if isinstance(error, InsightlyHooksError) else type(error).__name__
