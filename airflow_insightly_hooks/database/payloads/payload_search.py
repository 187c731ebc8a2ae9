"""Find the payload of a message in the XCom of the task that made it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.models.xcom import XComModel
from sqlalchemy import Select, Text, cast, func, select

from airflow_insightly_hooks.core.payload import CHUNK_KEY
from airflow_insightly_hooks.database.payloads.stored_xcoms import (
    MissingXComFileError,
    XComTooLargeError,
    stored_value,
)
from airflow_insightly_hooks.database.task_instances import dag_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.database.deliveries import TaskKey

__all__ = ["FoundPayload", "Missing", "find_payload"]

LARGEST_XCOM = 64_000_000
"""The most characters of an XCom, or bytes of its file, that are read for one payload."""
SHORT = 4_096
"""An XCom with fewer characters may be a backend's reference to the place where the value is stored."""
MOST_XCOMS = 100
"""The most XComs that are read for one payload: a page doesn't wait for more."""
LONGEST_SEARCH = 5.0
"""Seconds after which no other XCom is read: the API server does little else while it unpacks large XComs."""


class Missing(Enum):
    """Why a payload can't be shown."""

    NOT_KEPT = "not kept"
    """The task reads its records itself, and its payloads are not stored."""
    GONE = "gone"
    """It is no longer in XCom, or is there in another form."""
    TOO_LARGE = "too large"
    """The XCom is too large to be read for a page, or the search takes too long."""
    NO_FILE = "no file"
    """Its file in the object storage is missing."""
    ELSEWHERE = "elsewhere"
    """It is in an XCom backend that can't be read from here."""


class FoundPayload(NamedTuple):
    """A payload's body, or why it is missing."""

    body: str | None
    missing: Missing | None


def find_payload(session: Session, key: TaskKey, message_id: str, xcom_keys: Sequence[str]) -> FoundPayload:
    """Return the body of a message from the XCom of the task that made it, or why it can't be shown.

    :param key: the deliver task.
    :param xcom_keys: the keys of XComs that can hold payloads, besides the keys of chunks.
    """
    if key.prefix:  # one task of a whole workflow
        return FoundPayload(None, Missing.NOT_KEPT)
    dag = dag_of(session, key)
    # If the DAG no longer has the task (for example, because its workflow has another mode), any task of the
    # run may have made the payload.
    made_by = None
    if dag is not None and dag.has_task(key.task_id):
        made_by = dag.get_task(key.task_id).upstream_task_ids
        if not made_by:
            return FoundPayload(None, Missing.NOT_KEPT)
    missing = Missing.GONE
    until = time.monotonic() + LONGEST_SEARCH
    for row, size in _candidates(session, key, message_id, xcom_keys, made_by):
        if size > LARGEST_XCOM:
            missing = Missing.TOO_LARGE
            continue
        if time.monotonic() > until:
            return FoundPayload(None, Missing.TOO_LARGE)
        found = _body_in(session.scalar(row), message_id)
        if isinstance(found, str):
            return FoundPayload(found, None)
        missing = found or missing
    return FoundPayload(None, missing)


def _candidates(
    session: Session,
    key: TaskKey,
    message_id: str,
    xcom_keys: Sequence[str],
    made_by: Collection[str] | None,
) -> Iterator[tuple[Select[Any], int]]:
    """Yield a query for each XCom that may hold the message, and the XCom's length in the database.

    :param made_by: the tasks that may have made the XCom; ``None`` for any task of the run.
    """
    text = cast(XComModel.value, Text)
    query = select(XComModel.task_id, XComModel.map_index, XComModel.key, func.length(text)).where(
        XComModel.dag_run_id == key.dag_run_id,
        XComModel.key.in_(xcom_keys) | XComModel.key.startswith(CHUNK_KEY, autoescape=True),
        text.contains(message_id, autoescape=True) | (func.length(text) < SHORT),
    )
    if made_by is not None:
        query = query.where(XComModel.task_id.in_(made_by))
    rows = session.execute(query).all()
    # The task's own chunk and map index come first. Several map indexes can hold the same message, and an
    # XCom in a file must be read to know what it holds.
    own_chunk = f"{CHUNK_KEY}{key.map_index}"
    rows = sorted(rows, key=lambda row: (row[2] != own_chunk, row[1] != key.map_index, row[1]))
    for task_id, map_index, xcom_key, size in rows[:MOST_XCOMS]:
        row = select(XComModel).where(
            XComModel.dag_run_id == key.dag_run_id,
            XComModel.task_id == task_id,
            XComModel.map_index == map_index,
            XComModel.key == xcom_key,
        )
        yield row, size


def _body_in(row: XComModel | None, message_id: str) -> str | Missing | None:
    """Return the message's body if the XCom holds it, or why the XCom can't be read."""
    if row is None:  # it was deleted in the meantime
        return None
    try:
        value = stored_value(row, LARGEST_XCOM)
    except XComTooLargeError:
        return Missing.TOO_LARGE
    except MissingXComFileError:
        return Missing.NO_FILE
    except Exception:  # a backend can raise any error; its text may hold an address
        return Missing.ELSEWHERE
    for payload in _payloads_in(value):
        if payload.get("message_id") == message_id and isinstance(body := payload.get("body"), str):
            return body
    return None


def _payloads_in(value: object) -> Iterator[dict[str, Any]]:
    """Yield the payloads of a list, or of nested lists."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from [item] if isinstance(item, dict) else _payloads_in(item)
