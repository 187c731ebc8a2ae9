"""What a detect task logs about many changes: only what matters, and never their contents."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
from airflow.sdk.bases.xcom import BaseXCom

from airflow_insightly_hooks.core.detection.changes import ChangeWindow, RecordChange
from airflow_insightly_hooks.runs import large_xcoms
from airflow_insightly_hooks.runs.large_xcoms import changes_for_xcom
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from tests.conftest import Logged, run_context

LOG = logging.getLogger("test")
CANARY = "canary-of-a-record"
START = datetime(2024, 5, 1, tzinfo=timezone.utc)
WINDOW = ChangeWindow(START, START + timedelta(hours=1))
THRESHOLD = "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD"
WARNING = "goes through Airflow's database"


class OwnXCom(BaseXCom):
    """A user's own XCom backend."""


def changes(count: int, size: int = 100) -> list[RecordChange]:
    return [
        {
            "record_type": "Contacts",
            "record_id": number,
            "event": "added",
            "changed_at": "2024-05-01T00:30:00Z",
            "record": {"CONTACT_ID": number, "BACKGROUND": CANARY.ljust(size, "x")},
        }
        for number in range(count)
    ]


def warnings_of(
    caplog: pytest.LogCaptureFixture,
    found: list[RecordChange],
    run_type: str = "manual",
    window: ChangeWindow = WINDOW,
) -> list[str]:
    """Return what is logged about changes. No log line shows their contents."""
    caplog.clear()
    context: Any = {"dag_run": SimpleNamespace(run_type=run_type)}
    assert changes_for_xcom(context, LOG, found, window) == found
    texts = [record.getMessage() for record in caplog.records]
    assert CANARY not in "".join(texts)
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return texts


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the class of the XCom backend."""
    return lambda chosen: monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", chosen)


def test_a_large_xcom_in_the_database(caplog: pytest.LogCaptureFixture) -> None:
    """The warning has the size, and names both solutions: an object storage, and a workflow in one task."""
    (text,) = warnings_of(caplog, changes(100, 60_000))
    assert text.startswith("An XCom of 100 changes, 6.0 MB, goes through Airflow's database")
    for way in (
        "[core] xcom_backend = airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "[common.io] xcom_objectstorage_path and xcom_objectstorage_threshold",
        "mode: one_task",
        "InsightlyWorkflowOperator",
    ):
        assert way in text


def test_it_is_the_bytes_that_count(caplog: pytest.LogCaptureFixture) -> None:
    """A few huge records make a large window, and many small ones don't. The limit is exact."""
    assert warnings_of(caplog, changes(3_000)) == []
    assert len(warnings_of(caplog, changes(2, 3_000_000))) == 1
    found = changes(10)
    size = len(json.dumps(found))  # two more or less than the counted size: the brackets and commas
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_xcoms, "LARGEST_IN_DATABASE", size)
        assert warnings_of(caplog, found) == []
        patch.setattr(large_xcoms, "LARGEST_IN_DATABASE", size - 1)
        assert len(warnings_of(caplog, found)) == 1


@pytest.mark.parametrize(
    ("threshold", "is_warned_of"),
    [("0", False), ("65536", False), ("5900000", False), ("7000000", True), ("-1", True), (None, True)],
)
def test_object_storage_takes_what_reaches_its_threshold(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    backend: Any,
    threshold: str | None,
    is_warned_of: bool,
) -> None:
    """By default it stores nothing. Then the warning names the threshold."""
    backend(XComObjectStorageBackend)
    monkeypatch.delenv(THRESHOLD, raising=False)
    if threshold is not None:
        monkeypatch.setenv(THRESHOLD, threshold)
    texts = warnings_of(caplog, changes(100, 60_000))
    assert [f"xcom_objectstorage_threshold = {threshold or -1} keeps" in text for text in texts] == (
        [True] if is_warned_of else []
    )


def test_a_backend_of_ones_own_is_not_the_database(caplog: pytest.LogCaptureFixture, backend: Any) -> None:
    backend(OwnXCom)
    assert warnings_of(caplog, changes(100, 60_000)) == []


@pytest.mark.parametrize("chosen", [BaseXCom, XComObjectStorageBackend, OwnXCom])
def test_a_large_backfill(caplog: pytest.LogCaptureFixture, backend: Any, chosen: Any) -> None:
    """Wherever XComs go, the log advises a backfill with many changes to use a workflow in one task."""
    backend(chosen)
    many, few = changes(5_001), changes(5_000)
    (text,) = warnings_of(caplog, many, "backfill")
    assert text.startswith("5,001 changes in a run of a backfill: one task would deliver them batch by batch")
    assert "mode: one_task" in text
    assert warnings_of(caplog, few, "backfill") == []
    (text,) = warnings_of(caplog, many, "scheduled")
    assert "in a run that catches up" in text
    for run_type in ("manual", "asset_triggered"):
        assert warnings_of(caplog, many, run_type) == []


def test_a_run_that_is_due_now_does_not_catch_up(caplog: pytest.LogCaptureFixture) -> None:
    """Its window has just ended, so no later window is over."""
    now = datetime.now(timezone.utc)
    for behind, is_logged in ((timedelta(minutes=59), False), (timedelta(minutes=61), True)):
        window = ChangeWindow(now - behind - timedelta(hours=1), now - behind)
        assert bool(warnings_of(caplog, changes(5_001), "scheduled", window)) is is_logged


def test_the_detect_task_warns(
    insightly: RunningSandbox, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor measures what it returns, since that goes into XCom."""
    for number in range(3):
        insightly.create(
            "Contacts",
            FIRST_NAME=CANARY,
            LAST_NAME=str(number),
            DATE_CREATED_UTC="2024-05-01 00:30:00",
            DATE_UPDATED_UTC="2024-05-01 00:30:00",
        )
    monkeypatch.setattr(large_xcoms, "LARGEST_IN_DATABASE", 1_000)
    sensor = InsightlyRecordChangeSensor(
        task_id="task", record_type="Contacts", window=WINDOW.as_dict(), retries=0
    )
    found = sensor.execute(run_context())
    size = len(json.dumps(found)) / 1e6
    assert f"An XCom of 3 changes, {size:.1f} MB, {WARNING}" in logged.text
    assert CANARY not in logged.text
