"""What of all that is pending a person may see, has filtered, and has chosen to cancel or to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.digest import digest_of
from airflow_insightly_hooks.core.records import record_id_in
from airflow_insightly_hooks.core.workflow.values import slug_of
from airflow_insightly_hooks.database.pending import PendingDag, PendingPage, PendingRow, pending_webhooks
from airflow_insightly_hooks.database.pending_requests import pending_names
from airflow_insightly_hooks.ui.access import Access, Right
from airflow_insightly_hooks.ui.forms import Form
from airflow_insightly_hooks.ui.problems import BadRequest

__all__ = [
    "ALL",
    "Filter",
    "Selection",
    "changeable",
    "key_of",
    "read_pending",
    "readable_workflows",
    "selection_in",
    "senders_of",
    "shown_dag",
]

ALL = "all"
"""The field of a form that chooses all that its filter holds, and not single rows."""


class Filter(NamedTuple):
    """What of all that is pending is meant; an empty text narrows nothing down."""

    workflow: str = ""
    webhook: str = ""
    record: str = ""

    @classmethod
    def of(cls, form: Form) -> Filter:
        """Return the filter that a form carries along.

        :raises BadRequest: if it can't be read.
        """
        found = cls(*(form.get(name) for name in cls._fields))
        for problem in found.problems().values():
            raise BadRequest(problem)
        return found

    def problems(self) -> dict[str, str]:
        """Return what is wrong, by field."""
        problems = {}
        if "\0" in self.workflow:
            problems["workflow"] = "This is no DAG's id."
        if self.webhook and not slug_of(self.webhook):
            problems["webhook"] = "A webhook's name has letters or digits."
        if self.record and self.record_id is None:
            problems["record"] = "A record's id is a whole number, such as 40000007."
        return problems

    @property
    def record_id(self) -> int | None:
        """The record's id, if there is one."""
        return record_id_in(self.record)

    @property
    def query(self) -> dict[str, str]:
        """What an address holds of it."""
        return {name: value for name, value in self._asdict().items() if value}


class Selection(NamedTuple):
    """What a person has chosen, as it is pending now."""

    rows: list[PendingRow]  # what can be changed
    dags: dict[str, PendingDag]  # that send them, by their ids
    gone: int  # chosen, and no longer pending
    unsent: Counter[str]  # by workflow, rows that no DAG sends
    forbidden: Counter[str]  # by DAG that sends, as a page names it, rows that the person may not change

    @property
    def digest(self) -> str:
        """What tells another set of rows from this one."""
        return digest_of("\n".join(sorted(map(key_of, self.rows))))


def readable_workflows(access: Access, session: Session) -> dict[str, set[str]]:
    """Return those of which something may be pending that the person may see, and their webhooks' names."""
    names = pending_names(session)
    readable = access.those(Right.READ, names)
    # Whoever may read all DAGs may also read those that are gone.
    readable |= {name for name in names.keys() - access.dag_ids if access.may(Right.READ, name)}
    return {name: names[name] for name in sorted(readable)}


def read_pending(
    access: Access, session: Session, chosen: Filter, readable: Collection[str] | None = None
) -> PendingPage:
    """Return what is pending of the workflows that the person may see.

    :param readable: ``readable_workflows``, where they are known already.
    :raises Forbidden: if the filter names a workflow that the person may not see.
    """
    if chosen.workflow:
        access.check(Right.READ, [chosen.workflow])
        readable = [chosen.workflow]
    elif readable is None:
        readable = readable_workflows(access, session)
    if not readable:
        return PendingPage([], 0, [], [])  # to name no workflow would mean all of them
    record_id = chosen.record_id
    return pending_webhooks(
        session,
        dag_ids=readable,
        webhooks={chosen.webhook, slug_of(chosen.webhook)} if chosen.webhook else (),
        record_ids=() if record_id is None else (record_id,),
    )


def senders_of(rows: Iterable[PendingRow]) -> set[str]:
    """Return the DAGs that send these."""
    return {row.pending_dag_id for row in rows if row.pending_dag_id is not None}


def changeable(access: Access, dag_ids: Iterable[str]) -> frozenset[str]:
    """Return those of the DAGs that the person may have cancel what is pending, or send it."""
    return access.those(Right.START_RUNS, access.those(Right.READ, dag_ids))


def shown_dag(access: Access, dag_id: str) -> str:
    """Return how a page names a DAG that sends what is pending; it may have any name."""
    return dag_id if access.those(Right.READ, [dag_id]) else "a DAG that you may not see"


def key_of(row: PendingRow) -> str:
    """Return what names an entry in a form: the same record, scheduled anew, has another name."""
    return f"{row.dag_id}/{row.webhook}/{row.record_id}/{row.changed_at}"


def selection_in(form: Form, access: Access, session: Session) -> Selection:
    """Return what a form has chosen: the rows that it names, or all that its filter holds.

    :raises BadRequest: if it chooses nothing, or can't be read.
    :raises Forbidden: if it names a workflow that the person may not see.
    """
    if form.get(ALL):
        page = read_pending(access, session, Filter.of(form))
        return _selection(access, page, page.rows, 0)
    keys = set(form.all("row"))
    if not keys:
        raise BadRequest("Nothing is selected. Go back and select the webhooks that are meant.")
    workflows = _workflows(keys)
    access.check(Right.READ, workflows)
    page = pending_webhooks(session, dag_ids=workflows)
    rows = [row for row in page.rows if key_of(row) in keys]
    return _selection(access, page, rows, len(keys - set(map(key_of, rows))))


def _workflows(keys: set[str]) -> set[str]:
    parts = [key.split("/") for key in keys]
    if not all(len(part) == 4 and all(part) for part in parts):
        raise BadRequest("The form names an entry that can't be read. Go back, and load the page again.")
    return {part[0] for part in parts}


def _selection(access: Access, page: PendingPage, rows: list[PendingRow], gone: int) -> Selection:
    senders = senders_of(rows)
    allowed = changeable(access, senders)
    return Selection(
        [row for row in rows if row.pending_dag_id in allowed],
        {dag.dag_id: dag for dag in page.dags},
        gone,
        Counter(row.dag_id for row in rows if row.pending_dag_id is None),
        Counter(
            shown_dag(access, row.pending_dag_id)
            for row in rows
            if row.pending_dag_id and row.pending_dag_id not in allowed
        ),
    )
