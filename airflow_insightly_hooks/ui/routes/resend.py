"""The pages that send messages again: the confirmation, and the progress."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.utils.session import create_session
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.delivery.stored_deliveries import DELIVERED, DRY_RUN, LEFT
from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.workflow.dag_ids import workflow_dag_id
from airflow_insightly_hooks.database.deliveries import (
    UNDELIVERED,
    Delivery,
    search_deliveries,
)
from airflow_insightly_hooks.database.delivery_details import delivering_dags, find_delivery
from airflow_insightly_hooks.database.presence import begin_snapshot
from airflow_insightly_hooks.database.resend import Resend, by_task, latest_of_each, refusals, resend
from airflow_insightly_hooks.database.resend_progress import (
    ENDED,
    TaskProgress,
    request_dags,
    request_progress,
)
from airflow_insightly_hooks.ui.access import Access, AccessDep, Right
from airflow_insightly_hooks.ui.delivery_filter import FIELDS, WantedDeliveries
from airflow_insightly_hooks.ui.delivery_keys import read_selection, tab_fields, task_fields
from airflow_insightly_hooks.ui.fields import whole_number
from airflow_insightly_hooks.ui.forms import Form, FormDep
from airflow_insightly_hooks.ui.problems import BadRequest, NotFound
from airflow_insightly_hooks.ui.rendering import Renderer, RendererDep

__all__ = ["router"]

log = logging.getLogger(__name__)

MOST_RESENT = 100_000
MOST_SELECTED = 500
MOST_LOOKED_AT = 100
"""For how many tasks the confirmation checks whether they could send."""
LONGEST_ANSWER = 10.0
"""How many seconds a browser waits at most. Work that takes longer goes on after the answer."""
INTERRUPTED = timedelta(minutes=2)
"""If no further task gets the request for this time, the others won't get it: the API server has stopped."""
SHOWN_TASKS = 100
_ID = re.compile(r"[0-9a-f]{12}")

router = APIRouter()


@router.post("/resend")
def send_again(form: FormDep, access: AccessDep, session: SessionDep, render: RendererDep) -> Response:
    """Show what would be sent again. After the person has confirmed, make the request."""
    request_id = form.get("confirmed")
    if request_id and not _ID.fullmatch(request_id):
        raise BadRequest("The form's id can't be read. Go back to the list, and select the deliveries again.")
    if request_id and request_dags(session, request_id):  # a double click, or the page was loaded again
        return _to_progress(render, form, request_id, whole_number(form.get("tasks"), MOST_RESENT))
    begin_snapshot(session)
    chosen = _chosen(form, access, session)
    if not request_id or form.get("seen") != chosen.digest:
        return _confirmation(render, form, session, chosen, access.dag_ids, request_id)
    session.rollback()
    work = _ask(chosen.messages, by=access.user_name, what=chosen.in_words, request_id=request_id)
    tasks = sum(1 for _ in by_task(chosen.messages))
    until = time.monotonic() + LONGEST_ANSWER
    asked = 0
    try:
        for _ in work:
            asked += 1
            if time.monotonic() > until:
                break
    except SQLAlchemyError as error:
        if not asked:
            raise
        log.warning("Only %s of %s tasks were asked to send again: %s", asked, tasks, type(error).__name__)
        return _to_progress(render, form, request_id, tasks)  # this page says that the other tasks were not
    return _to_progress(render, form, request_id, tasks, BackgroundTask(_finish, work))


def _ask(messages: Sequence[Delivery], **asked: str) -> Iterator[Resend]:
    with create_session(scoped=False) as session:  # the request's own session is closed with the answer
        yield from resend(session, messages, **asked)


def _finish(work: Iterator[Resend]) -> None:
    for _ in work:
        pass


def _to_progress(
    render: Renderer,
    form: Form,
    request_id: str,
    tasks: int | None = None,
    rest: BackgroundTask | None = None,
) -> Response:
    address = render.addresses.page("/resend", tab_fields(form.get), id=request_id, tasks=tasks)
    return RedirectResponse(address, 303, background=rest)


