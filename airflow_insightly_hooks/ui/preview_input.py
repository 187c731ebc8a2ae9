"""What a preview is asked for: the form's fields, and the record, event and time that they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.detection.changes import EVENTS, Event
from airflow_insightly_hooks.core.records import record_id_in
from airflow_insightly_hooks.database.stored_workflows import StoredWorkflow
from airflow_insightly_hooks.previews.record_source import InvalidRecordText, record_in
from airflow_insightly_hooks.ui.fields import time_in_zone
from airflow_insightly_hooks.ui.forms import Form

__all__ = ["InvalidInput", "PreviewInput", "workflow_key"]

EARLIEST, LATEST = 1900, 9000
"""Years; a duration before or after them is a time, too."""


class InvalidInput(Exception):
    """A field of the form can't be used; ``reason`` says why, and nothing of a record."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason


def workflow_key(workflow: StoredWorkflow) -> str:
    """Return what names a workflow in forms and addresses."""
    return f"{workflow.dag_id}/{workflow.task_id}"


class PreviewInput(NamedTuple):
    """The form's fields, as they were typed.

    :param workflow: ``workflow_key``'s.
    :param record_id: to be read from Insightly.
    :param record: or a record as JSON.
    :param event: ``added``, ``updated``, or empty for both.
    :param at: what relative dates are measured from, as ``<input type="datetime-local">`` writes it.
    :param zone: the time zone of ``at``.
    """

    workflow: str = ""
    record_id: str = ""
    record: str = ""
    event: str = ""
    at: str = ""
    zone: str = "UTC"

    @classmethod
    def of(cls, form: Form) -> PreviewInput:
        """Return what a form holds."""
        fields = {name: form.get(name) for name in cls._fields}
        fields["record"] = next(iter(form.all("record")), "")  # its lines are counted from its beginning
        return cls(**{**fields, "zone": fields["zone"] or "UTC"})

    @property
    def is_pasted(self) -> bool:
        """Whether the record is given as JSON, not read from Insightly."""
        return bool(self.record.strip())

    def chosen(self, workflows: Iterable[StoredWorkflow]) -> StoredWorkflow | None:
        """Return the workflow that is meant."""
        return next((one for one in workflows if workflow_key(one) == self.workflow), None)

    def checked_record_id(self) -> int:
        """Return the record's id.

        :raises InvalidInput: if it is not one.
        """
        if not self.record_id:
            raise InvalidInput("record_id", "Give the id of a record, or paste a record as JSON.")
        record_id = record_id_in(self.record_id)
        if record_id is None:
            raise InvalidInput(
                "record_id",
                "A record's id is a whole number. It stands at the end of the record's address in Insightly.",
            )
        return record_id

    def pasted_record(self) -> Mapping[str, Any]:
        """Return the record that was pasted.

        :raises InvalidInput: if it is not JSON, or not one record.
        """
        if self.record_id:
            raise InvalidInput("record_id", "Give either the id of a record, or a record as JSON; not both.")
        try:
            return record_in(self.record, "The record")
        except InvalidRecordText as error:
            raise InvalidInput("record", f"{error}.") from None

    def checked_event(self) -> Event | None:
        """Return the event, ``None`` for both.

        :raises InvalidInput: if it is something else.
        """
        if self.event == "":
            return None
        for event in EVENTS:
            if event == self.event:
                return event
        raise InvalidInput("event", "Choose added, updated, or both.")

    def time(self) -> datetime | None:
        """Return the time that relative dates are measured from, in UTC; ``None`` if none is given.

        :raises InvalidInput: if it is not a time.
        """
        if not self.at:
            return None
        try:
            time = time_in_zone(self.at, self.zone)
        except ValueError:
            raise InvalidInput("at", "A time is needed, as in 2026-01-31T08:00:00.") from None
        if not EARLIEST <= time.year <= LATEST:
            raise InvalidInput("at", f"A time in the years {EARLIEST} to {LATEST} is needed.")
        return time
