"""Pending webhooks: the list, and requests to cancel them or to send them now.

A request takes two forms. The list's form leads to a page that shows what will happen, and changes nothing.
The form on that page makes the request. Both forms go to addresses that also answer a GET with a page,
because Airflow keeps its frame's address, and loads it again.

If the second form is sent twice, runs are queued each time. That does no harm: an entry is identified by its
record and the time of its change, and is removed once. The later run does not find it, and its log says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.utils.types import DagRunTriggeredByType
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.core.state.pending_request import CANCEL, SEND_NOW
from airflow_insightly_hooks.database.pending import (
    PendingDagNotFound,
    PendingPage,
    PendingRow,
    cancel,
    send_now,
)
from airflow_insightly_hooks.database.pending_requests import request_name, requested_runs
from airflow_insightly_hooks.ui.access import Access, AccessDep, Right
from airflow_insightly_hooks.ui.fields import whole_number
from airflow_insightly_hooks.ui.forms import Form, FormDep
from airflow_insightly_hooks.ui.pending_selection import (
    ALL,
    Filter,
    Selection,
    changeable,
    key_of,
    read_pending,
    readable_workflows,
    selection_in,
    senders_of,
    shown_dag,
)
from airflow_insightly_hooks.ui.problems import BadRequest, NotFound
from airflow_insightly_hooks.ui.rendering import Renderer, RendererDep

__all__ = ["router"]

ROWS = 50
LARGEST_PAGE = 999_999_999
NAMED = 8
"""How many records of each webhook a confirmation names."""
ASK = {CANCEL: cancel, SEND_NOW: send_now}
UNITS = ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"))

router = APIRouter()


# --- the list ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A pending webhook, as the list shows it."""

    row: PendingRow
    key: str
    changed_at: datetime
    waits: str  # "in 3 days"
    can_change: bool


