"""Which records changed within a window of time, and how.

A window is half-open, ``[start, end)``, in UTC. A record whose creation time falls into it was added;
else, if its update time does, it was updated; else it did not change there. So over adjoining windows
every creation and every (last) update falls into exactly one.

A record that can't be delivered stops nothing but itself. The change that stands for it has no contents, and
says under ``undeliverable`` why. It passes all tasks, whatever the criteria are, up to the deliver task's
report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypedDict, cast

from airflow_insightly_hooks.core.dates import api_time, iso_time, utc_time
from airflow_insightly_hooks.core.detection.record_times import record_times
from airflow_insightly_hooks.core.errors import (
    InvalidChange,
    InvalidPayload,
    InvalidTime,
    InvalidWindow,
    missing_keys,
)
from airflow_insightly_hooks.core.record_checks import check_record
from airflow_insightly_hooks.core.records import RECORD_TYPES, RecordType, is_record_id
from airflow_insightly_hooks.core.xcom_address import not_a_list

__all__ = [
    "EVENTS",
    "NO_ID",
    "ChangeWindow",
    "Event",
    "RecordChange",
    "changes_in",
    "check_changes",
    "check_events",
    "checked_change",
]

Event = Literal["added", "updated"]
EVENTS: tuple[Event, ...] = ("added", "updated")

NO_ID = 0
"""The id of what stands for records that have no usable one."""
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
SEARCH_MARGIN = timedelta(seconds=2)
"""How much before a window's start the API is asked: its bound may be exclusive and counts whole seconds."""


class _RecordChange(TypedDict):
    record_type: str
    record_id: int
    event: Event
    changed_at: str  # ISO 8601, UTC
    record: dict[str, Any]  # as the API delivered it


class RecordChange(_RecordChange, total=False):
    """A change as it passes through XCom."""

    record_json: str  # the exact text, where a store would lose some of it (core.detection.storable_changes)
    undeliverable: str  # why it can't be delivered; then ``record`` is empty


