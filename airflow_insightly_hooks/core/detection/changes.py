"""Which records changed within a window of time, and how.

A window is half-open, ``[start, end)``, in UTC. A record was added if its creation time is in the window.
Otherwise it was updated if its update time is in the window. Otherwise it did not change in the window. So
with adjoining windows, every creation and every (last) update is in exactly one window.

A record that can't be delivered does not stop other records. Its change has no contents. The key
``undeliverable`` says why. It passes through all tasks, with any criteria, up to the deliver task's report.
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
from airflow_insightly_hooks.core.plurals import counted
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
"""The id in the change of records that have no usable id."""
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
SEARCH_MARGIN = timedelta(seconds=2)
"""How long before a window's start a search begins: the API's bound is in seconds, and may be exclusive."""


class _RecordChange(TypedDict):
    record_type: str
    record_id: int
    event: Event
    changed_at: str  # ISO 8601, UTC
    record: dict[str, Any]  # as the API delivered it


class RecordChange(_RecordChange, total=False):
    """A change as it passes through XCom."""

    record_json: str  # the exact text, if a store would lose a part of it (core.detection.storable_changes)
    undeliverable: str  # why it can't be delivered; then ``record`` is empty


@dataclass(frozen=True)
class ChangeWindow:
    """The half-open window of time ``[start, end)``; both ends are aware times, kept in UTC.

    :raises InvalidWindow: if an end has no time zone, or the window ends before it starts.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for end in ("start", "end"):
            instant = getattr(self, end)
            if not isinstance(instant, datetime) or instant.tzinfo is None:
                raise InvalidWindow(f"its {end} must be a time with a time zone")
            # Most times are in UTC already, and there may be a window for each of many records.
            is_utc = type(instant) is datetime and instant.tzinfo is timezone.utc
            object.__setattr__(self, end, instant if is_utc else utc_time(instant))
        if self.end < self.start:
            start, end = iso_time(self.start), iso_time(self.end)
            raise InvalidWindow(f"it ends at {end}, before its start {start}: give the earlier time first")

    def __str__(self) -> str:
        return f"[{iso_time(self.start)}, {iso_time(self.end)})"

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def is_empty(self) -> bool:
        """Whether the window holds no instant."""
        return self.start == self.end

    @property
    def search_from(self) -> datetime:
        """The ``updated_after_utc`` of the search: a little before the start. Early changes are filtered."""
        return self.start - min(SEARCH_MARGIN, self.start - EARLIEST)

    @classmethod
    def of(cls, value: object) -> ChangeWindow:
        """Return the window that a user wrote: a ``ChangeWindow``, a pair, or a mapping with start and end.

        The ends are aware times or texts that ``core.dates.api_time`` reads.

        :raises InvalidWindow: if the value is something else.
        :raises InvalidTime: if an end is a text that is not a time.
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
        """Return the window as a JSON object; ``of`` reads it."""
        return {"start": iso_time(self.start), "end": iso_time(self.end)}


def changes_in(
    window: ChangeWindow,
    record_type: RecordType,
    records: Iterable[dict[str, Any]],
    events: Collection[Event] = EVENTS,
) -> Iterator[RecordChange]:
    """Yield the changes in the window, in the records' order. A record counts once, when it is first seen.

    :param records: records as the API delivers them; records outside of the window are skipped.
    :param events: which kinds of change to yield. Without ``added``, a record that was created in the window
        counts as updated if it was updated after that.

    For a record that can't be delivered, an undeliverable change is yielded. This includes records whose
    times can't be read, because it is not known whether they are in the window. All records without a usable
    id come last, as one undeliverable change.
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
            f"{counted(len(without_id), 'record')} {'has' if len(without_id) == 1 else 'have'} no usable "
            f"{record_type.id_field}",
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
    """Return the change, or an undeliverable change if no body can be built from its record."""
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
    """Return the events to watch for, each once.

    :raises ValueError: if an event is neither ``added`` nor ``updated``, if there are no events, or if the
        record type has no update times and only ``updated`` is given.
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
    """Return ``value``, a list of changes as in a sensor's XCom.

    :raises InvalidChange: if an item is not a change, or the value is not a list.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidChange(0, not_a_list(value, "changes"))
    for index, change in enumerate(value):
        if not isinstance(change, Mapping):
            raise InvalidChange(index, f"a change is needed, not {type(change).__name__}")
        if missing := missing_keys(change, _RecordChange.__annotations__):
            raise InvalidChange(index, f"it lacks {missing}")
        if change["record_type"] not in RECORD_TYPES:
            raise InvalidChange(index, "its record_type must be a record type of Insightly's API")
        if change["event"] not in EVENTS:
            raise InvalidChange(index, f"its event must be one of {list(EVENTS)}")
        if not isinstance(change["record_id"], int) or not isinstance(change["changed_at"], str):
            raise InvalidChange(index, "its record_id must be a number, and its changed_at a text")
        if not isinstance(change.get("undeliverable", ""), str):
            raise InvalidChange(index, "its undeliverable must be a text")
        if not isinstance(change["record"], Mapping):
            raise InvalidChange(index, "its record must be an object")
    return cast("list[RecordChange]", list(value))
