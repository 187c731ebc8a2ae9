"""Share one scan between runs over many windows of the past, so that the other runs need not scan again.

Insightly's search has no end time, so a run over an old window also reads every later change. In a backfill
(or a long catch-up), the run keeps the earliest of the later changes as XComs of its own detect task. In the
asset's state it keeps a chunk: an index of these XComs, without records. Runs over the next windows take
their changes from there. If a backfill goes backwards, the run reads from further back, and keeps the changes
before its window. While a run reads, its claim in the asset's state makes the others wait.

The asset's state has no compare-and-set, and XComs can be cleared. So sharing only saves requests, and no
result depends on it. A run that finds nothing it can use reads by itself. Two runs that read at once find the
same.
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
from airflow_insightly_hooks.core.errors import InvalidWindow, type_and_place
from airflow_insightly_hooks.core.records import RecordType
from airflow_insightly_hooks.core.state.versions import is_newer
from airflow_insightly_hooks.runs.airflow_runs import interval_of, type_of

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context
    from airflow.sdk.types import Logger
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as RuntimeTaskInstance

    from airflow_insightly_hooks.core.state.state_store import StateStore
    from airflow_insightly_hooks.hooks.insightly import InsightlyHook

__all__ = ["ReadByAnotherRun", "SharedReading", "shared_keys"]

RUN_TYPES = ("backfill", "scheduled")
BEHIND = 3
"""A window's changes are shared if it ended at least this many times its own length ago."""
FIRST_LIMIT, LIMIT = 2_000, 20_000
"""How many changes are kept by the first run that reads, which may be the only one, and by later runs."""
BACK = 64
"""If a backfill goes backwards, a run starts reading this many windows before its own."""
BESIDE = 32
"""If a chunk begins at most this many windows after a run's own, the backfill goes backwards."""
VALID_FOR = timedelta(hours=1)
"""How long a chunk is used. It has the records as they were when they were read."""
KEPT = 4
"""How many chunks are kept. Each takes up to 6 kB; the value in the asset's state may have 60 kB."""
WAIT = 5.0
"""Seconds after which a run that waits for another looks again."""
FIRST_BEAT, BEAT = 1.0, 5.0
"""Seconds after which a run that reads renews its claim: the first time, and from then on."""
STALE = timedelta(seconds=150)
"""If a claim is older, its run has ended without releasing it. This is longer than a hook waits for an answer
(120 s). If an answer takes longer still, the only cost is that a second run reads, too."""

T = TypeVar("T")
D = TypeVar("D")


def shared_keys(dag_id: str, task_id: str) -> tuple[str, str]:
    """Return a task's keys in the asset's state: of its chunks, and of the claim of the run that reads."""
    return f"chunks/{dag_id}/{task_id}", f"claim/{dag_id}/{task_id}"


class ReadByAnotherRun(Exception):
    """Another run is reading a span that includes this run's window. It began at the same time."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run {run_id} is reading")


class SharedReading:
    """Shares the scans between the runs of one detect task. Created by ``of_run``.

    :param ti: the run's task instance.
    :param window: the run's window.
    :param store: the asset's state.
    :param reader: the values that runs must have in common to share: their type, how often they and their
        tasks were cleared (a run that was cleared should read again), and the account.
    :param log: the task's log.
    """

    def __init__(
        self, ti: RuntimeTaskInstance, window: ChangeWindow, store: StateStore, reader: list[Any], log: Logger
    ) -> None:
        self._ti = ti
        # A window of datetimes: Airflow gives pendulum's times, which lose their zone if a delta is added.
        self._window = ChangeWindow.of(window.as_dict())
        self._store = store
        self._reader = reader
        self._log = log
        self._chunks_key, self._claim_key = shared_keys(ti.dag_id, ti.task_id)

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
        """Return the object through which the run shares its scan; ``None`` if the run reads by itself.

        Runs share if their windows come from a timetable and are long past.

        :param search: the other conditions of the search. Only runs with the same conditions share.
        :raises InvalidConnection: if the connection can't be used.
        """
        run, ti, run_type = context.get("dag_run"), context.get("ti"), type_of(context)
        if ti is None or window is None or run_type not in RUN_TYPES:
            return None
        try:
            if window != interval_of(context):
                return None
        except InvalidWindow:  # the run has an explicit window
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
        """Return whether another run is reading this run's window now."""
        run_id = self._attempt(self._reading_run, None)
        if run_id is not None:
            self._log.info("%s: this run looks for its result in %g s", ReadByAnotherRun(run_id), WAIT)
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
        """Hold a claim while the ``with`` block reads the window, then share the changes that it has seen.

        :param until: changes up to this time are visible, by the API server's clock.
        :raises ReadByAnotherRun: inside the block, soon after it began, if another run reads the same window.
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
        """Return the span outside the window whose changes are kept."""
        start, end = self._window.start, self._window.end
        length = end - start
        if chunks and end <= api_time(chunks[0].start) <= end + BESIDE * length:
            return ChangeWindow(start - BACK * length, start)
        return ChangeWindow(end, max(until.replace(microsecond=0), end))  # its second may have more changes

    def _renew_claim(self, claimed: ChangeWindow, may_give_way: bool) -> None:
        if (run_id := self._reading_run()) is None:
            now = iso_time(datetime.now(timezone.utc))
            claim = {"run_id": self._ti.run_id, "reader": self._reader, "beats_at": now}
            self._store.set(self._claim_key, {**claimed.as_dict(), **claim})
        elif may_give_way:  # only at first; later, the pages that were read would be wasted
            raise ReadByAnotherRun(run_id)

    def _reading_run(self) -> str | None:
        """Return the id of another run that is reading this run's window; ``None`` if there is none."""
        claim = self._store.get(self._claim_key)
        match None if is_newer(claim) else claim:
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
        self._log.info("Kept the changes of [%s, %s) for other runs", chunk.start, chunk.end)
        for other in others:
            if other not in still_valid:
                self._forget(other)

    def _chunks(self) -> list[Chunk]:
        """Return the chunks that this run may use, newest first."""
        return [chunk for chunk in self._all_chunks() if chunk.reader == self._reader and _is_valid(chunk)]

    def _all_chunks(self) -> list[Chunk]:
        found = self._store.get(self._chunks_key, [])
        try:
            return [Chunk.of(value) for value in found]
        except (TypeError, ValueError):
            return []

    def _pull(self, chunk: Chunk, number: int) -> Any:
        """Return the text of a slice; ``None`` if it is gone, or belongs to a later try with other slices."""
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
        """Return the result of ``act``, or ``otherwise`` if it fails. A run can do without shared scans."""
        try:
            return act()
        except ReadByAnotherRun:
            raise
        except Exception as error:
            self._log.warning(
                "Runs can't share what they read, so each reads by itself (%s)", type_and_place(error)
            )
            return otherwise


class _ClaimedChanges(NearbyChanges):
    """The nearby changes of a scan. It renews the scan's claim while records come.

    :param beat: renews the claim. Its argument says whether this is the first renewal.
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
    """Return a digest that differs between accounts and between searches. It reveals nothing about a key."""
    return digest_of(f"{hook.base_url} {hook.get_conn().auth!r} {search!r}")
