"""The records of the sandbox's account, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from airflow_insightly_hooks.core.records import (
    CREATED,
    CUSTOM_FIELDS,
    RECORD_TYPES,
    UPDATED,
    RecordType,
    field_value,
)
from airflow_insightly_hooks.sandbox.clock import Clock
from airflow_insightly_hooks.sandbox.custom_fields import CUSTOM_OBJECTS, custom_field_entry
from airflow_insightly_hooks.sandbox.derived import derive, first_values
from airflow_insightly_hooks.sandbox.errors import BadRequest, NotFound
from airflow_insightly_hooks.sandbox.record_input import RecordInput, blank, checked_time

__all__ = ["Record", "Store", "updated_at"]

Record = dict[str, Any]


class Store:
    """Records by type and id; the sandbox's own thread of control is its only user.

    :param clock: where the times of creation and update come from.
    :param user_id: the user whose API key it is: owner and creator of what is created.
    """

    def __init__(self, clock: Clock, user_id: int) -> None:
        self.clock = clock
        self.user_id = user_id
        self.record_types = {name: RECORD_TYPES[name] for name in (*RECORD_TYPES, *CUSTOM_OBJECTS)}
        self._records: dict[str, dict[int, Record]] = {name: {} for name in self.record_types}
        self._next_id = dict.fromkeys(self.record_types, 1)
        self.custom_objects: dict[str, dict[str, Any]] = {}
        serial: Iterator[int] = count(1)
        self._inputs = {name: RecordInput(kind, serial) for name, kind in self.record_types.items()}

    def counts(self) -> dict[str, int]:
        """Return how many records there are of each type."""
        return {name: len(records) for name, records in self._records.items()}

    def put_in(self, record_type: RecordType, record: Record) -> None:
        """Put a whole record in, as it is."""
        record_id, records = record[record_type.id_field], self._records[record_type.name]
        is_late = record_id < self._next_id[record_type.name] and record_id not in records
        records[record_id] = record
        if is_late:
            self._records[record_type.name] = dict(sorted(records.items()))
        self._next_id[record_type.name] = max(self._next_id[record_type.name], record_id + 1)

    def all(self, record_type: RecordType) -> list[Record]:
        """Return every record of the type, in the order of their ids."""
        return list(self._records[record_type.name].values())

    def search(
        self, record_type: RecordType, *, after: str | None, matches: Callable[[Record], bool] | None
    ) -> list[Record]:
        """Return the records of the type, in the order of their ids.

        :param after: only those updated strictly later than this time, a normalised text.
        :param matches: only those for which it holds.
        """
        return [
            record
            for record in self.all(record_type)
            if (after is None or updated_at(record) > after) and (matches is None or matches(record))
        ]

    def get(self, record_type: RecordType, record_id: int) -> Record:
        """Return the record.

        :raises NotFound: if there is none of this id.
        """
        try:
            return self._records[record_type.name][record_id]
        except KeyError:
            raise NotFound(f"There is no {record_type.title} of this id.") from None

    def create(
        self, record_type: RecordType, given: Mapping[str, Any], parent: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a record as a client does, and return it.

        :param parent: the ids that say what it belongs to.
        :raises BadRequest: if a field is missing, of the wrong kind or too long.
        """
        given = {**given, **(parent or {})}
        references = _references(record_type)
        record = self._new(record_type, given, read_only=references | frozenset(parent or ()))
        derive(record_type, record, self.clock.text())
        self._inputs[record_type.name].check_required(record, given)
        for name in references:
            if record[name] is None:
                raise BadRequest(f"{name} is required.")
        self.put_in(record_type, record)
        return record

    def update(self, record_type: RecordType, given: Mapping[str, Any]) -> Record:
        """Change the record whose id is in ``given`` as a client does, and return it.

        :raises BadRequest: if there is no id, or a field is of the wrong kind, too long or emptied
            although it is required.
        :raises NotFound: if there is no record of this id.
        """
        record_id = given.get(record_type.id_field)
        if isinstance(record_id, bool) or not isinstance(record_id, int):
            raise BadRequest(f"{record_type.id_field} is required, and is a whole number.")
        present = self.get(record_type, record_id)
        record = {**present, **self._inputs[record_type.name].checked(given, present)}
        self._inputs[record_type.name].check_required(record, given, only_given=True)
        derive(record_type, record, self.clock.text())
        _set_updated(record_type, record, self.clock.text())
        self.put_in(record_type, record)
        return record

    def delete(self, record_type: RecordType, record_id: int) -> None:
        """Delete the record.

        :raises NotFound: if there is none of this id.
        """
        self.get(record_type, record_id)
        del self._records[record_type.name][record_id]

    def impose(
        self, record_type: RecordType, given: Mapping[str, Any], record_id: int | None = None
    ) -> Record:
        """Create or change a record as nobody but the CRM itself can, and return it.

        Every field is taken, read-only and unknown ones included; nothing is required.

        :param record_id: the record to change; ``None`` creates one.
        :raises BadRequest: if a known field is of the wrong kind, or the id is taken.
        :raises NotFound: if there is no record to change.
        """
        every_field = frozenset(record_type.fields)
        if record_id is None:
            record = self._new(record_type, given, read_only=every_field)
            if record[record_type.id_field] in self._records[record_type.name]:
                raise BadRequest(f"There is a {record_type.title} of this id already.")
            updated = given.get(UPDATED) or field_value(record, CREATED)
        else:
            record = dict(self.get(record_type, record_id))
            given = {name: value for name, value in given.items() if name != record_type.id_field}
            record.update(self._inputs[record_type.name].checked(given, record, read_only=every_field))
            updated = given.get(UPDATED) or self.clock.text()
        derive(record_type, record, self.clock.text(), fixed=given.keys())
        record.update({name: value for name, value in given.items() if name not in {*record, UPDATED}})
        _set_updated(record_type, record, checked_time(UPDATED, str(updated)))
        self.put_in(record_type, record)
        return record

    def _new(self, record_type: RecordType, given: Mapping[str, Any], *, read_only: frozenset[str]) -> Record:
        """Return a record with an id, what is ``given``, and defaults for the rest."""
        checks, now = self._inputs[record_type.name], self.clock.text()
        record_id = given.get(record_type.id_field) if record_type.id_field in read_only else None
        if record_id is None:
            record_id = self._next_id[record_type.name]
        given = {**given, record_type.id_field: record_id}
        record: Record = {name: blank(field) for name, field in record_type.fields.items()}
        record[record_type.id_field] = record_id
        record.update(checks.checked(given, record, read_only=read_only))
        defaults = first_values(record_type, record_id, self.user_id) | {CREATED: now, UPDATED: now}
        record.update(
            {name: value for name, value in defaults.items() if name in record and record[name] is None}
        )
        if CUSTOM_FIELDS in record:
            record[CUSTOM_FIELDS] = [*record[CUSTOM_FIELDS], *checks.autonumbers()]
        _set_updated(record_type, record, now)
        return record


def updated_at(record: Record) -> str:
    """Return when the record was last updated, or created where it doesn't tell; ``""`` if neither."""
    return field_value(record, UPDATED) or field_value(record, CREATED) or ""


def _set_updated(record_type: RecordType, record: Record, time: str) -> None:
    """Set the time of update where the type has it: custom objects have it among their custom fields."""
    if UPDATED in record_type.fields:
        record[UPDATED] = time
    elif record_type.has_updates:
        others = [entry for entry in record[CUSTOM_FIELDS] if entry["FIELD_NAME"] != UPDATED]
        record[CUSTOM_FIELDS] = [*others, custom_field_entry(UPDATED, time)]


def _references(record_type: RecordType) -> frozenset[str]:
    """Return the read-only fields that a record can't be created without: what it belongs to."""
    return frozenset(
        name
        for name, field in record_type.fields.items()
        if field.required and field.read_only and field.kind == "int64" and name != record_type.id_field
    )
