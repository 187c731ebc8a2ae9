"""Webhooks that wait for their time, kept in a state store.

An operator can read them through Airflow's REST API. A head, under their key, names the blocks by number,
``{"version": 2, "blocks": [0, 2], "runs": [["<run>", [3]]]}``; each block, under the key, ``/`` and its
number, is an object:

``{"<record id>": "<due> <event> <changed at>", …}``, such as
``{"7": "2024-06-02T09:00:00Z added 2024-06-01T09:00:00Z"}``.

Under ``runs`` stand decisions of runs, until each has noted its own: the blocks of what it has taken out to
send (``core.state.due_once``). Version 1 only counted its blocks, from 0, in ``{"version": 1, "blocks": 2}``.

A block is never changed: what changes is written as a new block, under a number that the head doesn't name,
then the head that names it, then the old block is deleted. So one write, the head's, makes every change as a
whole; a crash leaves at most blocks that nothing names, whose numbers are used again.
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
"""How the keys of all that is pending begin, in the state of an asset."""

BLOCK_SIZE = 500
"""Entries a block: at 100 bytes at the most each a block stays below 60 kB."""
RUNS_KEPT = 500
"""Runs of which the head knows that they have decided, though they have taken nothing; the earliest go. A run
stays there only where it was stopped right after it had decided, and was never tried again."""


class PendingWebhook(NamedTuple):
    """A record's webhook that is to be sent when it is due."""

    record_id: int
    due: datetime  # aware, UTC
    event: str  # "added" or "updated": the change that triggered
    changed_at: str  # when it happened, ISO 8601, UTC

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, the time in ISO 8601; ``of`` reads it again."""
        return {**self._asdict(), "due": iso_time(self.due)}

    @classmethod
    def of(cls, value: object) -> PendingWebhook:
        """Return the entry that ``as_dict`` gave.

        :raises InvalidPayload: if it is none.
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
    """Return the key of the head under which a workflow's webhook has what is pending."""
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

    :param changed_at: when the change that triggered happened, as a change has it.
    :param after: so long after the time that it is measured from; ``None`` is no time after.
    :param before: so long before it; ``None`` is no time before.
    :param field: the field, or custom field, that holds the time to measure from; ``None`` is the change's.
    :returns: ``None`` where the field is blank or holds no time, and where the time would be before the year
        1 or after 9999: some systems write the first or the last day there is for "never".
    :raises InvalidTime: if ``changed_at`` is no time.
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
    """What a run has done to what is pending."""

    entered: list[PendingWebhook]
    cancelled: list[PendingWebhook]
    moved: list[PendingWebhook]  # as they were before
    taken: list[PendingWebhook]  # those that it is to send


class _Block(NamedTuple):
    number: int | None  # None until it is stored
    entries: dict[int, PendingWebhook]


class PendingWebhooks:
    """The pending webhooks of one kind, at most one for each record, kept in a state store.

    It reads all of them when it is first asked, and keeps them: an instance is for one task, and nobody else
    may write meanwhile. A change is stored at once, and as a whole or not at all.

    :param store: where they are kept. No value under the key: there are none.
    :param key: the head's key, and with ``/`` and a number behind it the blocks'.

    Each method raises ``InvalidState`` if what is stored can't be read.
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
        """Return the entries, by the time that they are due, then by record id."""
        return _in_order(_entries_of(self._loaded()))

    def count(self) -> int:
        """Return how many entries there are, without reading each of them."""
        head = self._head.read()
        numbers = [] if head is None else self._numbers_in(head)[0]
        return sum(len(self._block(number)) for number in numbers)

    def next_due(self) -> datetime | None:
        """Return when the next entry is due; ``None`` if there is none."""
        return min((entry.due for entry in _entries_of(self._loaded())), default=None)

    def add(self, entries: Iterable[PendingWebhook]) -> list[PendingWebhook]:
        """Enter those whose records have no entry, the first one of each record.

        :returns: the new entries.
        :raises ValueError: if one is no such entry.
        """
        blocks = self._copies()
        new = _entered(blocks, entries)
        self._store_change(blocks, self._runs)
        return new

    def remove(self, record_ids: Iterable[int]) -> list[PendingWebhook]:
        """Take the entries of these records out.

        :returns: those that were in, in order.
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
        """Enter entries, cancel some, move some, and take some out to send: all of it, or nothing.

        What was taken, ``taken_by`` returns until ``forget`` is called.

        :param run: the name of who decides: letters and digits, 20 at the most.
        :param cancel: whether an entry, pending or just entered, is not to be sent.
        :param move: when an entry that stays is due from now on; ``None``: at the time that it has.
        :param take: is given what is pending then, in order, and returns what is to be sent of it.
        :raises ValueError: if one of ``enter`` is no such entry.
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
        """Return what a run has taken, in order; ``None`` if it hasn't decided, or it was forgotten."""
        self._loaded()
        if run not in self._runs:
            return None
        seen: set[int] = set()
        return _in_order(_entries_of([self._read_block(number, seen) for number in self._runs[run]]))

    def forget(self, run: str) -> None:
        """Forget that a run has decided: it has noted that itself."""
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
        """Store these blocks and runs in the place of what is there; ``run`` has just ``taken`` entries."""
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
            # Nothing is kept of entries that can't all be read.
            self._blocks = [self._read_block(number, seen) for number in numbers]
            self._is_loaded = True
        return self._blocks

    def _numbers_in(self, head: Mapping[str, Any]) -> tuple[list[int], dict[str, list[int]]]:
        """Return the numbers of the blocks, and by run those of what it has taken."""
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
            raise InvalidState(key, "a part of them is missing: it can't be told what is pending")
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
    """Put those into the blocks whose records are in none, and return them."""
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
    """Take the entries of these records out of the blocks, and return them, in order."""
    return _in_order(
        block.entries.pop(record_id) for block in blocks for record_id in record_ids & block.entries.keys()
    )


def _moved(blocks: list[_Block], move: Callable[[PendingWebhook], datetime | None]) -> list[PendingWebhook]:
    """Give the entries another time for which ``move`` returns one, and return them as they were."""
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
    """Return the entry, its time in UTC, if it can be read again once it is written.

    :raises ValueError: if it can't.
    """
    record_id, due, event, changed_at = entry
    if not is_record_id(record_id):
        raise ValueError("its record_id must be a positive integer of 63 bits")
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
        # The last part may be of two words, as the API writes a time.
        due, event, changed_at = str(text).split(" ", 2)
        return _checked(PendingWebhook(int(record_id), api_time(due), event, changed_at))
    except ValueError:
        raise InvalidState(key, f"the entry of record {record_id[:20]!r} can't be read") from None
