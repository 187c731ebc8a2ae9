"""The page of a delivery: the change, the receiver, the payload, and the result of each POST."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.delivery.delivery_record import About
from airflow_insightly_hooks.core.delivery.stored_deliveries import LEFT, time_or_none
from airflow_insightly_hooks.core.workflow.dag_ids import RETRY_SUFFIX, workflow_dag_id
from airflow_insightly_hooks.database.deliveries import (
    Delivery,
    DeliveryFilter,
    WantedTasks,
    search_deliveries,
)
from airflow_insightly_hooks.database.delivery_details import (
    TaskAround,
    find_delivery,
    requests_for,
    task_around,
)
from airflow_insightly_hooks.database.payloads.payload_search import Missing, find_payload
from airflow_insightly_hooks.database.presence import begin_snapshot
from airflow_insightly_hooks.hooks.api.api_errors import NO_CONNECTION
from airflow_insightly_hooks.operators.retry_queue import PAYLOADS
from airflow_insightly_hooks.previews.indented_json import indented
from airflow_insightly_hooks.ui.access import Access, AccessDep, Right
from airflow_insightly_hooks.ui.delivery_filter import LARGEST_MAP_INDEX, STATE_WORDS
from airflow_insightly_hooks.ui.delivery_keys import (
    delivery_address,
    selection_value,
    tab_fields,
    task_fields,
)
from airflow_insightly_hooks.ui.fields import whole_number
from airflow_insightly_hooks.ui.problems import BadRequest, NotFound
from airflow_insightly_hooks.ui.rendering import RendererDep

__all__ = ["router"]

MOST_SHOWN = 200_000
"""How many characters of a payload the page shows."""
MISSING = {
    Missing.NOT_KEPT: "This task reads its records itself, so their payloads are not stored.",
    Missing.GONE: "The payload is no longer in XCom. It was cleaned up, or the task ran again and built "
    "payloads for other changes.",
    Missing.TOO_LARGE: "The run's XComs are too large to be searched here. Open the page of the task that "
    "built the payload: its XCom tab shows the payload, or the path of its file.",
    Missing.NO_FILE: "The payload is in a file of the XCom backend's object storage, but this API server "
    "can't find the file. It was deleted, or it is in a folder that only the workers can read.",
    Missing.ELSEWHERE: "The payload is kept by an XCom backend that can't be read from the API server.",
}

router = APIRouter()


@router.get("/delivery")
def delivery(request: Request, access: AccessDep, session: SessionDep, render: RendererDep) -> Response:
    """Show the delivery that the address names: DAG, run, task, map index, ledger and message."""
    query = request.query_params
    tasks, message_id = _named(query)
    access.check(Right.READ, [tasks.dag_id])
    begin_snapshot(session)
    found = find_delivery(session, tasks, query.get("ledger", ""), message_id)
    if found is None:
        raise NotFound(
            "There is no delivery of this message. Its run may have been deleted, its state may have "
            "expired, or another version of airflow-insightly-hooks may have written it."
        )
    about = found.message.about
    workflow = workflow_dag_id(found.key.dag_id, access.dag_ids)
    around = task_around(session, found.key)
    may_read = access.may(Right.READ_CONTENTS, found.key.dag_id)
    return render(
        "delivery.html",
        {
            "one": found,
            "key": found.key,
            "message": found.message,
            "about": about,
            "changed_at": time_or_none(about.changed_at) if about is not None else None,
            "workflow": workflow,
            "around": around,
            "state_words": STATE_WORDS,
            "record_page": _record_page(about, around),
            "receiver_page": _receiver_page(found.conn_id),
            "may_read": may_read,
            "contents_right": Right.READ_CONTENTS.words(found.key.dag_id),
            "payload": _payload(session, found) if may_read else None,
            "requests": [(asked, time_or_none(asked.at)) for asked in requests_for(session, found)],
            "others": [
                (row, delivery_address(render.addresses, row, query.get("tab", "")))
                for row in _others(session, found, access)
            ],
            "value": selection_value(found),
            "may_resend": access.may(Right.RESEND, found.key.dag_id),
            "resend_right": Right.RESEND.words(found.key.dag_id),
            **_place(query, found, workflow),
        },
    )


def _named(query: Mapping[str, str]) -> tuple[WantedTasks, str]:
    """Return the task and the message that an address names."""
    dag_id, run_id, task_id, message_id = (
        query.get(name, "") for name in ("dag_id", "run_id", "task_id", "message_id")
    )
    text = query.get("map_index", "")
    map_index = whole_number(text, LARGEST_MAP_INDEX) if text not in ("", "-1") else -1
    is_complete = dag_id and run_id and task_id and message_id
    if map_index is None or not is_complete or "\0" in "".join(query.values()):
        raise BadRequest(
            "The address of a delivery must have dag_id, run_id, task_id and message_id, and for a mapped "
            "task also map_index. Open the delivery from the list."
        )
    return WantedTasks(dag_id, run_id, task_id, map_index), message_id


def _place(query: Mapping[str, str], found: Delivery, workflow: str) -> dict[str, Any]:
    """Return the tab that shows the page, and the tab's fields."""
    named = {"tab": query.get("tab", ""), **task_fields(found.key)}
    if named["tab"] == "dag":
        named["dag_id"] = workflow
    scope = tab_fields(named.get)
    return {"tab": scope.get("tab", ""), "scope": scope}


def _record_page(about: About | None, around: TaskAround) -> str:
    """Return the address of a record in Insightly; empty if the account isn't known."""
    from airflow_insightly_hooks.hooks.insightly import record_page

    if about is None or not about.record_type:
        return ""
    for name in around.insightly_assets:
        conn_id = name.removeprefix("insightly/").removesuffix(f"/{about.record_type}")
        if name == f"insightly/{conn_id}/{about.record_type}":
            with suppress(*NO_CONNECTION, KeyError):
                return _web(record_page(conn_id, about.record_type, about.record_id))
    return ""


def _receiver_page(conn_id: str | None) -> str:
    from airflow_insightly_hooks.hooks.webhook import WebhookHook

    with suppress(*NO_CONNECTION):
        return _web(WebhookHook(conn_id).web_url) if conn_id else ""
    return ""


def _web(address: str) -> str:
    return address if address.startswith(("https://", "http://")) else ""


def _payload(session: Session, found: Delivery) -> dict[str, Any]:
    """Return the message's body, indented and as it was sent, or why it can't be shown."""
    xcom_keys = ("return_value", f"{PAYLOADS}{found.key.task_id}")
    body, missing = find_payload(session, found.key, found.message.message_id, xcom_keys)
    if body is None:
        return {"missing": MISSING[missing or Missing.GONE]}
    shown = body[:MOST_SHOWN]
    return {
        "missing": "",
        "exact": shown,
        "indented": indented(shown),
        "size": len(body.encode("utf-8", "replace")),
        "is_cut": len(shown) < len(body),
    }


def _others(session: Session, found: Delivery, access: Access) -> list[Delivery]:
    """Return the other deliveries of a message that was left to the retry DAG.

    For a delivery of the workflow, they are the deliveries of its retry DAG, and the other way round.
    """
    dag_id = found.key.dag_id
    if found.message.state == LEFT:
        of = dag_id + RETRY_SUFFIX
    elif dag_id.endswith(RETRY_SUFFIX):
        of = dag_id.removesuffix(RETRY_SUFFIX)
    else:
        return []
    dag_ids = access.permitted(Right.READ, [of])
    wanted = DeliveryFilter(dag_ids=dag_ids, message_ids=[found.message.message_id])
    return search_deliveries(session, wanted, limit=20).rows if dag_ids else []
