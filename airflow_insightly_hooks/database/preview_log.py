"""Write to Airflow's audit log which user has previewed a customer's record, or sent it as a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from airflow.models.log import Log

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["PreviewedRecord", "log_preview", "log_test"]

PREVIEW = "insightly_preview"
TEST = "insightly_send_test"


class PreviewedRecord(NamedTuple):
    """The record that a user has previewed, and the workflow.

    :param task_id: the workflow's task in the DAG.
    :param record_id: the record's id; ``None`` if the user has pasted the record: its origin is unknown.
    """

    dag_id: str
    task_id: str
    record_type: str
    record_id: int | None


def log_preview(session: Session, who: str, record: PreviewedRecord) -> None:
    """Log that a record was read from Insightly for a user."""
    _log(session, PREVIEW, who, record, {})


def log_test(
    session: Session, who: str, record: PreviewedRecord, *, webhook: str, receiver: str, message_id: str
) -> None:
    """Log that a record is about to be sent as a test."""
    _log(session, TEST, who, record, {"webhook": webhook, "receiver": receiver, "message_id": message_id})


def _log(session: Session, event: str, who: str, record: PreviewedRecord, more: dict[str, str]) -> None:
    about = {"record_type": record.record_type, "record_id": record.record_id, **more}
    extra = json.dumps(about)
    session.add(Log(event, owner=who, extra=extra, dag_id=record.dag_id, task_id=record.task_id))
    session.commit()
