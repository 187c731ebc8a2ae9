"""A log of the pages that a scan has read, as JSON, with which the scan can be repeated without requests.

A scan, and the detection of changes among its records, use only a record's id and its two times. So the log
keeps these for each record of a page, and the answer's count and date. If the log is fed to a new scan, and
the scan's results to a new detection, both get into the same state as before.

``{"total": 100000, "date": "…Z", "records": "<packed integers>", "stand_ins": ["…"]}``

``records`` has six columns: the ids, each as the difference from the id before; the kinds of the two times;
and for each of the two times, the seconds as differences from the time before, and the microseconds. A record
without a usable id has the id 0, and a text in ``stand_ins``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.dates import EPOCH, api_time, iso_time
from airflow_insightly_hooks.core.errors import InvalidTime
from airflow_insightly_hooks.core.records import CREATED, UPDATED, RecordType, field_value, is_record_id
from airflow_insightly_hooks.core.state.packed_integers import packed, unpacked

__all__ = ["LoggedPage", "page_entry", "read_entry"]

MOST_RECORDS = 10_000
"""How many records a page may have."""
COLUMNS = 6
MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000  # microseconds
NO_TIME, UNREADABLE, READABLE = range(3)
KINDS = 3
UNREADABLE_TEXT = "unreadable"


class LoggedPage(NamedTuple):
    """A page as it was given to a scan, with records that have no contents.

    :param records: the records, with their ids and times only.
    :param total: how many records there are in all; ``None`` if the answer did not say.
    :param date: the time of the answer by the server's clock; ``None`` if it is not known.
    """

    records: list[dict[str, Any]]
    total: int | None
    date: datetime | None


def page_entry(
    kind: RecordType, records: Iterable[Mapping[str, Any]], total: int | None, date: datetime | None
) -> dict[str, Any]:
    """Return the log's entry for a page, a JSON object.

    :param records: the records that the scan was given: each has an id, or a text in place of an id.
    """
    ids: list[int] = []
    stand_ins: list[str] = []
    kinds: list[int] = []
    times: dict[str, list[int]] = {CREATED: [], UPDATED: []}
    for record in records:
        record_id = record[kind.id_field]
        if is_record_id(record_id):
            ids.append(record_id)
        else:
            ids.append(0)
            stand_ins.append(record_id)
        created, updated = _time(record, CREATED), _time(record, UPDATED)
        kinds.append(created[0] * KINDS + updated[0])
        times[CREATED].append(created[1])
        times[UPDATED].append(updated[1])
    columns = [_differences(ids), kinds]
    for column in times.values():
        columns += [_differences([time // SECOND for time in column]), [time % SECOND for time in column]]
    entry: dict[str, Any] = {"records": packed([number for column in columns for number in column])}
    if stand_ins:
        entry["stand_ins"] = stand_ins
    if total is not None:
        entry["total"] = total
    if date is not None:
        entry["date"] = iso_time(date)
    return entry


def read_entry(kind: RecordType, entry: Mapping[str, Any]) -> LoggedPage:
    """Return the page for which ``page_entry`` made the entry.

    :raises ValueError: if the entry can't be read.
    """
    numbers = unpacked(entry.get("records"), COLUMNS * MOST_RECORDS)
    if numbers is None or len(numbers) % COLUMNS:
        raise ValueError("a page's records can't be read")
    count = len(numbers) // COLUMNS
    ids, kinds, created, created_within, updated, updated_within = (
        numbers[column * count : (column + 1) * count] for column in range(COLUMNS)
    )
    stand_ins = iter(entry.get("stand_ins", ()))
    rows = zip(_sums(ids), kinds, _sums(created), created_within, _sums(updated), updated_within, strict=True)
    records = [
        {kind.id_field: record_id or next(stand_ins, ""), **_fields(kinds_of, *times)}
        for record_id, kinds_of, *times in rows
    ]
    date = entry.get("date")
    return LoggedPage(records, entry.get("total"), None if date is None else api_time(date))


def _time(record: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Return the kind of a record's time, and its microseconds since EPOCH."""
    text = field_value(record, name)
    if not text:
        return NO_TIME, 0
    try:
        return READABLE, (api_time(text) - EPOCH) // MICROSECOND
    except InvalidTime:
        return UNREADABLE, 0


def _fields(
    kinds: int, created: int, created_within: int, updated: int, updated_within: int
) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, kind, seconds, within in (
        (CREATED, kinds // KINDS, created, created_within),
        (UPDATED, kinds % KINDS, updated, updated_within),
    ):
        if kind == READABLE:
            fields[name] = iso_time(EPOCH + timedelta(seconds=seconds, microseconds=within))
        elif kind == UNREADABLE:
            fields[name] = UNREADABLE_TEXT
    return fields


def _differences(numbers: Sequence[int]) -> list[int]:
    """Return the difference of each number from the one before, where 0, -1, 1, -2 … become 0, 1, 2, 3 …"""
    steps = (end - start for start, end in pairwise((0, *numbers)))
    return [2 * step if step >= 0 else -2 * step - 1 for step in steps]


def _sums(steps: Iterable[int]) -> Iterator[int]:
    total = 0
    for step in steps:
        total += step // 2 if step % 2 == 0 else -(step + 1) // 2
        yield total
