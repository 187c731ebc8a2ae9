"""The list of deliveries. It is also a tab on Airflow's pages of DAGs, runs and tasks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from airflow_insightly_hooks.core.delivery.stored_deliveries import DELIVERED, DRY_RUN, LEFT, STATES
from airflow_insightly_hooks.core.workflow.dag_ids import PENDING_SUFFIX, RETRY_SUFFIX, workflow_dag_id
from airflow_insightly_hooks.database.deliveries import (
    UNDELIVERED,
    Deliveries,
    Delivery,
    search_deliveries,
)
from airflow_insightly_hooks.database.delivery_details import delivering_dags
from airflow_insightly_hooks.database.presence import begin_snapshot
from airflow_insightly_hooks.ui.access import AccessDep, Right
from airflow_insightly_hooks.ui.delivery_filter import PERIODS, STATE_WORDS, WantedDeliveries
from airflow_insightly_hooks.ui.delivery_keys import delivery_address, selection_value
from airflow_insightly_hooks.ui.rendering import Renderer, RendererDep

__all__ = ["router"]

PAGE = 50
LONGEST_ERROR = 160
LABELS = {
    "dag_id": "DAG",
    "run_id": "Run",
    "task_id": "Task",
    "map_index": "Map index",
    "workflow": "Workflow",
    "receiver": "Receiver",
    "record": "Record",
    "message": "Message",
    "state": "State",
    "period": "Time",
    "from": "From",
    "to": "Until",
}

router = APIRouter()


@router.get("/deliveries")
def deliveries(request: Request, access: AccessDep, session: SessionDep, render: RendererDep) -> Response:
    """Show the deliveries that match the address, newest first."""
    wanted = WantedDeliveries.read(request.query_params, datetime.now(timezone.utc))
    access.check(Right.READ, filter(None, (wanted["dag_id"], wanted["workflow"])))
    if not wanted.problems and (clean := _clean_address(request, wanted, render)):
        return RedirectResponse(clean, 303)
    visible = access.dag_ids
    allowed = access.permitted(Right.READ, delivering_dags(session, visible))
    workflows = {workflow_dag_id(dag_id, visible) for dag_id in allowed}
    found = Deliveries([], has_more=False, unreadable=0)
    if not wanted.problems:
        begin_snapshot(session)
        offset = PAGE * (wanted.page - 1)
        found = search_deliveries(session, wanted.filter(allowed, visible), limit=PAGE, offset=offset)
    may_resend = access.permitted(Right.RESEND, {row.key.dag_id for row in found.rows})
    return render(
        "deliveries.html",
        {
            "wanted": wanted,
            "tab": wanted["tab"],
            "rows": [
                _shown(row, workflow_dag_id(row.key.dag_id, visible), wanted, render, may_resend)
                for row in found.rows
            ],
            "found": found,
            "workflows": sorted({*workflows, *filter(None, [wanted["workflow"]])}),
            "receivers": sorted({text for row in found.rows for text in (row.conn_id, row.receiver) if text}),
            "states": STATES,
            "state_words": STATE_WORDS,
            "periods": PERIODS,
            "chips": _chips(wanted, render),
            "has_any": bool(allowed if not (dag_id := wanted["dag_id"]) else dag_id in allowed | workflows),
            "may_resend": may_resend,
            "resends_all": wanted["state"] not in (DELIVERED, LEFT, DRY_RUN),
        },
        status=400 if wanted.problems else 200,
    )


def _clean_address(request: Request, wanted: WantedDeliveries, render: Renderer) -> str:
    """Return the address for sharing: no empty fields, times in UTC. Empty if it is the given address."""
    clean = dict(wanted.query, **({"page": str(wanted.page)} if wanted.page > 1 else {}))
    if wanted["period"] == "range" and not ("from" in clean or "to" in clean):
        clean["period"] = "range"  # so that the page shows the fields for its times
    given = dict(request.query_params)
    given.pop("map_index", None)  # Airflow's tabs write it in their own form
    shown = {name: value for name, value in clean.items() if name != "map_index"}
    return "" if given == shown else render.addresses.page("/deliveries", clean)


def _shown(
    row: Delivery, workflow: str, wanted: WantedDeliveries, render: Renderer, may_resend: Collection[str]
) -> dict[str, Any]:
    about, last = row.message.about, row.last
    record = f"{about.record_type}:{about.record_id}".lstrip(":") if about else ""
    error = last.error if last is not None else None
    scope = wanted.scope
    return {
        "delivery": row,
        "about": about,
        "address": delivery_address(render.addresses, row, wanted["tab"]),
        "record_address": render.addresses.page("/deliveries", {**scope, "record": record, "period": "all"})
        if record and wanted["record"] != record
        else "",
        "workflow": workflow,
        "sender": _sender(row.key.dag_id.removeprefix(workflow)),
        "status": last.status if last is not None and row.message.state != DELIVERED else None,
        "error": error[:LONGEST_ERROR] + "…" if error and len(error) > LONGEST_ERROR else error,
        "value": selection_value(row) if row.key.dag_id in may_resend else "",
    }


def _sender(suffix: str) -> str:
    """Return which of a workflow's DAGs has sent a message; empty for the workflow's own DAG."""
    return {RETRY_SUFFIX: "retry DAG", PENDING_SUFFIX: "pending DAG"}.get(suffix, "")


def _chips(wanted: WantedDeliveries, render: Renderer) -> list[dict[str, Any]]:
    """Return the filters of the list. Each has the address of the list without this filter."""
    chips: list[dict[str, Any]] = []
    for name, value in wanted.chosen.items():
        if name not in LABELS or name in wanted.problems:
            continue
        rest = {other: text for other, text in wanted.query.items() if other != name}
        if name == "run_id":
            rest = {other: text for other, text in rest.items() if other not in ("task_id", "map_index")}
        elif name == "dag_id":
            rest = {o: text for o, text in rest.items() if o not in ("run_id", "task_id", "map_index")}
        time = {"from": wanted.since, "to": wanted.until}.get(name)
        shown = PERIODS[value][0] if name == "period" and value in PERIODS else value
        if name == "state":
            shown = "undelivered (everything that still has to arrive)" if value == UNDELIVERED else value
        address = render.addresses.page("/deliveries", rest)
        chips.append({"label": LABELS[name], "value": shown, "time": time, "without": address})
    return chips
