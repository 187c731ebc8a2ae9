"""Poll Insightly for changes, for all triggers of one process.

The polls of an account share hooks, whose sessions are kept from poll to poll. They also share a few threads
of their own, because requests block: neither the triggerer's loop nor the threads of other triggers may wait
for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.changes import EVENTS, ChangeWindow, Event, changes_in
from airflow_insightly_hooks.core.detection.record_times import time_fields
from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType
from airflow_insightly_hooks.hooks.process_registry import ProcessRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

T = TypeVar("T")

__all__ = ["CLOCK_TOLERANCE", "ONE_SECOND", "Poll", "Poller", "poller", "sleep_until"]

PAGE = 500
THREADS = 4
PATIENCE = 5.0
"""The most seconds that a poll waits after 429 and 503. Another poll follows anyway, and threads are few."""
HOOK_LASTS = 300.0
"""Seconds for which a hook is used before its connection is read again. A failure ends its use at once."""
CLOCK_TOLERANCE = timedelta(seconds=60)
"""How far ahead of the server's clock a change may be. Later times are values that somebody has entered."""
ONE_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Poll:
    """The result of one poll.

    :param kind: the record type.
    :param since: the time from which the poll has looked for changes.
    :param server_time: the time of the answer by the server's clock.
    :param at: the time of the answer by this machine's monotonic clock.
    :param records: the changed records, with their ids and times only.
    :param is_complete: whether these are all changed records. A poll stops soon after the first page with a
        change that it looks for.
    :param pages: the number of pages that were read.
    """

    kind: RecordType
    since: datetime
    server_time: datetime
    at: float
    records: tuple[dict[str, Any], ...]
    is_complete: bool
    pages: int

    def changes(self, events: Collection[Event], since: datetime) -> list[datetime]:
        """Return the times of these events since ``since``."""
        window = _window(since, self.server_time)
        return [api_time(c["changed_at"]) for c in changes_in(window, self.kind, self.records, events)]

    def seconds_until(self, moment: datetime) -> float:
        """Return the seconds until a moment by the server's clock; negative for a moment in the past."""
        return (moment - self.server_time).total_seconds() - (time.monotonic() - self.at)


class _Kept(NamedTuple):
    outcome: Poll | Exception
    at: float


