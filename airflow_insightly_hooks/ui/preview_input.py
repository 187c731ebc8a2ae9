"""The form of a preview: its fields, and the record, event and time in them."""

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
"""Years. Between them, a time plus or minus any allowed duration is a valid time, too."""


class InvalidInput(Exception):
    """A field of the form can't be used. ``reason`` says why. It holds no contents of a record."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason


def workflow_key(workflow: StoredWorkflow) -> str:
    """Return the key of a workflow in forms and addresses."""
    return f"{workflow.dag_id}/{workflow.task_id}"


class PreviewInput(NamedTuple):
    """The form's fields, as the person has typed them.

    :param workflow: the result of ``workflow_key``.
    :param record_id: the id of a record, which is then read from Insightly.
    :param record: a record as JSON, instead of ``record_id``.
    :param event: ``added``, ``updated``, or empty for both.
    :param at: the time that relative dates are measured from, as ``<input type="datetime-local">`` writes it.
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
        """Return the input in a form."""
        fields = {name: form.get(name) for name in cls._fields}
        fields["record"] = next(iter(form.all("record")), "")  # errors count lines, so blanks must stay
        return cls(**{**fields, "zone": fields["zone"] or "UTC"})

    @property
    def is_pasted(self) -> bool:
        """Whether the record was given as JSON, so it is not read from Insightly."""
        return bool(self.record.strip())

    def chosen(self, workflows: Iterable[StoredWorkflow]) -> StoredWorkflow | None:
        """Return the workflow that the form names, or ``None``."""
        return next((one for one in workflows if workflow_key(one) == self.workflow), None)

    def checked_record_id(self) -> int:
        """Return the record's id.

        :raises InvalidInput: if it is missing, or not a record's id.
        """
        if not self.record_id:
            raise InvalidInput("record_id", "Enter the id of a record, or paste a record as JSON.")
        record_id = record_id_in(self.record_id)
        if record_id is None:
            raise InvalidInput(
                "record_id",
                "The id must be a whole number. It is at the end of the record's address in Insightly.",
            )
        return record_id

    def pasted_record(self) -> Mapping[str, Any]:
        """Return the record that was pasted.

        :raises InvalidInput: if it is not JSON, or not a single record.
        """
        if self.record_id:
            raise InvalidInput(
                "record_id", "Enter the id of a record, or paste a record as JSON, but not both."
            )
        try:
            return record_in(self.record, "The record")
        except InvalidRecordText as error:
            raise InvalidInput("record", f"{error}.") from None

    def checked_event(self) -> Event | None:
        """Return the event, or ``None`` for both.

        :raises InvalidInput: if it is something else.
        """
        if self.event == "":
            return None
        for event in EVENTS:
            if event == self.event:
                return event
        raise InvalidInput("event", "Choose added, updated, or both.")

    def time(self) -> datetime | None:
        """Return the time that relative dates are measured from, in UTC; ``None`` if the field is empty.

        :raises InvalidInput: if it is not a time.
        """
        if not self.at:
            return None
        try:
            time = time_in_zone(self.at, self.zone)
        except ValueError:
            raise InvalidInput("at", "This must be a date and a time, such as 2026-01-31T08:00:00.") from None
        if not EARLIEST <= time.year <= LATEST:
            raise InvalidInput("at", f"The year must be from {EARLIEST} to {LATEST}.")
        return time
