"""The records of the sandbox's account, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core import exact_json
from airflow_insightly_hooks.core.records import (
    CREATED,
    CUSTOM_FIELDS,
    RECORD_TYPES,
    UPDATED,
    RecordType,
    field_value,
)
from airflow_insightly_hooks.sandbox.crm.change_history import ChangeHistory
from airflow_insightly_hooks.sandbox.crm.clock import Clock
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_OBJECTS, custom_field_entry
from airflow_insightly_hooks.sandbox.crm.derived_fields import default_values, set_derived_fields
from airflow_insightly_hooks.sandbox.crm.error_answers import BadRequest, NotFound
from airflow_insightly_hooks.sandbox.crm.record_input import RecordInput, blank_value, checked_time
from airflow_insightly_hooks.sandbox.crm.record_table import Record, RecordTable, updated_at
from airflow_insightly_hooks.sandbox.crm.search_behaviour import SearchBehaviour

__all__ = ["RecordStore", "RecordWrite"]


class RecordWrite(NamedTuple):
    """One creation or update.

    :param record_type: the record's type.
    :param record: the record after it.
    :param previous: the record before it; ``None`` for a creation.
    :param moment: when it was made, by the sandbox's clock, with fractions of a second.
    :param record_time: the same time as the API writes it into the record.
    """

    record_type: RecordType
    record: Record
    previous: Record | None
    moment: datetime
    record_time: str


class RecordStore:
    """All records of the account, by record type and id. It has no lock, so only one thread may use it.

    :param clock: gives the times of creation and update.
    :param user_id: the user of the API key, who is the owner and creator of new records.
    :param behaviour: how searches behave; ``None`` for the behaviour that users of the API report.
    :ivar history: the changes of all records.
    :ivar on_write: is called after each creation and each update; ``None`` calls nothing.
    """

    def __init__(self, clock: Clock, user_id: int, behaviour: SearchBehaviour | None = None) -> None:
        self.clock = clock
        self.user_id = user_id
        self.behaviour = behaviour or SearchBehaviour()
        self.history = ChangeHistory()
        self.on_write: Callable[[RecordWrite], None] | None = None
        self.record_types = {name: RECORD_TYPES[name] for name in (*RECORD_TYPES, *CUSTOM_OBJECTS)}
        self._tables = {name: RecordTable() for name in self.record_types}
        self._next_id = dict.fromkeys(self.record_types, 1)
        self.custom_objects: dict[str, dict[str, Any]] = {}
        self._blanks = {
            name: {field.name: blank_value(field) for field in kind.fields.values()}
            for name, kind in self.record_types.items()
        }
        self._numbers: Counter[str] = Counter()
        self._inputs = {name: RecordInput(kind, self._numbers) for name, kind in self.record_types.items()}

    def dump(self) -> str:
        """Return the contents as a text. Loading it is far faster than making the records again."""
        records = [table.all() for table in self._tables.values()]
        return exact_json.dumps([records, self._next_id, self.custom_objects, self._numbers])

    def load(self, text: str) -> None:
        """Load a text from ``dump``. This store must be empty."""
        records, self._next_id, self.custom_objects, numbers = exact_json.loads(text)
        for record_type, of_type in zip(self.record_types.values(), records, strict=True):
            for record in of_type:
                self._tables[record_type.name].put(record[record_type.id_field], record)
        self._numbers.update(numbers)

    def record_counts(self) -> dict[str, int]:
        """Return how many records there are of each type."""
        return {name: len(table.records) for name, table in self._tables.items()}

    def table(self, record_type: RecordType) -> RecordTable:
        """Return the table that holds the records of this type."""
        return self._tables[record_type.name]

    def put(self, record_type: RecordType, record: Record, seconds: float | None = None) -> None:
        """Store a complete record without any check.

        :param seconds: the time of the change, in seconds of the clock's source; ``None`` for now.
        """
        record_id, name = record[record_type.id_field], record_type.name
        previous = self._tables[name].records.get(record_id)
        self._next_id[name] = max(self._next_id[name], record_id + 1)
        seconds = self.clock.source() if seconds is None else seconds
        self._write("created" if previous is None else "updated", record_type, record_id, record, seconds)
        if self.on_write is not None:
            moment, record_time = self.clock.moment(seconds), self.clock.record_time(seconds)
            self.on_write(RecordWrite(record_type, record, previous, moment, record_time))

    def all(self, record_type: RecordType) -> list[Record]:
        """Return the current records of the type, in the order of their ids."""
        return self.table(record_type).all()

    def get(self, record_type: RecordType, record_id: int) -> Record:
        """Return the record.

        :raises NotFound: if there is no record with this id.
        """
        try:
            return self.table(record_type).records[record_id]
        except KeyError:
            raise NotFound(f"There is no {record_type.title} with this id.") from None

    def create(
        self, record_type: RecordType, given: Mapping[str, Any], parent: Mapping[str, Any] | None = None
    ) -> Record:
        """Create a record as a client does, and return it.

        :param parent: fields that make it a child of another record.
        :raises BadRequest: if a field is missing, of the wrong kind or too long.
        """
        given, seconds = {**given, **(parent or {})}, self.clock.source()
        references = _required_references(record_type)
        record = self._new_record(record_type, given, seconds, read_only=references | frozenset(parent or ()))
        set_derived_fields(record_type, record, self.clock.record_time(seconds))
        self._inputs[record_type.name].check_required(record, given)
        for name in references:
            if record[name] is None:
                raise BadRequest(f"{name} is required.")
        self.put(record_type, record, seconds)
        return record

    def update(self, record_type: RecordType, given: Mapping[str, Any]) -> Record:
        """Change the record whose id is in ``given`` as a client does, and return it.

        :raises BadRequest: if there is no id, or a field is of the wrong kind, too long or emptied
            although it is required.
        :raises NotFound: if there is no record with this id.
        """
        record_id = given.get(record_type.id_field)
        if isinstance(record_id, bool) or not isinstance(record_id, int):
            raise BadRequest(f"{record_type.id_field} is required, and must be a whole number.")
        present, seconds = self.get(record_type, record_id), self.clock.source()
        record = {**present, **self._inputs[record_type.name].checked(given, present)}
        self._inputs[record_type.name].check_required(record, given, only_given=True)
        set_derived_fields(record_type, record, self.clock.record_time(seconds))
        _set_update_time(record_type, record, self.clock.record_time(seconds))
        self.put(record_type, record, seconds)
        return record

    def delete(self, record_type: RecordType, record_id: int) -> None:
        """Delete the record.

        :raises NotFound: if there is no record with this id.
        """
        self.get(record_type, record_id)
        self._write("deleted", record_type, record_id, None, self.clock.source())

    def write_any_fields(
        self, record_type: RecordType, given: Mapping[str, Any], record_id: int | None = None
    ) -> Record:
        """Create or change a record as only the CRM itself can, and return it.

        Every field can be set, also read-only and unknown fields. No field is required.

        :param record_id: the record to change; ``None`` creates a record.
        :raises BadRequest: if a known field is of the wrong kind, or another record has the id.
        :raises NotFound: if there is no record with the id ``record_id``.
        """
        every_field, seconds = frozenset(record_type.fields), self.clock.source()
        if record_id is None:
            record = self._new_record(record_type, given, seconds, read_only=every_field)
            if record[record_type.id_field] in self.table(record_type).records:
                raise BadRequest(f"There is already a {record_type.title} with this id.")
            updated = given.get(UPDATED) or field_value(record, CREATED)
        else:
            record = dict(self.get(record_type, record_id))
            given = {name: value for name, value in given.items() if name != record_type.id_field}
            record.update(self._inputs[record_type.name].checked(given, record, read_only=every_field))
            updated = given.get(UPDATED) or self.clock.record_time(seconds)
        set_derived_fields(record_type, record, self.clock.record_time(seconds), unchanged=given.keys())
        record.update(
            {name: value for name, value in given.items() if name not in record and name != UPDATED}
        )
        _set_update_time(record_type, record, checked_time(UPDATED, str(updated)))
        self.put(record_type, record, seconds)
        return record

    def _write(
        self,
        what: str,
        record_type: RecordType,
        record_id: int,
        record: Record | None,
        seconds: float,
    ) -> None:
        """Store a record, or delete it if ``record`` is ``None``. Add the change to the history."""
        table = self.table(record_type)
        updated = updated_at(table.records[record_id] if record is None else record)
        shown_at = seconds + self.behaviour.random_delay()
        table.put(record_id, record, None if shown_at == seconds else shown_at)
        moments = (self.clock.moment(seconds), self.clock.moment(shown_at))
        self.history.add(what, record_type.name, record_id, *moments, updated)

    def _new_record(
        self, record_type: RecordType, given: Mapping[str, Any], seconds: float, *, read_only: frozenset[str]
    ) -> Record:
        """Return a record that has an id, the ``given`` fields, and defaults for all other fields."""
        checks, now = self._inputs[record_type.name], self.clock.record_time(seconds)
        record_id = given.get(record_type.id_field) if record_type.id_field in read_only else None
        if record_id is None:
            record_id = self._next_id[record_type.name]
        given = {**given, record_type.id_field: record_id}
        record: Record = dict(self._blanks[record_type.name])
        record[record_type.id_field] = record_id
        record.update(checks.checked(given, record, read_only=read_only))
        defaults = default_values(record_type, record_id, self.user_id) | {CREATED: now, UPDATED: now}
        record.update(
            {name: value for name, value in defaults.items() if name in record and record[name] is None}
        )
        if CUSTOM_FIELDS in record:
            record[CUSTOM_FIELDS] = [*record[CUSTOM_FIELDS], *checks.autonumbers()]
        _set_update_time(record_type, record, now)
        return record


def _set_update_time(record_type: RecordType, record: Record, time: str) -> None:
    """Set the update time if the type has one. Custom objects have it among their custom fields."""
    if UPDATED in record_type.fields:
        record[UPDATED] = time
    elif record_type.has_updates:
        others = [entry for entry in record[CUSTOM_FIELDS] if entry["FIELD_NAME"] != UPDATED]
        record[CUSTOM_FIELDS] = [*others, custom_field_entry(UPDATED, time)]


def _required_references(record_type: RecordType) -> frozenset[str]:
    """Return the read-only fields that a new record needs: the ids of the records that it belongs to."""
    return frozenset(
        name
        for name, field in record_type.fields.items()
        if field.required and field.read_only and field.kind == "int64" and name != record_type.id_field
    )