class Poller:
    """Polls one account. It keeps hooks, and the latest results.

    :param insightly_conn_id: the id of the account's connection.
    """

    def __init__(self, insightly_conn_id: str) -> None:
        self._conn_id = insightly_conn_id
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"insightly-{insightly_conn_id}")
        self._hooks: list[tuple[InsightlyHook, float]] = []
        self._waiting: dict[str, dict[object, datetime]] = {}
        self._locks: dict[str, Lock] = {}
        self._kept: dict[str, _Kept] = {}

    async def server_time(self) -> datetime:
        """Return the server's time.

        :raises InsightlyAPIError: if Insightly gives no usable answer.
        """
        return await self.in_thread(self._server_time)

    async def poll(self, record_type: str, since: datetime, first: datetime | None = None) -> Poll:
        """Return the records that have changed since ``since``. Without changes, it takes one small request.

        :param first: an earlier time from which to read, too. Changes before ``since`` don't end the poll.
        :raises InsightlyAPIError: if Insightly gives no usable answer.
        """
        return await self.in_thread(self._poll, RECORD_TYPES[record_type], first or since, EVENTS, since)

    async def shared_poll(
        self, record_type: str, since: datetime, events: Collection[Event], max_age: float
    ) -> Poll:
        """Return the result of another trigger's poll if it is recent and answers the question; else poll.

        :param max_age: the most seconds since the other poll.
        :raises InsightlyAPIError: if Insightly gives no usable answer, or gave none to the recent poll.
        """
        return await self.in_thread(self._shared_poll, RECORD_TYPES[record_type], since, events, max_age)

    def spaced(self, interval: float, requests: int = 0) -> float:
        """Return the seconds to leave between two polls, so that the day's requests last until the day ends.

        :param interval: the least seconds between two polls. It is returned if there are enough requests.
        :param requests: the number of requests in each interval, without shared polls.
        """
        requests += sum(bool(waiting) for waiting in self._waiting.values())
        for hook, _ in self._hooks[-1:]:  # a hook that was used: it has read its connection already
            return hook.spaced(interval, max(1, requests))
        return interval

    @contextlib.contextmanager
    def waiting(self, record_type: str, since: datetime) -> Iterator[None]:
        """Have shared polls look for changes from ``since`` on, so that one poll serves all triggers."""
        mine = object()
        waiting = self._waiting.setdefault(record_type, {})
        waiting[mine] = since
        try:
            yield
        finally:
            del waiting[mine]

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in one of the account's own threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _shared_poll(
        self, kind: RecordType, since: datetime, events: Collection[Event], max_age: float
    ) -> Poll:
        with self._locks.setdefault(
            kind.name, Lock()
        ):  # a trigger that waits here may use the other's result
            kept = self._kept.get(kind.name)
            if kept is not None and time.monotonic() - kept.at <= max_age:
                if isinstance(kept.outcome, Exception):
                    raise kept.outcome.with_traceback(None)
                tells = kept.outcome.is_complete or kept.outcome.changes(events, since)
                if kept.outcome.since <= since and tells:
                    return kept.outcome
            first = min([since, *self._waiting.get(kind.name, {}).values()])
            try:
                outcome: Poll | Exception = self._poll(kind, first, events, since)
            except Exception as error:
                outcome = error
            self._kept[kind.name] = _Kept(outcome, time.monotonic())
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    def _poll(self, kind: RecordType, first: datetime, events: Collection[Event], since: datetime) -> Poll:
        """Read the records that have changed since ``first``, up to the page with one of ``events``."""
        # Answers without custom fields are small. But the times of a custom object may be custom fields.
        search: dict[str, Any] = {} if kind.is_custom_object else {"brief": True}
        found: list[dict[str, Any]] = []
        is_complete, is_enough, count = True, False, 0
        search_from = ChangeWindow(first, first).search_from
        with self._hook() as hook:
            for count, record in enumerate(
                hook.iter_records(kind.name, updated_after=search_from, page_size=PAGE, **search), 1
            ):
                now = hook.server_time()  # the time of the page's own answer
                slim = {kind.id_field: record.get(kind.id_field), **time_fields(record)}
                if any(changes_in(_window(first, now), kind, [slim])):
                    found.append(slim)
                    is_enough = is_enough or any(changes_in(_window(since, now), kind, [slim], events))
                if is_enough and count % PAGE == 0:
                    is_complete = False
                    break
            server_time = hook.server_time()
        pages = max(1, -(-count // PAGE))
        return Poll(kind, first, server_time, time.monotonic(), tuple(found), is_complete, pages)

    def _server_time(self) -> datetime:
        with self._hook() as hook:
            return hook.server_time()

    @contextlib.contextmanager
    def _hook(self) -> Iterator[InsightlyHook]:
        """Lend a hook. It is used again later, except after an error, or ``HOOK_LASTS`` seconds."""
        from airflow_insightly_hooks.hooks.insightly import InsightlyHook

        try:
            hook, made_at = self._hooks.pop()
        except IndexError:
            hook, made_at = InsightlyHook(self._conn_id), time.monotonic()
            hook.patience = PATIENCE
        is_kept = False
        try:
            yield hook
            is_kept = time.monotonic() - made_at < HOOK_LASTS
        finally:
            if is_kept:
                self._hooks.append((hook, made_at))
            else:
                # If the connection couldn't be read, there is no session to close.
                with contextlib.suppress(Exception):
                    hook.get_conn().close()


def _window(since: datetime, now: datetime) -> ChangeWindow:
    return ChangeWindow(since, max(since, now + CLOCK_TOLERANCE))


_pollers = ProcessRegistry(Poller)


def poller(insightly_conn_id: str) -> Poller:
    """Return the poller of a connection's account. All triggers of this process share it."""
    return _pollers.get(insightly_conn_id)


async def sleep_until(moment: datetime) -> None:
    """Sleep until a time by the wall clock, even if the clock is set meanwhile."""
    while (seconds := (moment - datetime.now(timezone.utc)).total_seconds()) > 0:
        await asyncio.sleep(min(seconds, 60))
