"""Secrets must be nowhere. These tests run after all others (see ``pytest_collection_modifyitems``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import sqlalchemy
from airflow.models.xcom import XComModel

from tests.e2e.conftest import API_KEY, CANARY, PASSWORD, SIGNING_SECRET, USERNAME, WRONG_KEY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.on_sqlite, pytest.mark.timeout(900)]

BASIC = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
KEY_BASIC = base64.b64encode(f"{API_KEY}:".encode()).decode()
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), BASIC, API_KEY, KEY_BASIC, WRONG_KEY, SIGNING_SECRET)


def rows(database: str) -> Iterator[tuple[str, str]]:
    """Yield every row of a database as text, with its table."""
    engine = sqlalchemy.create_engine(database)
    try:
        with engine.connect() as connection:
            for table in sqlalchemy.inspect(engine).get_table_names():
                for row in connection.execute(sqlalchemy.text(f'SELECT * FROM "{table}"')):  # noqa: S608 — names from the database itself
                    yield table, _text(row)
    finally:
        engine.dispose()


def _text(row: sqlalchemy.Row) -> str:
    values = (
        v.decode(errors="replace") if isinstance(v, bytes | memoryview) else str(v) for v in map(_plain, row)
    )
    return "\n".join(values)


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


def test_no_secret_is_in_the_metadata_database(stack: Stack) -> None:
    """Password, key and Authorization header are in no table: XCom, rendered fields, DAGs, logs."""
    seen: dict[str, int] = {}
    for table, text in rows(stack.database):
        seen[table] = seen.get(table, 0) + 1
        for secret in SECRETS:
            assert secret not in text, f"table {table}"
    assert seen["xcom"] > 20
    assert seen["rendered_task_instance_fields"] > 20


def test_record_contents_are_in_xcom_and_in_no_other_table(stack: Stack) -> None:
    """A record's contents are in XCom, where tasks need them, and in no other table."""
    tables = {table for table, text in rows(stack.database) if CANARY in text}
    assert tables == {"xcom"}


def test_no_secret_and_no_record_is_in_any_log(stack: Stack) -> None:
    """The logs of tasks and components hold neither secrets nor record contents."""
    logs = [path for path in stack.airflow.home.rglob("*.log") if path.name != "sandbox.log"]
    task_logs = [path for path in logs if "dag_id=" in str(path)]
    assert len(task_logs) > 20
    for path in logs:
        text = path.read_text(errors="replace")
        for secret in (*SECRETS, CANARY):
            assert secret not in text, path


def test_one_records_contents_can_be_erased(stack: Stack) -> None:
    """docs/how-to/personal-data.md: XComs are found by the record's id, and deleted with Airflow's API."""
    record = next(
        change["record_id"]
        for *_, value in xcoms(stack, CANARY)
        if isinstance(found := json.loads(value), list)
        for change in found
        if "record" in change
    )
    entries = list(xcoms(stack, CANARY, str(record)))
    assert entries
    for dag_id, run_id, task_id, map_index, key, _ in entries:
        run = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"
        stack.airflow.api(f"{run}/xcomEntries/{key}?map_index={map_index}", "DELETE")
    assert list(xcoms(stack, CANARY, str(record))) == []


def xcoms(stack: Stack, *texts: str) -> Iterator[tuple[str, str, str, int, str, str]]:
    """Yield DAG, run, task, map index, key and text of each XCom that holds all of the texts."""
    value = sqlalchemy.cast(XComModel.value, sqlalchemy.Text)
    of = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index, XComModel.key)
    query = sqlalchemy.select(*of, value).where(*(value.contains(text) for text in texts))
    engine = sqlalchemy.create_engine(stack.database)
    try:
        with engine.connect() as connection:
            yield from (tuple(row) for row in connection.execute(query).all())
    finally:
        engine.dispose()
