"""Find changes that become visible late: their time is before the time up to which changes were reported.

A poll starts a lookback earlier, and remembers the changes in the lookback. This needs no additional request
if everything fits into one page. If it takes more pages, a separate poll reads the lookback. It is made only
if the ordinary poll has found nothing, because DAGs that an ordinary poll wakes look back themselves. And it
is made so rarely that it needs at most one request in ten seconds.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from airflow_insightly_hooks.core.dates import utc_time
from airflow_insightly_hooks.core.detection.changes import EARLIEST, EVENTS
from airflow_insightly_hooks.core.detection.record_times import readable_times
from airflow_insightly_hooks.core.detection.seen_changes import MICROSECOND, SeenChanges
from airflow_insightly_hooks.triggers.polls import CLOCK_TOLERANCE, ONE_SECOND, Poll, Poller

__all__ = ["LatePolls"]

SECONDS_A_PAGE = 10.0
"""Seconds for each page until the lookback is read again, if it takes several pages."""


class Found(NamedTuple):
    """The findings of a poll.

    :param poll: the poll.
    :param changes: the times of changes since the time up to which changes were reported.
    :param is_late: whether it shows an earlier change that no poll has shown before.
    """

    poll: Poll
    changes: list[datetime]
    is_late: bool


class LatePolls:
    """Polls, and finds changes that become visible late. The first poll only remembers changes.

    :param poller: the poller of the account.
    :param record_type: a record type's name in Insightly's API.
    """

    def __init__(self, poller: Poller, record_type: str) -> None:
        self._poller, self._record_type = poller, record_type
        self._seen: SeenChanges | None = None
        self._fits_one_page = True
        self._look_at = 0.0

    async def poll(self, since: datetime, lookback: timedelta) -> Found:
        """Return the changes since ``since``, and whether an earlier change has become visible only now.

        :raises InsightlyAPIError: if Insightly gives no usable answer.
        """
        first = since - min(lookback, since - EARLIEST)
        if self._seen is not None:
            first = min(max(first, self._seen.since), since)  # earlier, it isn't known what was seen
        if not self._fits_one_page:
            found = await self._poll(since, since, first)
            if found.changes or found.is_late or time.monotonic() < self._look_at:
                return found
        found = await self._poll(since, first, first)
        self._fits_one_page = found.poll.is_complete and found.poll.pages == 1
        self._look_at = time.monotonic() + SECONDS_A_PAGE * found.poll.pages
        return found

    async def _poll(self, since: datetime, ask_from: datetime, zone_start: datetime) -> Found:
        poll = await self._poller.poll(self._record_type, since, ask_from)
        return await self._poller.in_thread(self._found, poll, since, zone_start)

    def _found(self, poll: Poll, since: datetime, zone_start: datetime) -> Found:
        """Remember the changes of a poll, and return which of them are new."""
        until = utc_time(max(since, poll.server_time + CLOCK_TOLERANCE)) + ONE_SECOND
        is_first = self._seen is None
        seen = SeenChanges(zone_start, until) if self._seen is None else self._seen.within(zone_start, until)
        is_late = False
        for record in poll.records:
            record_id, times = record[poll.kind.id_field], readable_times(record)
            if not any(times):  # it may belong to any window, so it is reported once
                is_late = is_late or (not is_first and seen.seen_up_to(record_id) is None)
                seen.see(record_id, [until - MICROSECOND])
                continue
            if not is_first and not is_late:
                is_late = seen.is_unseen(record_id, [at for at in times if at and at < since])
            seen.see(record_id, times)
        self._seen = seen
        with_times = replace(poll, records=tuple(r for r in poll.records if any(readable_times(r))))
        return Found(poll, with_times.changes(EVENTS, since), is_late)
