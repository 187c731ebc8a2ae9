"""Makes a preview for a person: reads the record, and applies the workflow to it. It sends nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.detection.changes import Event
from airflow_insightly_hooks.core.errors import (
    InsightlyHooksError,
    InvalidConnection,
    InvalidPayload,
    InvalidTime,
)
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.preview import Preview, PreviewedChange, PreviewedMessage
from airflow_insightly_hooks.database.preview_log import PreviewedRecord, log_preview
from airflow_insightly_hooks.database.stored_workflows import StoredWorkflow, stored_workflow
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAPIError
from airflow_insightly_hooks.previews.criteria_tree import TreeNode, criteria_tree
from airflow_insightly_hooks.previews.indented_json import indented
from airflow_insightly_hooks.previews.receivers import Request, request_of
from airflow_insightly_hooks.previews.record_source import (
    CustomFieldTypes,
    RecordNotFound,
    custom_field_types,
    insightly_hook,
    read_record,
)
from airflow_insightly_hooks.previews.shown_preview import notes_of, preview_of
from airflow_insightly_hooks.ui.access import Access, Right
from airflow_insightly_hooks.ui.preview_input import InvalidInput, PreviewInput

__all__ = [
    "PreviewFailed",
    "PreviewResult",
    "ShownChange",
    "ShownMessage",
    "failure_of",
    "preview_for",
    "request_slot",
]

PATIENCE = 10.0
"""How many seconds a request to Insightly may wait because of answers 429 and 503. The hook's time limits
hold in addition."""
AT_ONCE = 8
"""How many previews and tests may wait for Insightly or receivers at once. All pages of Airflow share the
server's threads."""
LONGEST_QUEUE = 3.0
"""How many seconds a further preview waits until it may start."""
MOST_WAITING = 8
"""How many previews may wait to start. Each of them takes one of the 40 threads, too. Further previews
are refused at once."""

NOT_KEPT = (
    "It can't be sent as a test from here: this page can't read some values in its address or its headers. "
    "Run 'airflow insightly preview --send' where the workflow's file is, or put the values into a "
    "connection (conn_id)."
)
TYPES_FAILED = "The types of custom fields could not be read from Insightly: "

_run_slots = threading.BoundedSemaphore(AT_ONCE)
_queue_slots = threading.BoundedSemaphore(AT_ONCE + MOST_WAITING)


class PreviewFailed(Exception):
    """A preview or a test failed for a reason outside of the form. Nothing was sent.

    :param status: the HTTP status of the answer.
    :param detail: what was wrong, and what to do. It holds no contents of records, and no secrets.
    """

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(status, title, detail)
        self.status, self.title, self.detail = status, title, detail


class ShownChange(NamedTuple):
    """Whether the record triggers as added, or as updated. ``reason`` says why it does not."""

    event: Event
    at: datetime
    triggers: bool
    reason: str | None


class ShownMessage(NamedTuple):
    """The message that a webhook would send, as the page shows it. Its body holds a record's contents."""

    message: PreviewedMessage
    request: Request
    indented_body: str
    is_masked: bool
    refusal: str | None
    """Why it can't be sent as a test from here, or ``None``."""

    @property
    def slug(self) -> str:
        """The name of its webhook in forms."""
        return self.message.webhook.slug

    @property
    def body(self) -> str:
        """The exact text that would be POSTed."""
        return self.message.payload["body"]

    @property
    def size(self) -> int:
        """How many bytes the body has in UTF-8. Half a surrogate pair can't be encoded, and counts as 1."""
        return len(self.body.encode(errors="replace"))


class PreviewResult(NamedTuple):
    """What a workflow would do with a record. It holds the record's contents."""

    stored: StoredWorkflow
    workflow: WorkflowDefinition
    record_id: int
    preview: Preview
    changes: tuple[ShownChange, ...]
    tree: TreeNode | None
    messages: tuple[ShownMessage, ...]
    notes: tuple[str, ...]
    may_send: bool

    @property
    def about(self) -> PreviewedRecord:
        """The record, as the audit log writes it."""
        record = self.preview.shown.verdict.change
        return PreviewedRecord(self.stored.dag_id, self.stored.task_id, record["record_type"], self.record_id)


@contextmanager
def request_slot() -> Iterator[None]:
    """Limit how many previews and tests wait for Insightly or receivers at once.

    :raises PreviewFailed: if too many others are waiting, or wait too long.
    """
    detail = "Other previews are waiting for slow answers from Insightly or receivers. Try again in a minute."
    too_many = PreviewFailed(503, "Too many previews at once", detail)
    if not _queue_slots.acquire(blocking=False):
        raise too_many
    try:
        if not _run_slots.acquire(timeout=LONGEST_QUEUE):
            raise too_many
        try:
            yield
        finally:
            _run_slots.release()
    finally:
        _queue_slots.release()


