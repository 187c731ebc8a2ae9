"""Webhooks that wait for their time, kept in a state store.

People can read them through Airflow's REST API. A head, under their key, lists the blocks by number:
``{"version": 2, "blocks": [0, 2], "runs": [["<run>", [3]]]}``. A block's key is the head's key, ``/`` and the
block's number. A block is an object:

``{"<record id>": "<due> <event> <changed at>", …}``, such as
``{"7": "2024-06-02T09:00:00Z added 2024-06-01T09:00:00Z"}``.

``runs`` holds the decisions of runs, until each run has noted its own decision: the blocks with the entries
that the run has taken out to send (``core.state.due_once``). Version 1 only counted its blocks, from 0, in
``{"version": 1, "blocks": 2}``.

A block is never changed. A change is written as a new block, under a number that the head doesn't list. Then
the head is written, and then the old block is deleted. So every change takes effect as a whole, with the
write of the head. A crash leaves at most blocks that the head doesn't list. Their numbers are used again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any, NamedTuple, TypeGuard

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import EVENTS
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidState, InvalidTime, missing_keys
from airflow_insightly_hooks.core.records import field_value, is_record_id
from airflow_insightly_hooks.core.state.state_store import Head, StateStore, count_in, on_failure

__all__ = ["KEYS", "Decision", "PendingWebhook", "PendingWebhooks", "due_time", "pending_key"]

KEYS = "pending/"
"""How the keys of all pending webhooks begin, in the state of an asset."""

BLOCK_SIZE = 500
"""How many entries a block has. With at most 100 bytes each, a block stays below 60 kB."""
RUNS_KEPT = 500
"""How many runs the head keeps that have decided and taken nothing; the earliest are removed. A run stays
there only if it was stopped right after its decision, and was never tried again."""


class PendingWebhook(NamedTuple):
    """A record's webhook that is to be sent when it is due."""

    record_id: int
    due: datetime  # aware, UTC
    event: str  # "added" or "updated": the change that triggered
    changed_at: str  # when it happened, ISO 8601, UTC

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as a JSON object, with the time in ISO 8601; ``of`` reads it."""
        return {**self._asdict(), "due": iso_time(self.due)}

    @classmethod
    def of(cls, value: object) -> PendingWebhook:
        """Return the entry that ``as_dict`` returned.

        :raises InvalidPayload: if the value is not an entry.
        """
        if not isinstance(value, Mapping):
            raise InvalidPayload("pending webhook", f"an object is needed, not {type(value).__name__}")
        if missing := missing_keys(value, cls._fields):
            raise InvalidPayload("pending webhook", f"it lacks {missing}")
        try:
            entry = cls(**{name: value[name] for name in cls._fields})
            return _checked(entry._replace(due=api_time(value["due"], "due")))
        except ValueError as error:
            raise InvalidPayload("pending webhook", str(error)) from None


def pending_key(workflow: str, webhook: str) -> str:
    """Return the key of the head for a webhook of a workflow."""
    return f"{KEYS}{workflow}/{webhook}"


def due_time(
    record: Mapping[str, Any],
    changed_at: str,
    *,
    after: timedelta | None = None,
    before: timedelta | None = None,
    field: str | None = None,
) -> datetime | None:
    """Return when a record's webhook is to be sent, in UTC.

    :param changed_at: the time of the change that triggered, as a change has it.
    :param after: how long after the base time; ``None``: not after it.
    :param before: how long before the base time; ``None``: not before it.
    :param field: the field or custom field with the base time; ``None``: the time of the change.
    :returns: ``None`` if the field is blank or doesn't hold a time, or if the result would be before the year
        1 or after 9999. (Some systems write the first or the last possible day to say "never".)
    :raises InvalidTime: if ``changed_at`` is not a time.
    """
    if field is None:
        base = api_time(changed_at, "changed_at")
    else:
        try:
            base = api_time(field_value(record, field), field)
        except InvalidTime:
            return None
    try:
        return base + (after or timedelta(0)) - (before or timedelta(0))
    except OverflowError:
        return None


class Decision(NamedTuple):
    """What a run has done to the pending webhooks."""

    entered: list[PendingWebhook]
    cancelled: list[PendingWebhook]
    moved: list[PendingWebhook]  # as they were before
    taken: list[PendingWebhook]  # the run is to send these


class _Block(NamedTuple):
    number: int | None  # None until it is stored
    entries: dict[int, PendingWebhook]


class PendingWebhooks:
    """The pending webhooks of one kind, at most one for each record, in a state store.

    The first call reads all of them, and the instance keeps them. So an instance is for one task, and nothing
    else may write them meanwhile. A change is stored at once, and either as a whole or not at all.

    :param store: the store that holds them. If there is no value under the key, nothing is pending.
    :param key: the head's key. The blocks' keys are this key, ``/`` and a number.

    Each method raises ``InvalidState`` if the stored entries can't be read.
    """

    def __init__(self, store: StateStore, key: str) -> None:
        self._store = store
        self._key = key
        self._head = Head(store, key, {"blocks": 0})
        self._blocks: list[_Block] = []
        self._runs: dict[str, list[int]] = {}
        self._is_loaded = False

    def __len__(self) -> int:
        return sum(len(block.entries) for block in self._loaded())

    def __iter__(self) -> Iterator[PendingWebhook]:
        return iter(self.all())

    def all(self) -> list[PendingWebhook]:
        """Return the entries, sorted by the time when they are due, then by record id."""
        return _in_order(_entries_of(self._loaded()))

    def count(self) -> int:
        """Return how many entries there are, without parsing each of them."""
        head = self._head.read()
        numbers = [] if head is None else self._numbers_in(head)[0]
        return sum(len(self._block(number)) for number in numbers)

    def next_due(self) -> datetime | None:
        """Return when the next entry is due; ``None`` if there is no entry."""
        return min((entry.due for entry in _entries_of(self._loaded())), default=None)

    def add(self, entries: Iterable[PendingWebhook]) -> list[PendingWebhook]:
        """Add the entries of records that have no entry yet: for each record, the first one.

        :returns: the new entries.
        :raises ValueError: if one of them is not a valid entry.
        """
        blocks = self._copies()
        new = _entered(blocks, entries)
        self._store_change(blocks, self._runs)
        return new

    def remove(self, record_ids: Iterable[int]) -> list[PendingWebhook]:
        """Remove the entries of these records.

        :returns: the removed entries, in order.
        """
        blocks = self._copies()
        removed = _removed(blocks, set(record_ids))
        self._store_change(blocks, self._runs)
        return removed

    def decide(
        self,
        run: str,
        *,
        enter: Iterable[PendingWebhook] = (),
        cancel: Callable[[PendingWebhook], bool] = lambda _: False,
        move: Callable[[PendingWebhook], datetime | None] = lambda _: None,
        take: Callable[[Sequence[PendingWebhook]], Iterable[PendingWebhook]],
    ) -> Decision:
        """Add entries, cancel some, move some, and take some out to send: either all of this, or nothing.

        ``taken_by`` returns the taken entries until ``forget`` is called.

        :param run: the name of the run that decides: at most 20 letters and digits.
        :param cancel: returns whether an entry, old or new, is not to be sent.
        :param move: returns the new time of an entry that stays; ``None``: the time doesn't change.
        :param take: is called with the entries that are pending then, in order. It returns those to send.
        :raises ValueError: if one of ``enter`` is not a valid entry.
        """
        blocks = self._copies()
        entered = _entered(blocks, enter)
        cancelled = _removed(blocks, {entry.record_id for entry in _entries_of(blocks) if cancel(entry)})
        moved = _moved(blocks, move)
        waiting = _in_order(_entries_of(blocks))
        taken = _removed(blocks, {entry.record_id for entry in take(waiting)})
        if entered or cancelled or moved or taken:
            self._store_change(blocks, self._runs, run, taken)
        return Decision(entered, cancelled, moved, taken)

    def taken_by(self, run: str) -> list[PendingWebhook] | None:
        """Return what a run has taken, in order; ``None`` if it hasn't decided, or after ``forget``."""
        self._loaded()
        if run not in self._runs:
            return None
        seen: set[int] = set()
        return _in_order(_entries_of([self._read_block(number, seen) for number in self._runs[run]]))

    def forget(self, run: str) -> None:
        """Delete a run's decision, because the run has noted it itself."""
        blocks = self._loaded()
        if run in self._runs:
            self._store_change(blocks, {name: n for name, n in self._runs.items() if name != run})

    def _copies(self) -> list[_Block]:
        return [_Block(block.number, dict(block.entries)) for block in self._loaded()]

    def _store_change(
        self,
        blocks: Sequence[_Block],
        runs: Mapping[str, list[int]],
        run: str | None = None,
        taken: Sequence[PendingWebhook] = (),
    ) -> None:
        """Replace the stored blocks and runs by these; ``run`` has just ``taken`` entries."""
        before = {block.number: block.entries for block in self._loaded()}
        if run is None and runs == self._runs and {b.number: b.entries for b in blocks} == before:
            return
        with on_failure(self._read_anew):
            named = {number for number in before if number is not None}.union(*self._runs.values())
            free = (number for number in count() if number not in named)
            self._head.prepare()
            after: list[_Block] = []
            for block in blocks:
                if before.get(block.number) == block.entries:
                    after.append(block)
                elif block.entries:
                    after.append(self._write_block(next(free), block.entries.values()))
            runs = dict(runs)
            if run is not None:
                runs[run] = []
                for start, number in zip(range(0, len(taken), BLOCK_SIZE), free, strict=False):
                    self._write_block(number, taken[start : start + BLOCK_SIZE])
                    runs[run].append(number)
                for name in [name for name, numbers in runs.items() if not numbers][:-RUNS_KEPT]:
                    del runs[name]
            self._head.write(
                {"blocks": [block.number for block in after], "runs": [list(item) for item in runs.items()]}
            )
            self._blocks, self._runs = after, runs
            left = {block.number for block in after}.union(*runs.values())
            for number in sorted(named - left):
                self._store.delete(self._block_key(number))

    def _read_anew(self) -> None:
        self._is_loaded = False

    def _block_key(self, number: int) -> str:
        return f"{self._key}/{number}"

    def _write_block(self, number: int, entries: Collection[PendingWebhook]) -> _Block:
        self._store.set(self._block_key(number), {str(entry.record_id): _text(entry) for entry in entries})
        return _Block(number, {entry.record_id: entry for entry in entries})

    def _loaded(self) -> list[_Block]:
        if not self._is_loaded:
            head = self._head.read()
            numbers, self._runs = ([], {}) if head is None else self._numbers_in(head)
            seen: set[int] = set()
            # If one block can't be read, no entries are kept.
            self._blocks = [self._read_block(number, seen) for number in numbers]
            self._is_loaded = True
        return self._blocks

    def _numbers_in(self, head: Mapping[str, Any]) -> tuple[list[int], dict[str, list[int]]]:
        """Return the numbers of the blocks, and for each run the numbers of the blocks that it has taken."""
        if head["version"] == 1:
            return list(range(count_in(self._key, head, "blocks"))), {}
        blocks, pairs = head.get("blocks"), head.get("runs")
        if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            raise InvalidState(self._key, "its runs can't be read")
        runs = dict(pairs) if all(isinstance(name, str) for name, _ in pairs) else {}
        if len(runs) != len(pairs) or not _is_numbers(blocks) or not all(map(_is_numbers, runs.values())):
            raise InvalidState(self._key, "its blocks or runs can't be read")
        numbers = [number for some in (blocks, *runs.values()) for number in some]
        if len(set(numbers)) != len(numbers):
            raise InvalidState(self._key, "it names a block twice")
        return blocks, runs

    def _block(self, number: int) -> Mapping[str, Any]:
        key = self._block_key(number)
        block = self._store.get(key)
        if not isinstance(block, Mapping):
            raise InvalidState(key, "a part of the entries is missing, so it is not known what is pending")
        return block

    def _read_block(self, number: int, seen: set[int]) -> _Block:
        key = self._block_key(number)
        entries = {}
        for record_id, text in self._block(number).items():
            entry = _entry(key, record_id, text)
            if entry.record_id in seen:
                raise InvalidState(key, f"record {entry.record_id} is pending twice")
            seen.add(entry.record_id)
            entries[entry.record_id] = entry
        return _Block(number, entries)