# --- what is to be sent ------------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    """The messages that a form selects, as they are now."""

    messages: list[Delivery]
    fields: list[tuple[str, str]]
    """The fields of a form that selects the same messages."""
    in_words: str
    left_out: dict[str, int]
    """By DAG: how many messages the person may not send again."""
    gone: int
    """How many selected messages are no longer stored."""
    unreadable: int

    @property
    def digest(self) -> str:
        """A digest of the messages and their states. It changes if one of these changes."""
        return digest_of(
            repr(
                sorted(
                    (d.key, d.message.message_id, d.message.state, d.message.attempts, d.at)
                    for d in self.messages
                )
            )
        )


def _chosen(form: Form, access: Access, session: Session) -> _Chosen:
    if form.get("what") == "selected":
        return _selected(form, access, session)
    if form.get("what") == "undelivered":
        return _matching(form, access, session)
    raise BadRequest("The form doesn't say what to send again. Go back to the list, and select deliveries.")


def _selected(form: Form, access: Access, session: Session) -> _Chosen:
    values = list(dict.fromkeys(form.all("delivery")))
    if not values:
        raise BadRequest("No delivery is selected. Go back to the list, and select deliveries to send again.")
    if len(values) > MOST_SELECTED:
        raise BadRequest(f"At most {MOST_SELECTED} deliveries can be selected at once. Select fewer.")
    selected = [read_selection(value) for value in values]
    access.check(Right.READ, [tasks.dag_id for tasks, _, _ in selected])
    found = [find_delivery(session, *one) for one in selected]
    rows = sorted((one for one in found if one is not None), key=lambda one: one.at, reverse=True)
    ids = " ".join(message for _, _, message in selected)
    words = f"message={ids}" if len(ids) < 200 else f"{len(values)} selected messages"
    fields = [("what", "selected"), *(("delivery", value) for value in values)]
    return _permitted(
        access, rows, [*fields, *tab_fields(form.get).items()], words, gone=len(selected) - len(rows)
    )


def _matching(form: Form, access: Access, session: Session) -> _Chosen:
    now = datetime.now(timezone.utc)
    wanted = WantedDeliveries.read({name: form.get(name) for name in (*FIELDS, "zone")}, now)
    if wanted.problems:
        raise BadRequest(" ".join(wanted.problems.values()))
    access.check(Right.READ, filter(None, (wanted["dag_id"], wanted["workflow"])))
    if wanted["state"] in (DELIVERED, LEFT, DRY_RUN):
        raise BadRequest(
            "Only undelivered messages can all be sent again at once. Select the others one by one."
        )
    # Only the messages that are shown now are sent after the confirmation, and none that come meanwhile.
    end = now.replace(microsecond=0) + timedelta(seconds=1)
    until = min(wanted.until or end, end)
    times = {
        "period": "range",
        "from": iso_time(wanted.since.replace(microsecond=0)) if wanted.since else "",
        "to": iso_time(until),
    }
    fields = {**wanted.given, **times, "state": wanted["state"] or UNDELIVERED}
    wanted = WantedDeliveries.read(fields, now)
    search = wanted.filter(
        access.permitted(Right.READ, delivering_dags(session, access.dag_ids)), access.dag_ids
    )
    found = search_deliveries(session, search, limit=MOST_RESENT)
    if found.has_more:
        raise BadRequest(
            f"More than {MOST_RESENT:,} messages match, but no more can be sent again at once. Choose a "
            "shorter period, or one workflow or receiver."
        )
    words = " ".join(
        f"{name}={value}" for name, value in wanted.given.items() if name not in ("tab", "period")
    )
    return _permitted(
        access,
        latest_of_each(found.rows),
        [("what", "undelivered"), *fields.items()],
        words[:500],
        unreadable=found.unreadable,
    )


def _permitted(
    access: Access,
    rows: Sequence[Delivery],
    fields: list[tuple[str, str]],
    words: str,
    *,
    gone: int = 0,
    unreadable: int = 0,
) -> _Chosen:
    """Return the selection without the messages that the person may not send again."""
    allowed = access.permitted(Right.RESEND, {row.key.dag_id for row in rows})
    left_out = Counter(row.key.dag_id for row in rows if row.key.dag_id not in allowed)
    messages = [row for row in rows if row.key.dag_id in allowed]
    return _Chosen(messages, fields, words, dict(left_out), gone, unreadable)