def preview_for(access: Access, session: Session, asked: PreviewInput) -> PreviewResult:
    """Return what a workflow would do with the record in the form.

    To have a record read from Insightly, the person needs the right to trigger runs, because a run would read
    the record, too.

    :raises InvalidInput: if a field of the form can't be used.
    :raises Forbidden: if the person lacks a right.
    :raises PreviewFailed: if the preview fails for another reason.
    """
    if not asked.workflow:
        raise InvalidInput("workflow", "Choose a workflow.")
    dag_id, _, task_id = asked.workflow.partition("/")
    access.check(Right.READ_CONTENTS, [dag_id])
    may_send = access.may(Right.START_RUNS, dag_id)
    if not asked.is_pasted:
        access.check(Right.START_RUNS, [dag_id])
    stored = stored_workflow(session, dag_id, task_id)
    if stored is None:
        detail = f"The DAG {dag_id} does not have this workflow, or no longer has it. Choose another one."
        raise PreviewFailed(404, "No such workflow", detail)
    if stored.definition is None:
        raise PreviewFailed(404, "The workflow can't be previewed", f"{dag_id}, {task_id}: {stored.reason}.")
    event, at = asked.checked_event(), asked.time()
    record = asked.pasted_record() if asked.is_pasted else None
    record_id = asked.checked_record_id() if record is None else None
    if record_id is not None:
        about = PreviewedRecord(dag_id, task_id, stored.definition.record_type, record_id)
        log_preview(session, access.user_name, about)
    session.commit()  # gives the database connection back before waiting for Insightly or receivers
    try:
        given, types, notes = _record_and_types(stored.definition, record, record_id, may_ask=may_send)
        preview = preview_of(stored.definition, given, types, clock=_clock(), event=event, now=at)
        return PreviewResult(
            stored,
            stored.definition,
            preview.shown.verdict.change["record_id"],
            preview,
            tuple(map(_shown_change, preview.changes)),
            criteria_tree(stored.definition.criteria, preview.shown),
            tuple(_shown(stored, message) for message in preview.shown.messages),
            (*notes_of(stored.definition, at, types_are_known=types.is_known), *notes),
            may_send,
        )
    except (InsightlyHooksError, AirflowException) as error:
        raise failure_of(error) from None


def _clock() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def _record_and_types(
    workflow: WorkflowDefinition, record: Mapping[str, Any] | None, record_id: int | None, *, may_ask: bool
) -> tuple[Mapping[str, Any], CustomFieldTypes, list[str]]:
    """Return the record, the types of its custom fields, and a note if these can't be read from Insightly.

    :param may_ask: whether the person may have the page read from Insightly.
    """
    hook = insightly_hook(workflow.insightly_conn_id)
    hook.patience = PATIENCE
    hook.quick_retries = 0  # the person can try again, and three more time-outs would take two minutes
    if record is None:
        assert record_id is not None  # noqa: S101 — one of the two is always given
        record = read_record(hook, workflow.record_type, record_id)
        return record, custom_field_types(hook, workflow.record_type, record, is_needed=True), []
    if not may_ask:
        return record, CustomFieldTypes(None, {}, is_known=False), []
    try:
        return record, custom_field_types(hook, workflow.record_type, dict(record), is_needed=False), []
    except InsightlyHooksError as error:
        return record, CustomFieldTypes(None, {}, is_known=False), [f"{TYPES_FAILED}{error}"]


def _shown_change(change: PreviewedChange) -> ShownChange:
    verdict = change.verdict
    return ShownChange(change.event, api_time(verdict.change["changed_at"]), verdict.triggers, verdict.reason)


def _shown(stored: StoredWorkflow, message: PreviewedMessage) -> ShownMessage:
    body = message.payload["body"]
    request = request_of(message.webhook, body, message.payload["message_id"])
    is_masked = message.webhook.slug in stored.masked
    if message.not_sent is not None:
        refusal: str | None = (
            f"It can't be sent as a test, because a run would not send it: {message.not_sent}."
        )
    elif is_masked:
        refusal = NOT_KEPT
    elif request.problem is not None:
        refusal = f"It can't be sent as a test from here, and its headers are not known: {request.problem}."
    else:
        refusal = None
    return ShownMessage(message, request, indented(body), is_masked, refusal)


def failure_of(error: Exception) -> PreviewFailed:
    """Return the page's error for an error of a hook or a record."""
    if isinstance(error, RecordNotFound):
        return PreviewFailed(404, "No such record", f"{error}.")
    if isinstance(error, InsightlyAPIError):
        return PreviewFailed(502, "Insightly can't be read", f"{error}.")
    if isinstance(error, AirflowNotFoundException):  # its text names the connection
        detail = f"{error}. Add the connection under Admin, Connections, or correct the workflow."
        return PreviewFailed(502, "A connection is missing", detail)
    if isinstance(error, InvalidConnection):
        return PreviewFailed(502, "A connection can't be used", f"{error}.")
    if isinstance(error, InvalidPayload | InvalidTime):
        return PreviewFailed(400, "This record can't be previewed", f"{error}.")
    if isinstance(error, InsightlyHooksError):
        return PreviewFailed(400, "It can't be previewed", f"{error}.")
    detail = f"A connection can't be read ({type(error).__name__}). Correct it under Admin, Connections."
    return PreviewFailed(502, "A connection can't be used", detail)
