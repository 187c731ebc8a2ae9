"""Webhooks that wait for their time, kept in a state store.

An operator can read them through Airflow's REST API. A head, under their key, counts the blocks,
``{"version": 1, "blocks": 2}``; each block, under the key, ``/`` and its number from 0, is an object:

``{"<record id>": "<due> <event> <changed at>", …}``, such as
``{"7": "2024-06-02T09:00:00Z added 2024-06-01T09:00:00Z"}``.

New blocks are written before the head that counts them, and when the last ones are empty, the head is
written before they are deleted. So a block that the head doesn't count, which a crash may leave, is written
anew before it ever counts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import api_time, iso_time
from airflow_insightly_hooks.core.detection.changes import EVENTS
from airflow_insightly_hooks.core.errors import InvalidPayload, InvalidState, InvalidTime, missing_keys
from airflow_insightly_hooks.core.records import field_value, is_record_id
from airflow_insightly_hooks.core.state.state_store import StateStore, count_in, on_failure, read_head

__all__ = ["PendingWebhook", "PendingWebhooks", "due_time"]

VERSION = 1
BLOCK_SIZE = 500
"""Entries a block: at 100 bytes at the most each a block stays below 60 kB."""


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


class PendingWebhooks:
    """The pending webhooks of one kind, at most one for each record, kept in a state store.

    It reads all of them when it is first asked, and keeps them: an instance is for one task, and nobody else
    may write meanwhile. A change is stored at once. Where that fails half-way, a part of it is done, and
    no other entry is touched; to do it again completes it.

    :param store: where they are kept. No value under the key: there are none.
    :param key: the head's key, and with ``/`` and a number behind it the blocks'.

    Each method raises ``InvalidState`` if what is stored can't be read.
    """

    def __init__(self, store: StateStore, key: str) -> None:
        self._store = store
        self._key = key
        self._blocks: list[dict[int, PendingWebhook]] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._loaded()))

    def __iter__(self) -> Iterator[PendingWebhook]:
        return iter(self.all())

    def all(self) -> list[PendingWebhook]:
        """Return the entries, by the time that they are due, then by record id."""
        return _in_order(entry for block in self._loaded() for entry in block.values())

    def due(self, until: datetime) -> list[PendingWebhook]:
        """Return the entries that are due at ``until`` or earlier, in order; they stay pending."""
        return [entry for entry in self.all() if entry.due <= until]

    def next_due(self) -> datetime | None:
        """Return when the next entry is due; ``None`` if there is none."""
        return min((entry.due for block in self._loaded() for entry in block.values()), default=None)

    def add(self, entries: Iterable[PendingWebhook]) -> list[PendingWebhook]:
        """Enter those whose records have no entry, the first one of each record.

        :returns: the new entries.
        :raises ValueError: if one is no such entry.
        """
        with on_failure(self._forget):
            blocks = self._loaded()
            known = {record_id for block in blocks for record_id in block}
            new: dict[int, PendingWebhook] = {}
            for entry in map(_checked, entries):
                if entry.record_id not in known:
                    new.setdefault(entry.record_id, entry)
            changed = set()
            number = 0
            counted = len(blocks)
            for record_id, entry in new.items():
                while number < len(blocks) and len(blocks[number]) >= BLOCK_SIZE:
                    number += 1
                if number == len(blocks):
                    blocks.append({})
                blocks[number][record_id] = entry
                changed.add(number)
            self._write_blocks(changed)
            if len(blocks) != counted:
                self._write_head()
            return list(new.values())

    def remove(self, record_ids: Iterable[int]) -> list[PendingWebhook]:
        """Take the entries of these records out, sent or cancelled.

        :returns: those that were in, in order.
        """
        with on_failure(self._forget):
            blocks = self._loaded()
            leaving = set(record_ids)
            changed = {number for number, block in enumerate(blocks) if not leaving.isdisjoint(block)}
            removed = [blocks[n].pop(record_id) for n in changed for record_id in leaving & blocks[n].keys()]
            counted = len(blocks)
            while blocks and not blocks[-1]:
                blocks.pop()
            self._write_blocks(number for number in changed if number < len(blocks))
            if len(blocks) != counted:
                self._write_head()
            for number in range(len(blocks), counted):
                self._store.delete(self._block_key(number))
            return _in_order(removed)

    def _forget(self) -> None:
        """Read everything anew when it is asked next."""
        self._blocks = None

    def _block_key(self, number: int) -> str:
        return f"{self._key}/{number}"

    def _write_blocks(self, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            entries = self._loaded()[number].values()
            self._store.set(
                self._block_key(number), {str(entry.record_id): _text(entry) for entry in entries}
            )

    def _write_head(self) -> None:
        self._store.set(self._key, {"version": VERSION, "blocks": len(self._loaded())})

    def _loaded(self) -> list[dict[int, PendingWebhook]]:
        if self._blocks is None:
            head = read_head(self._store, self._key, VERSION)
            count = 0 if head is None else count_in(self._key, head, "blocks")
            seen: set[int] = set()
            # Nothing is kept of entries that can't all be read.
            self._blocks = [self._read_block(number, seen) for number in range(count)]
        return self._blocks

    def _read_block(self, number: int, seen: set[int]) -> dict[int, PendingWebhook]:
        key = self._block_key(number)
        block = self._store.get(key)
        if not isinstance(block, Mapping):
            raise InvalidState(key, "a part of them is missing: it can't be told what is pending")
        entries = {}
        for record_id, text in block.items():
            entry = _entry(key, record_id, text)
            if entry.record_id in seen:
                raise InvalidState(key, f"record {entry.record_id} is pending twice")
            seen.add(entry.record_id)
            entries[entry.record_id] = entry
        return entries


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
