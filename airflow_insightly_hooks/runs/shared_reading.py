"""One scan for many windows of the past: what a run reads, and the runs beside it need not read again.

Insightly's search has no end, so a run over an old window reads every later change, too. In a backfill (or a
long catch-up) it keeps the earliest of them as XComs of its own detect task, and in the asset's state an
index without records, a chunk: runs over the windows that follow take theirs from there. In a backfill that
goes backwards it reads from further back, and keeps what was before its window. While a run reads, a claim in
the asset's state has the others wait.

The asset's state has no compare-and-set, and XComs can be cleared. All of this saves requests and decides
nothing: who finds nothing usable reads by itself, and two readers at once find the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import ChangeWindow, Event
from airflow_insightly_hooks.core.detection.nearby_changes import (
    Chunk,
    NearbyChanges,
    WindowRead,
    read_window,
)
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.errors import InvalidWindow, told
from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.core.state.versions import read_value
from airflow_insightly_hooks.runs.airflow_runs import interval_of, type_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context
    from airflow.sdk.types import Logger
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

    from airflow_insightly_hooks.core.state.state_store import StateStore
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["ReadByAnotherRun", "SharedReading"]

RUN_TYPES = ("backfill", "scheduled")
BEHIND = 3
"""How many of its own lengths a window must be past, so that its changes are shared."""
FIRST_LIMIT, LIMIT = 2_000, 20_000
"""How many changes are kept by the first run to read, which may be the only one, and by further ones."""
BACK = 64
"""From how many windows further back a backfill reads that goes backwards."""
BESIDE = 32
"""How many windows after a run's own a chunk may begin, for the backfill to be going backwards."""
VALID_FOR = timedelta(hours=1)
"""How old what was read may be: a record is shown as it was then."""
KEPT = 4
"""How many chunks the index has; each takes up to 6 kB of its 60."""
WAIT = 5.0
"""Seconds after which a run that waits for another looks again."""
FIRST_BEAT, BEAT = 1.0, 5.0
"""Seconds after which a run that reads renews its claim."""
STALE = timedelta(seconds=150)
"""The age of a claim whose run has ended without a word: above a hook's patience (120 s). An answer that is
slower yet costs a second reading only."""

T = TypeVar("T")
D = TypeVar("D")