@router.get("/pending")
def show_pending(
    access: AccessDep,
    session: SessionDep,
    render: RendererDep,
    workflow: str = "",
    webhook: str = "",
    record: str = "",
    page: str = "1",
) -> HTMLResponse:
    """Show the pending webhooks, sorted by the time at which they are due."""
    chosen = Filter(workflow.strip(), webhook.strip(), record.strip())
    names = readable_workflows(access, session)
    values = {
        "filter": chosen,
        "workflows": sorted({*names, chosen.workflow} - {""}),
        "webhooks": sorted({chosen.webhook}.union(*names.values()) - {""}),
        "problems": chosen.problems(),
    }
    if chosen.problems():
        return render("pending.html", values, status=400, **_shown(access, PendingPage([], 0, [], []), 1))
    found = read_pending(access, session, chosen, names)
    # A bookmarked address may name a page past the end of the list.
    last = max(1, -(-found.total // ROWS))
    return render("pending.html", values, **_shown(access, found, min(_number(page), last)))


def _number(page: str) -> int:
    number = whole_number(page, LARGEST_PAGE)
    if not number:
        raise BadRequest("The page must be a whole number from 1 on. Correct the address.")
    return number


def _shown(access: Access, found: PendingPage, number: int) -> dict[str, Any]:
    senders = senders_of(found.rows)
    allowed = changeable(access, senders)
    readable = access.permitted(Right.READ, {dag.dag_id for dag in found.dags})
    dags = [dag for dag in found.dags if dag.dag_id in readable]
    now = datetime.now(timezone.utc)
    return {
        "lines": [
            Line(
                row,
                key_of(row),
                api_time(row.changed_at),
                _waits(row.due - now),
                row.pending_dag_id in allowed,
            )
            for row in found.rows[(number - 1) * ROWS : number * ROWS]
        ],
        "total": found.total,
        "changeable": sum(row.pending_dag_id in allowed for row in found.rows),
        "forbidden": sorted({shown_dag(access, dag_id) for dag_id in senders - allowed}),
        "first": (number - 1) * ROWS + 1,
        "page": number,
        "pages": max(1, -(-found.total // ROWS)),
        "paused": [dag.dag_id for dag in dags if dag.is_paused],
        "queued": [dag for dag in dags if dag.queued],
        "unreadable": [str(error) for error in found.unreadable],
        "unsent": sorted(
            Counter((row.dag_id, row.webhook) for row in found.rows if row.pending_dag_id is None).items()
        ),
    }


def _waits(left: timedelta) -> str:
    """Return how long a webhook still waits, or has been due, in one unit: ``in 3 days``."""
    length = abs(left)
    unit, name = next(((unit, name) for unit, name in UNITS if length >= 2 * unit), UNITS[-1])
    number = round(length / unit)
    if not number:
        return "now"
    words = counted(number, name)
    return f"in {words}" if left > timedelta(0) else f"overdue for {words}"


# --- cancel, send now --------------------------------------------------------------------------------------


class Group(NamedTuple):
    """The selected entries of a webhook, as the confirmation shows them."""

    dag_id: str
    webhook: str
    record_type: str
    pending_dag_id: str
    is_paused: bool
    total: int
    named: list[int]  # the first records


@router.post("/pending")
def confirm(form: FormDep, access: AccessDep, session: SessionDep, render: RendererDep) -> HTMLResponse:
    """Show what would be cancelled or sent. Nothing is changed yet."""
    return _confirmation(render, form, selection_in(form, access, session))


@router.post("/pending/runs")
def ask(form: FormDep, access: AccessDep, session: SessionDep, render: RendererDep) -> Response:
    """Make the request that was confirmed, and show its progress. If the selection changed, ask again."""
    action = _action(form)
    selection = selection_in(form, access, session)
    if not selection.rows or selection.digest != form.get("seen"):
        return _confirmation(render, form, selection, has_changed=True)
    try:
        runs = ASK[action](
            session, selection.rows, who=access.user_name, triggered_by=DagRunTriggeredByType.UI
        )
    except PendingDagNotFound as error:
        raise BadRequest(f"Nothing was changed: {error}.") from None
    # Loading the next page again must not make the request again.
    return RedirectResponse(render.addresses.page("/pending/runs", request=request_name(runs[0].run_id)), 303)


def _action(form: Form) -> str:
    action = form.get("action")
    if action not in ASK:
        raise BadRequest(
            "The form doesn't say whether to cancel or to send. Go back to the list, and try again."
        )
    return action


def _confirmation(
    render: Renderer, form: Form, selection: Selection, *, has_changed: bool = False
) -> HTMLResponse:
    return render(
        "pending_confirm.html",
        action=_action(form),
        filter=Filter.of(form),
        selection=selection,
        chosen=[(ALL, "yes")] if form.get(ALL) else [("row", key_of(row)) for row in selection.rows],
        groups=_groups(selection),
        has_changed=has_changed,
        status=409 if has_changed else 200,
    )


def _groups(selection: Selection) -> list[Group]:
    by_webhook: dict[tuple[str, str, str, str], list[int]] = {}
    for row in selection.rows:
        place = (row.dag_id, row.webhook, row.record_type, row.pending_dag_id or "")
        by_webhook.setdefault(place, []).append(row.record_id)
    paused = {dag.dag_id for dag in selection.dags.values() if dag.is_paused}
    return [
        Group(*place, place[3] in paused, len(ids), _first(ids)) for place, ids in sorted(by_webhook.items())
    ]


def _first(record_ids: Iterable[int]) -> list[int]:
    return sorted(record_ids)[:NAMED]


# --- progress ----------------------------------------------------------------------------------------------


@router.get("/pending/runs")
def show_runs(access: AccessDep, session: SessionDep, render: RendererDep, request: str = "") -> Response:
    """Show the runs of a request, and how much of it they have carried out."""
    if not request:  # the address of a confirmation that was shown again after a change
        return RedirectResponse(render.addresses.page("/pending"), 303)
    found = requested_runs(session, request, readable_workflows(access, session))
    runs = [run for run in found if access.may(Right.READ, run.dag_id)]
    if not runs:
        raise NotFound(
            "This request does not exist, its runs have been deleted, or you may not see their DAGs. Go "
            "back to the list."
        )
    return render(
        "pending_runs.html",
        request=request,
        action=runs[0].action,
        who=runs[0].who,
        runs=runs,
        entries=sum(run.entries for run in runs),
        waiting=sum(run.waiting for run in runs),
        is_over=all(run.has_ended or not run.waiting for run in runs),
    )