def _entered(blocks: list[_Block], entries: Iterable[PendingWebhook]) -> list[PendingWebhook]:
    """Add the entries of records that are in no block, and return these entries."""
    known = {record_id for block in blocks for record_id in block.entries}
    new: dict[int, PendingWebhook] = {}
    for entry in map(_checked, entries):
        if entry.record_id not in known:
            new.setdefault(entry.record_id, entry)
    number = 0
    for record_id, entry in new.items():
        while number < len(blocks) and len(blocks[number].entries) >= BLOCK_SIZE:
            number += 1
        if number == len(blocks):
            blocks.append(_Block(None, {}))
        blocks[number].entries[record_id] = entry
    return list(new.values())


def _removed(blocks: list[_Block], record_ids: set[int]) -> list[PendingWebhook]:
    """Remove the entries of these records from the blocks, and return them in order."""
    return _in_order(
        block.entries.pop(record_id) for block in blocks for record_id in record_ids & block.entries.keys()
    )


def _moved(blocks: list[_Block], move: Callable[[PendingWebhook], datetime | None]) -> list[PendingWebhook]:
    """Set the times that ``move`` returns, and return these entries as they were before."""
    moved = []
    for block in blocks:
        for record_id, entry in block.entries.items():
            due = move(entry)
            if due is not None:
                block.entries[record_id] = _checked(entry._replace(due=due))
                moved.append(entry)
    return _in_order(moved)