@dataclass(frozen=True)
class ChangeWindow:
    """The half-open window of time ``[start, end)``; both ends are aware and kept in UTC.

    :raises InvalidWindow: if an end has no time zone, or it ends before it starts.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for end in ("start", "end"):
            instant = getattr(self, end)
            if not isinstance(instant, datetime) or instant.tzinfo is None:
                raise InvalidWindow(f"its {end} must be a time with a time zone")
            # Most are in UTC already, and there may be a window for each of many records.
            is_utc = type(instant) is datetime and instant.tzinfo is timezone.utc
            object.__setattr__(self, end, instant if is_utc else utc_time(instant))
        if self.end < self.start:
            raise InvalidWindow(f"it ends at {iso_time(self.end)}, before its start {iso_time(self.start)}")

    def __str__(self) -> str:
        return f"[{iso_time(self.start)}, {iso_time(self.end)})"

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def is_empty(self) -> bool:
        """Whether no instant is in it."""
        return self.start == self.end

    @property
    def search_from(self) -> datetime:
        """The ``updated_after_utc`` to ask for, a little before the start; what is early is filtered."""
        return self.start - min(SEARCH_MARGIN, self.start - EARLIEST)

    @classmethod
    def of(cls, value: object) -> ChangeWindow:
        """Return the window that a user wrote: one of these, a pair, or a mapping with start and end.

        The ends are aware times or texts that ``core.dates.api_time`` reads.

        :raises InvalidWindow: if it is something else.
        :raises InvalidTime: if an end is a text that is no time.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and set(value) == {"start", "end"}:
            value = (value["start"], value["end"])
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            raise InvalidWindow("it must be a pair of times, or a mapping with 'start' and 'end'")
        start, end = (
            api_time(instant, f"window {name}") if isinstance(instant, str) else instant
            for name, instant in zip(("start", "end"), value, strict=True)
        )
        return cls(start, end)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it; ``of`` reads it again."""
        return {"start": iso_time(self.start), "end": iso_time(self.end)}


def changes_in(
    window: ChangeWindow,
    record_type: RecordType,
    records: Iterable[dict[str, Any]],
    events: Collection[Event] = EVENTS,
) -> Iterator[RecordChange]:
    """Yield what changed within the window, in the records' order; a record counts once, when first seen.

    :param records: as the API delivers them; those outside of the window are passed over.
    :param events: which kinds of change to yield. Where ``added`` is not among them, a record that was
        created within the window counts as updated if it was updated after that.

    A record that can't be delivered comes out as what stands for it, also where its times can't be read, so
    that no window can be told. Those without a usable id come last, as one.
    """
    seen: set[int] = set()
    without_id: list[RecordChange] = []
    for record in records:
        change = _change(window, record_type, record, events)
        if change is None:
            continue
        if change["record_id"] == NO_ID:
            without_id.append(change)
        elif change["record_id"] not in seen:
            seen.add(change["record_id"])
            yield checked_change(change)
    if without_id:
        yield _undeliverable(
            {**without_id[0], "changed_at": iso_time(window.start)},
            f"{len(without_id)} of the records have no usable {record_type.id_field}",
        )


def _change(
    window: ChangeWindow, record_type: RecordType, record: dict[str, Any], events: Collection[Event]
) -> RecordChange | None:
    record_id = record.get(record_type.id_field)
    change: RecordChange = {
        "record_type": record_type.name,
        "record_id": record_id if is_record_id(record_id) else NO_ID,
        "event": "updated" if "updated" in events else "added",
        "changed_at": iso_time(window.start),
        "record": record,
    }
    try:
        created, updated = record_times(record, record_type)
    except InvalidTime as error:
        return _undeliverable(change, str(error))
    if created is None and updated is None and change["record_id"] == NO_ID:
        return change
    was_added = created is not None and created in window
    if was_added and ("added" in events or created == updated):
        event, instant = "added", created
    else:
        event, instant = "updated", updated
    if instant is None or instant not in window or event not in events:
        return None
    return {**change, "event": cast("Event", event), "changed_at": iso_time(instant)}


def checked_change(change: RecordChange) -> RecordChange:
    """Return the change, or what stands for it if no body can be built of its record."""
    if "undeliverable" in change:
        return change
    try:
        check_record(change["record"])
    except InvalidPayload as error:
        return _undeliverable(change, str(error))
    return change


def _undeliverable(change: RecordChange, reason: str) -> RecordChange:
    return {
        "record_type": change["record_type"],
        "record_id": change["record_id"],
        "event": change["event"],
        "changed_at": change["changed_at"],
        "record": {},
        "undeliverable": reason,
    }


def check_events(record_type: RecordType, events: Iterable[str]) -> tuple[Event, ...]:
    """Return the events to watch for, without repetition.

    :raises ValueError: if one is neither ``added`` nor ``updated``, or there is none, or the record type
        tells no update times and ``updated`` alone is asked for.
    """
    if isinstance(events, str):
        events = (events,)
    chosen = tuple(dict.fromkeys(events))
    unknown = [event for event in chosen if event not in EVENTS]
    if unknown or not chosen:
        raise ValueError(f"events must be one or both of {list(EVENTS)}, not {list(chosen)}")
    if chosen == ("updated",) and not record_type.has_updates:
        raise ValueError(
            f"{record_type.name} have no update time in Insightly's API: only 'added' can be watched"
        )
    return cast("tuple[Event, ...]", chosen)


def check_changes(value: object) -> list[RecordChange]:
    """Return ``value``, a list of changes as a sensor's XCom holds it.

    :raises InvalidChange: if something in it is none, or it is no list at all.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidChange(0, not_a_list(value, "changes"))
    for index, change in enumerate(value):
        if not isinstance(change, Mapping):
            raise InvalidChange(index, f"a change is needed, not {type(change).__name__}")
        if missing := missing_keys(change, _RecordChange.__annotations__):
            raise InvalidChange(index, f"it lacks {missing}")
        if change["record_type"] not in RECORD_TYPES:
            raise InvalidChange(index, "its record_type is none of Insightly's API")
        if change["event"] not in EVENTS:
            raise InvalidChange(index, f"its event must be one of {list(EVENTS)}")
        if not isinstance(change["record_id"], int) or not isinstance(change["changed_at"], str):
            raise InvalidChange(index, "its record_id must be a number, and its changed_at a text")
        if not isinstance(change.get("undeliverable", ""), str):
            raise InvalidChange(index, "its undeliverable must be a text")
        if not isinstance(change["record"], Mapping):
            raise InvalidChange(index, "its record is not an object")
    return cast("list[RecordChange]", list(value))