def _confirmation(
    render: Renderer,
    form: Form,
    session: Session,
    chosen: _Chosen,
    visible: Collection[str],
    request_id: str,
) -> Response:
    rows = chosen.messages
    reasons: Counter[str] = Counter()
    counts = {key: len(list(of)) for key, of in by_task(rows)}
    for key, reason in refusals(session, rows, at_most=MOST_LOOKED_AT).items():
        reasons[reason] += counts[key]
    return render(
        "resend_confirm.html",
        {
            "tab": tab_fields(form.get).get("tab", ""),
            "scope": tab_fields(form.get),
            "messages": len(rows),
            "names": list(dict.fromkeys(map(_name, rows))),
            "tasks": len(counts),
            "looked_at": min(len(counts), MOST_LOOKED_AT),
            "receivers": Counter(row.conn_id or row.receiver or "not known" for row in rows).most_common(),
            "workflows": Counter(workflow_dag_id(row.key.dag_id, visible) for row in rows).most_common(),
            "acknowledged": sum(row.message.state == DELIVERED for row in rows),
            "left": sum(row.message.state == LEFT for row in rows),
            "reasons": reasons.most_common(),
            "refused": sum(reasons.values()),
            "left_out": sorted(chosen.left_out.items()),
            "resend_right": Right.RESEND.words("these DAGs"),
            "gone": chosen.gone,
            "unreadable": chosen.unreadable,
            "fields": chosen.fields,
            "request_id": request_id or secrets.token_hex(6),
            "digest": chosen.digest,
            "has_changed": bool(request_id),
        },
    )


def _name(delivery: Delivery) -> str:
    """Return the name of a message's record, or else the message's id."""
    about = delivery.message.about
    if about is None:
        return delivery.message.message_id
    return f"{about.record_type} {about.record_id}".strip()


# --- progress ----------------------------------------------------------------------------------------------


@router.get("/resend")
def progress(request: Request, access: AccessDep, session: SessionDep, render: RendererDep) -> Response:
    """Show the progress of a request. Its address works for all persons who may see its tasks."""
    query = request.query_params
    request_id = query.get("id", "")
    if not request_id:  # the address of a confirmation, which Airflow keeps, and loads by GET
        return RedirectResponse(render.addresses.page("/deliveries", tab_fields(query.get)), 303)
    if not _ID.fullmatch(request_id):
        raise NotFound("There is no such request. Its address may be incomplete.")
    dag_ids = request_dags(session, request_id)
    allowed = access.permitted(Right.READ, dag_ids)
    found = request_progress(session, request_id, allowed)
    if found is None:
        raise NotFound("This request does not exist, or you may not see its workflows.")
    scope = tab_fields(query.get)
    tasks = whole_number(query.get("tasks", ""), MOST_RESENT) or 0
    missing = max(tasks - len(found.tasks), 0) if len(allowed) == len(dag_ids) else 0
    is_interrupted = missing > 0 and datetime.now(timezone.utc) - found.last_at > INTERRUPTED
    is_done = found.is_done and (not missing or is_interrupted)
    return render(
        "resend_progress.html",
        {
            "tab": scope.get("tab", ""),
            "scope": scope,
            "found": found,
            "sums": _sums(found.tasks),
            "messages": sum(task.messages for task in found.tasks),
            "tasks": [
                (task, render.addresses.page("/deliveries", task_fields(task.key), tab=scope.get("tab")))
                for task in sorted(found.tasks, key=_urgency)[:SHOWN_TASKS]
            ],
            "missing": missing,
            "is_interrupted": is_interrupted,
            "is_done": is_done,
            "hides_some": len(allowed) < len(dag_ids),
            "here": render.addresses.page("/resend", scope, id=request_id, tasks=tasks or None),
        },
    )


def _sums(tasks: Collection[TaskProgress]) -> dict[str, int]:
    """Return how many messages are in each step. ``ended``: their task's ledger was not read yet."""
    sums: Counter[str] = Counter()
    for task in tasks:
        if task.step != ENDED:
            sums[task.step] += task.messages
        elif task.delivered is None:
            sums[ENDED] += task.messages
        else:
            sums["delivered"] += task.delivered
            sums["undelivered"] += task.messages - task.delivered
    return dict(sums)


def _urgency(task: TaskProgress) -> tuple[int, bool]:
    """Return the place of a task in the list. Failed tasks come first."""
    order = ("refused", "under way", "waiting", ENDED)
    has_failed = task.step == ENDED and bool(task.undelivered)
    return (0 if has_failed else 1 + order.index(task.step)), task.delivered is None
