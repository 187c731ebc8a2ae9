"""The pending webhooks that a person may see, filters, and selects to cancel or to send."""

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
"""The field of a form that selects everything that matches its filter, and not single rows."""


class Filter(NamedTuple):
    """A filter of pending webhooks. Empty fields match everything."""

    workflow: str = ""
    webhook: str = ""
    record: str = ""

    @classmethod
    def of(cls, form: Form) -> Filter:
        """Return the filter in a form.

        :raises BadRequest: if one of its fields can't be used.
        """
        found = cls(*(form.get(name) for name in cls._fields))
        for problem in found.problems().values():
            raise BadRequest(problem)
        return found

    def problems(self) -> dict[str, str]:
        """Return what is wrong with a field, by the field's name."""
        problems = {}
        if "\0" in self.workflow:
            problems["workflow"] = "This is not the id of a DAG. Choose a workflow from the list."
        if self.webhook and not slug_of(self.webhook):
            problems["webhook"] = "A webhook's name must have letters or digits."
        if self.record and self.record_id is None:
            problems["record"] = "A record's id must be a whole number, such as 40000007."
        return problems

    @property
    def record_id(self) -> int | None:
        """The record's id, if there is one."""
        return record_id_in(self.record)

    @property
    def query(self) -> dict[str, str]:
        """The fields of the filter in an address."""
        return {name: value for name, value in self._asdict().items() if value}


class Selection(NamedTuple):
    """The pending webhooks that a person has selected, as they are now.

    :param rows: the webhooks that the person can change.
    :param dags: the DAGs that send them, by id.
    :param gone: how many selected webhooks are no longer pending.
    :param unsent: by workflow: how many selected webhooks no DAG sends.
    :param forbidden: by the shown name of the sending DAG: how many webhooks the person may not change.
    """

    rows: list[PendingRow]
    dags: dict[str, PendingDag]
    gone: int
    unsent: Counter[str]
    forbidden: Counter[str]

    @property
    def digest(self) -> str:
        """A digest of the rows. Other rows have another digest."""
        return digest_of("\n".join(sorted(map(key_of, self.rows))))


def readable_workflows(access: Access, session: Session) -> dict[str, set[str]]:
    """Return the workflows that may have pending webhooks and that the person may see.

    The values are the names of their webhooks.
    """
    names = pending_names(session)
    readable = access.permitted(Right.READ, names)
    # A person who may read all DAGs may also read DAGs that no longer exist.
    readable |= {name for name in names.keys() - access.dag_ids if access.may(Right.READ, name)}
    return {name: names[name] for name in sorted(readable)}


def read_pending(
    access: Access, session: Session, chosen: Filter, readable: Collection[str] | None = None
) -> PendingPage:
    """Return the pending webhooks of the workflows that the person may see.

    :param readable: the result of ``readable_workflows``, if it is known already.
    :raises Forbidden: if the filter names a workflow that the person may not see.
    """
    if chosen.workflow:
        access.check(Right.READ, [chosen.workflow])
        readable = [chosen.workflow]
    elif readable is None:
        readable = readable_workflows(access, session)
    if not readable:
        return PendingPage([], 0, [], [])  # a search without workflows would find those of all workflows
    record_id = chosen.record_id
    return pending_webhooks(
        session,
        dag_ids=readable,
        webhooks={chosen.webhook, slug_of(chosen.webhook)} if chosen.webhook else (),
        record_ids=() if record_id is None else (record_id,),
    )


def senders_of(rows: Iterable[PendingRow]) -> set[str]:
    """Return the ids of the DAGs that send the webhooks."""
    return {row.pending_dag_id for row in rows if row.pending_dag_id is not None}


def changeable(access: Access, dag_ids: Iterable[str]) -> frozenset[str]:
    """Return the DAGs whose pending webhooks the person may cancel or send."""
    return access.permitted(Right.START_RUNS, access.permitted(Right.READ, dag_ids))


def shown_dag(access: Access, dag_id: str) -> str:
    """Return the name that a page shows for a DAG that sends pending webhooks.

    Such a DAG may have any id, so only persons who may see the DAG see its id.
    """
    return dag_id if access.permitted(Right.READ, [dag_id]) else "a DAG that you may not see"


def key_of(row: PendingRow) -> str:
    """Return the key of an entry in a form. If the same record is scheduled again, its key is another one."""
    return f"{row.dag_id}/{row.webhook}/{row.record_id}/{row.changed_at}"


def selection_in(form: Form, access: Access, session: Session) -> Selection:
    """Return the selection in a form: the rows that it names, or everything that matches its filter.

    :raises BadRequest: if it selects nothing, or can't be read.
    :raises Forbidden: if it names a workflow that the person may not see.
    """
    if form.get(ALL):
        page = read_pending(access, session, Filter.of(form))
        return _selection(access, page, page.rows, 0)
    keys = set(form.all("row"))
    if not keys:
        raise BadRequest("Nothing is selected. Go back, and select the webhooks to cancel or to send.")
    workflows = _workflows(keys)
    access.check(Right.READ, workflows)
    page = pending_webhooks(session, dag_ids=workflows)
    rows = [row for row in page.rows if key_of(row) in keys]
    return _selection(access, page, rows, len(keys - set(map(key_of, rows))))


def _workflows(keys: set[str]) -> set[str]:
    parts = [key.split("/") for key in keys]
    if not all(len(part) == 4 and all(part) for part in parts):
        raise BadRequest("An entry of the form can't be read. Go back, and load the page again.")
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