def _entries_of(blocks: Iterable[_Block]) -> Iterator[PendingWebhook]:
    return (entry for block in blocks for entry in block.entries.values())


def _is_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value
    )


def _in_order(entries: Iterable[PendingWebhook]) -> list[PendingWebhook]:
    return sorted(entries, key=lambda entry: (entry.due, entry.record_id))


def _checked(entry: PendingWebhook) -> PendingWebhook:
    """Return the entry with its time in UTC, if it can be stored and read again.

    :raises ValueError: if not.
    """
    record_id, due, event, changed_at = entry
    if not is_record_id(record_id):
        raise ValueError("its record_id must be a positive whole number below 2^63")
    if not isinstance(due, datetime) or due.tzinfo is None:
        raise ValueError("it must be due at a time with a time zone")
    if event not in EVENTS:
        raise ValueError(f"its event must be one of {list(EVENTS)}")
    api_time(changed_at, "changed_at")
    try:
        return entry._replace(due=due.astimezone(timezone.utc))
    except OverflowError:
        raise ValueError("it must be due between the years 1 and 9999") from None


def _text(entry: PendingWebhook) -> str:
    return f"{iso_time(entry.due)} {entry.event} {entry.changed_at}"


def _entry(key: str, record_id: str, text: object) -> PendingWebhook:
    try:
        # The last part may have two words, because the API writes times with a space.
        due, event, changed_at = str(text).split(" ", 2)
        return _checked(PendingWebhook(int(record_id), api_time(due), event, changed_at))
    except ValueError:
        raise InvalidState(key, f"the entry of record {record_id[:20]!r} can't be read") from None