class ReadByAnotherRun(Exception):
    """Another run has begun at the same time to read this one's window with its own."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run {run_id} is reading")


class SharedReading:
    """What the runs of one detect task share; made by ``of_run``.

    :param window: the run's window.
    :param store: the asset's state.
    :param reader: what runs must have in common to share: their type, how often they and their tasks were
        cleared (who clears a run wants it read anew), and the account.
    """

    def __init__(
        self, ti: RuntimeTaskInstance, window: ChangeWindow, store: StateStore, reader: list[Any], log: Logger
    ) -> None:
        self._ti = ti
        # Of plain times: Airflow's are pendulum's, which lose their zone when a difference is added.
        self._window = ChangeWindow.of(window.as_dict())
        self._store = store
        self._reader = reader
        self._log = log
        self._chunks_key = f"chunks/{ti.dag_id}/{ti.task_id}"
        self._claim_key = f"claim/{ti.dag_id}/{ti.task_id}"

    @classmethod
    def of_run(
        cls,
        context: Context,
        asset: Asset,
        window: ChangeWindow | None,
        hook: InsightlyHook,
        search: object,
        log: Logger,
    ) -> SharedReading | None:
        """Return what the run shares with others; ``None`` where it reads by itself.

        :param search: what else is searched for than changes; runs that search for the same share.

        Runs share if a timetable has given them their window, and it is long past.

        :raises InvalidConnection: if the connection can't be used.
        """
        run, ti, run_type = context.get("dag_run"), context.get("ti"), type_of(context)
        if ti is None or window is None or run_type not in RUN_TYPES:
            return None
        try:
            if window != interval_of(context):
                return None
        except InvalidWindow:  # it has an explicit one
            return None
        if datetime.now(timezone.utc) - window.end < BEHIND * (window.end - window.start):
            return None
        try:
            store = context["asset_state_store"][asset]
        except KeyError:  # a mapped task has no inlets of its own
            return None
        generation = [getattr(run, "clear_number", 0), ti.max_tries]
        return cls(ti, window, store, [run_type, *generation, _searched(hook, search)], log)

    def is_being_read(self) -> bool:
        """Return whether another run is reading now what this one needs."""
        run_id = self._attempt(self._who_reads, None)
        if run_id is not None:
            self._log.info("%s: looking in %g s what it has found", ReadByAnotherRun(run_id), WAIT)
        return run_id is not None

    def find(self, record_type: RecordType, events: Collection[Event]) -> WindowRead | None:
        """Return the window's changes, if another run has read them; ``None`` if it must be read."""
        return self._attempt(lambda: self._find(record_type, events), None)

    def _find(self, record_type: RecordType, events: Collection[Event]) -> WindowRead | None:
        for chunk in self._chunks():
            if not chunk.covers(self._window):
                continue
            numbers = chunk.slices_of(self._window)
            texts = [self._pull(chunk, number) for number in numbers]
            if all(isinstance(text, str) for text in texts):
                self._log.info("Run %s has read this window at %s", chunk.run_id, chunk.read_at)
                slices = [chunk.slice(number, text) for number, text in zip(numbers, texts, strict=True)]
                return read_window(self._window, record_type, slices, events)
        return None

    @contextmanager
    def reading(self, until: datetime) -> Iterator[NearbyChanges]:
        """Claim the reading for the block that reads the window, and share what it has seen.

        :param until: up to when changes are visible, by the API server's clock.
        :raises ReadByAnotherRun: out of the block, early on, if another run has begun to read the same.
        """
        chunks = self._attempt(self._chunks, None) or []
        end = self._window.end
        span = self._attempt(lambda: self._span(until, chunks), ChangeWindow(end, end))
        claimed = ChangeWindow(min(self._window.start, span.start), max(self._window.end, span.end))

        def beat(may_give_way: bool) -> None:
            self._attempt(lambda: self._renew_claim(claimed, may_give_way), None)

        beat(False)
        try:
            nearby = _ClaimedChanges(self._window, span, LIMIT if chunks else FIRST_LIMIT, beat=beat)
            yield nearby
            self._attempt(lambda: self._share(nearby), None)
        finally:
            self._attempt(self._release_claim, None)

    def _span(self, until: datetime, chunks: list[Chunk]) -> ChangeWindow:
        """Return what to keep the changes of besides the window's own."""
        start, end = self._window.start, self._window.end
        length = end - start
        if chunks and end <= api_time(chunks[0].start) <= end + BESIDE * length:
            return ChangeWindow(start - BACK * length, start)
        return ChangeWindow(end, max(until.replace(microsecond=0), end))  # more of that second may come

    def _renew_claim(self, claimed: ChangeWindow, may_give_way: bool) -> None:
        if (run_id := self._who_reads()) is None:
            now = iso_time(datetime.now(timezone.utc))
            claim = {"run_id": self._ti.run_id, "reader": self._reader, "beats_at": now}
            self._store.set(self._claim_key, {**claimed.as_dict(), **claim})
        elif may_give_way:  # only at first: later, what has been read would be thrown away
            raise ReadByAnotherRun(run_id)

    def _who_reads(self) -> str | None:
        """Return the run, other than this one, that is reading this one's window with its own."""
        match read_value(self._store, self._claim_key):
            case {"run_id": str(run_id), "reader": self._reader, "beats_at": at, "start": start, "end": end}:
                pass
            case _:
                return None
        is_alive = abs(datetime.now(timezone.utc) - api_time(at)) < STALE
        covers = api_time(start) <= self._window.start and self._window.end <= api_time(end)
        return run_id if is_alive and covers and run_id != self._ti.run_id else None

    def _release_claim(self) -> None:
        match self._store.get(self._claim_key):
            case {"run_id": self._ti.run_id}:
                self._store.delete(self._claim_key)

    def _share(self, nearby: NearbyChanges) -> None:
        if nearby.end == nearby.start:
            return
        slices = []
        read_at = iso_time(datetime.now(timezone.utc))
        for number, part in enumerate(nearby.slices()):
            self._ti.xcom_push(_key(number), {"read_at": read_at, "text": part.text})
            slices.append([iso_time(part.start), part.updated_again])
        chunk = Chunk(
            start=iso_time(nearby.start),
            end=iso_time(nearby.end),
            run_id=self._ti.run_id,
            reader=self._reader,
            read_at=read_at,
            slices=slices,
        )
        others = [other for other in self._all_chunks() if other.run_id != chunk.run_id]
        still_valid = [other for other in others if _is_valid(other)][: KEPT - 1]
        self._store.set(self._chunks_key, [kept.as_dict() for kept in (chunk, *still_valid)])
        self._log.info("Kept the changes of [%s, %s) for the runs beside this one", chunk.start, chunk.end)
        for other in others:
            if other not in still_valid:
                self._forget(other)

    def _chunks(self) -> list[Chunk]:
        """Return what this run may use, newest first."""
        return [chunk for chunk in self._all_chunks() if chunk.reader == self._reader and _is_valid(chunk)]

    def _all_chunks(self) -> list[Chunk]:
        found = read_value(self._store, self._chunks_key, [])
        try:
            return [Chunk.of(value) for value in found]
        except (TypeError, ValueError):
            return []

    def _pull(self, chunk: Chunk, number: int) -> Any:
        """Return the text of a slice; ``None`` if it's gone, or a later try's: those are cut elsewhere."""
        kept = self._ti.xcom_pull(
            task_ids=self._ti.task_id,
            run_id=chunk.run_id,
            key=_key(number),
            map_indexes=self._ti.map_index,
        )
        return kept["text"] if isinstance(kept, dict) and kept.get("read_at") == chunk.read_at else None

    def _forget(self, chunk: Chunk) -> None:
        """Delete the records of a chunk that no run will use any more."""
        from airflow.sdk.execution_time.xcom import XCom

        for number in range(len(chunk.slices)):
            XCom.delete(
                key=_key(number),
                dag_id=self._ti.dag_id,
                task_id=self._ti.task_id,
                run_id=chunk.run_id,
                map_index=self._ti.map_index,
            )

    def _attempt(self, act: Callable[[], T], otherwise: D) -> T | D:
        """Return what ``act`` returns, ``otherwise`` if it fails: a run needs nothing of what is shared."""
        try:
            return act()
        except ReadByAnotherRun:
            raise
        except Exception as error:
            self._log.warning("Runs can't share what they read (%s)", told(error))
            return otherwise


class _ClaimedChanges(NearbyChanges):
    """The nearby changes of a scan that renews its claim while it goes on.

    :param beat: what renews it; it is told whether this is the first time.
    """

    def __init__(self, *arguments: Any, beat: Callable[[bool], None]) -> None:
        super().__init__(*arguments)
        self._beat = beat
        self._is_first = True
        self._beat_at = time.monotonic() + FIRST_BEAT

    def see(self, record: Mapping[str, Any]) -> None:
        super().see(record)
        if time.monotonic() >= self._beat_at:
            self._beat(self._is_first)
            self._is_first = False
            self._beat_at = time.monotonic() + BEAT


def _is_valid(chunk: Chunk) -> bool:
    return datetime.now(timezone.utc) - api_time(chunk.read_at) < VALID_FOR


def _key(number: int) -> str:
    return f"nearby_{number}"


def _searched(hook: InsightlyHook, search: object) -> str:
    """Return what tells two accounts, or two searches, apart, and nothing about a key."""
    return digest_of(f"{hook.base_url} {hook.get_conn().auth!r} {search!r}")
