"""Make a watcher's events, which wake DAGs, from the notices of its watch, and decide when each is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

from airflow.triggers.base import TriggerEvent

from airflow_insightly_hooks.core.bounds import POLL_INTERVAL
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.triggers import watcher as watch
from airflow_insightly_hooks.triggers.announcements import Announcement
from airflow_insightly_hooks.triggers.own_cursor import OwnCursor
from airflow_insightly_hooks.triggers.watcher import ChangeNotice, Watcher, watching

__all__ = ["watcher_events"]

LONGEST_HOLD = 60.0
"""The most seconds that a watcher waits for changes to settle before it reports them (Airflow allows 300)."""


async def watcher_events(
    watcher: Watcher, notices: AsyncIterator[ChangeNotice]
) -> AsyncIterator[TriggerEvent]:
    """Yield an event when changes have settled and the watcher's interval is over.

    :param watcher: the watcher of the events. It is registered as listening while its events are read.
    :param notices: the notices of the watch.
    """
    interval = min(watcher.poll_interval, POLL_INTERVAL) if watcher.push else watcher.poll_interval
    own = None
    if watcher.cursor is not None:
        state = watch.state_of(watcher.insightly_conn_id, watcher.record_type)
        own = OwnCursor(state, watcher.cursor, interval, is_pushed=watcher.push)
    reported_at: float | None = None
    announced: Announcement | None = None
    until = datetime.min.replace(tzinfo=timezone.utc)
    with watching(watcher):
        async for notice in notices:
            is_for_others = notice.is_repeat and own is not None
            is_news = notice.is_new and not is_for_others and not (watcher.push and notice.is_announced)
            if is_news or reported_at is None:
                watcher.unreported_since = min(notice.since, watcher.unreported_since or notice.since)
                until = max(until, notice.until)
            if own is not None and watcher.push and notice.announced not in (None, announced):
                announced = notice.announced
                own.announced(*announced)
            now = time.monotonic()
            # Polls are not exact to the millisecond. A poll that is a little early counts as the due one.
            if reported_at is not None and now - reported_at < 0.8 * interval:
                continue
            if watcher.unreported_since is not None:
                if notice.poll is not None:
                    seconds = notice.poll.seconds_until(until + timedelta(seconds=watcher.settle))
                    await asyncio.sleep(min(max(seconds, 0), LONGEST_HOLD))
                since = watcher.unreported_since
                if own is not None:
                    await own.reported(since, until)
                watcher.unreported_since = None
            elif own is not None and (again := await own.due_repeat()) is not None:
                since, until = again[0], max(until, again[1])
            else:
                continue
            reported_at = now
            payload = {"since": iso_time(since), "until": iso_time(until)}
            yield TriggerEvent(payload if own is None else {**payload, "cursor": watcher.cursor})
