"""The page "Preview": what a workflow would do with a record. It can also send a message as a test.

Records are personal data, so browsers send them by POST, and no address holds them. To send a test takes two
forms. The first one leads to a page that names the receiver, and sends nothing. The form on that page sends.
The message is always built again from the workflow and the record, and never taken from the form. All forms
go to one address. It answers a GET with the empty form, because Airflow keeps its frame's address, and loads
it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.sdk.exceptions import AirflowException
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.errors import InsightlyHooksError
from airflow_insightly_hooks.database.preview_log import log_test
from airflow_insightly_hooks.database.stored_workflows import StoredWorkflow, stored_workflows
from airflow_insightly_hooks.previews.receivers import send_as_test, webhook_hook
from airflow_insightly_hooks.ui.access import Access, AccessDep, Right
from airflow_insightly_hooks.ui.forms import Form, FormDep
from airflow_insightly_hooks.ui.preview_input import InvalidInput, PreviewInput, workflow_key
from airflow_insightly_hooks.ui.preview_result import (
    PreviewFailed,
    PreviewResult,
    ShownMessage,
    failure_of,
    preview_for,
    request_slot,
)
from airflow_insightly_hooks.ui.problems import BadRequest, NotFound
from airflow_insightly_hooks.ui.rendering import Renderer, RendererDep

__all__ = ["router"]

router = APIRouter()


class Choice(NamedTuple):
    """A workflow that the form offers."""

    key: str
    name: str
    dag_id: str
    record_type: str
    may_read_records: bool
    """Whether the page may read records from Insightly for the person, and not only take pasted ones."""


@router.get("/preview")
def show_form(
    access: AccessDep,
    session: SessionDep,
    render: RendererDep,
    workflow: str = "",
    dag_id: str = "",
    record_id: str = "",
) -> HTMLResponse:
    """Show the form. The address can name a workflow, or a DAG for its first workflow, and a record's id."""
    values = _form_values(access, session)
    if not workflow and dag_id:
        workflow = next((choice.key for choice in values["choices"] if choice.dag_id == dag_id), "")
    return render("preview.html", values, asked=PreviewInput(workflow, record_id.strip()))


@router.post("/preview")
def show_preview(access: AccessDep, session: SessionDep, render: RendererDep, form: FormDep) -> HTMLResponse:
    """Show what the workflow would do. If the form names a webhook, send its message as a test."""
    asked = PreviewInput.of(form)
    is_test = bool(form.get("webhook"))
    if is_test:
        access.check(Right.START_RUNS, [asked.workflow.partition("/")[0]])
        session.commit()  # gives the database connection back before waiting
    try:
        with request_slot():
            result = preview_for(access, session, asked)
            if is_test:
                return _test(access, session, render, form, asked, result)
    except (InvalidInput, PreviewFailed) as error:
        return _shown_again(access, session, render, asked, error)
    return render("preview.html", _form_values(access, session), asked=asked, result=result)


def _test(
    access: Access,
    session: Session,
    render: Renderer,
    form: Form,
    asked: PreviewInput,
    result: PreviewResult,
) -> HTMLResponse:
    """Ask whether to send a webhook's message as a test. Send it after the person has confirmed."""
    shown = _message_of(result, form.get("webhook"))
    values = {"asked": asked, "result": result, "shown": shown}
    receiver = form.get("receiver")
    if form.get("confirmed") != "yes" or receiver != shown.request.receiver:
        return render("preview_confirm.html", values, has_changed=bool(receiver))
    return render("preview_sent.html", values, sent=_send(access, session, result, shown))


def _message_of(result: PreviewResult, slug: str) -> ShownMessage:
    """Return the message of a webhook.

    :raises NotFound: if there is no such webhook.
    :raises BadRequest: if its message can't be sent from here.
    """
    shown = next((message for message in result.messages if message.slug == slug), None)
    if shown is None:
        raise NotFound(
            f"The workflow {result.workflow.name} does not have this webhook, or no longer has it. Make a "
            "new preview."
        )
    if shown.refusal is not None:
        raise BadRequest(shown.refusal)
    return shown


def _send(access: Access, session: Session, result: PreviewResult, shown: ShownMessage) -> dict[str, Any]:
    """POST a message once, and return the result."""
    webhook = shown.message.webhook

    def log(receiver: str, message_id: str) -> None:
        log_test(
            session,
            access.user_name,
            result.about,
            webhook=webhook.name,
            receiver=receiver,
            message_id=message_id,
        )

    try:
        hook = webhook_hook(webhook.conn_id, webhook.uri)
        return send_as_test(hook, shown.body, webhook.headers, tell=log)
    except (InsightlyHooksError, AirflowException) as error:
        raise failure_of(error) from None


# --- the form ----------------------------------------------------------------------------------------------


def _form_values(access: Access, session: Session) -> dict[str, Any]:
    """Return the form's values, with the workflows that the person may preview."""
    found = stored_workflows(session, access.dag_ids)
    dag_ids = {stored.dag_id for stored in found}
    readable = access.permitted(Right.READ, dag_ids) & access.permitted(Right.READ_CONTENTS, dag_ids)
    runnable = access.permitted(Right.START_RUNS, readable)
    choices = [
        _choice(stored, may_read_records=stored.dag_id in runnable)
        for stored in found
        if stored.dag_id in readable and stored.definition is not None
    ]
    return {
        "choices": sorted(choices, key=lambda choice: (choice.name.casefold(), choice.key)),
        "unreadable": [stored for stored in found if stored.dag_id in readable and stored.definition is None],
        "may_read_records": bool(runnable),
        "result": None,
        "problems": {},
        "failure": None,
    }


def _choice(stored: StoredWorkflow, *, may_read_records: bool) -> Choice:
    definition = stored.definition
    assert definition is not None  # noqa: S101 — the caller has checked it
    return Choice(
        workflow_key(stored), definition.name, stored.dag_id, definition.record_type, may_read_records
    )


def _shown_again(
    access: Access,
    session: Session,
    render: Renderer,
    asked: PreviewInput,
    error: InvalidInput | PreviewFailed,
) -> HTMLResponse:
    """Show the form with the error, and with the person's input."""
    values = _form_values(access, session)
    if isinstance(error, InvalidInput):
        return render("preview.html", values, status=400, asked=asked, problems={error.field: error.reason})
    return render("preview.html", values, status=error.status, asked=asked, failure=error)
