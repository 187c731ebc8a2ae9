"""Who has looked at a customer's record by a preview, or sent it as a test: Airflow's audit log."""

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
    """Which record a person has looked at, with which workflow.

    :param task_id: of the workflow's task in the DAG.
    :param record_id: ``None`` if the record was pasted: nobody knows whose it is.
    """

    dag_id: str
    task_id: str
    record_type: str
    record_id: int | None


def log_preview(session: Session, who: str, record: PreviewedRecord) -> None:
    """Note that a record was read from Insightly for a person."""
    _log(session, PREVIEW, who, record, {})


def log_test(
    session: Session, who: str, record: PreviewedRecord, *, webhook: str, receiver: str, message_id: str
) -> None:
    """Note that a record is about to be sent as a test."""
    _log(session, TEST, who, record, {"webhook": webhook, "receiver": receiver, "message_id": message_id})


def _log(session: Session, event: str, who: str, record: PreviewedRecord, more: dict[str, str]) -> None:
    about = {"record_type": record.record_type, "record_id": record.record_id, **more}
    extra = json.dumps(about)
    session.add(Log(event, owner=who, extra=extra, dag_id=record.dag_id, task_id=record.task_id))
    session.commit()
