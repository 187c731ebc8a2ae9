"""The database after changes were announced."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

from airflow.models.asset import AssetDagRunQueue, AssetEvent, AssetModel, DagScheduleAssetReference
from airflow.models.asset_state_store import AssetStateStoreModel
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from airflow_insightly_hooks.core.detection.changes import ChangeWindow
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans
from airflow_insightly_hooks.database.announcements import announce
from airflow_insightly_hooks.hooks.assets import ANNOUNCED, records_asset
from tests.waiting_dags import add_waiting_dag

START = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


def span(second: int) -> ChangeWindow:
    start = START + timedelta(seconds=second)
    return ChangeWindow(start, start + timedelta(seconds=2))


def noted(session: Session, insightly_conn_id: str = "crm") -> AssetStateStoreModel | None:
    return session.scalar(
        select(AssetStateStoreModel)
        .join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        .where(
            AssetModel.name == records_asset(insightly_conn_id, "Contacts").name,
            AssetStateStoreModel.key == ANNOUNCED,
        )
    )


def test_noted(session: Session) -> None:
    """The state of the records' asset has the announced seconds and their writer."""
    add_waiting_dag(session, "flow", "Contacts", insightly_conn_id="crm", cursor="flow/detect")
    for second in (0, 1, 10):
        assert announce(session, "crm", "Contacts", span(second)) == 1
        session.commit()
    row = noted(session)
    assert row is not None
    seconds = int(START.timestamp())
    assert json.loads(row.value) == {"since": seconds, "spans": [[seconds, 3], [seconds + 10, 2]]}
    assert row.last_updated_by_kind == "api"
    assert row.updated_at is not None
    assert len(list(session.scalars(select(AssetEvent)))) == 3


def test_foreign_value(session: Session) -> None:
    """A value from another writer is replaced."""
    add_waiting_dag(session, "flow", "Contacts", insightly_conn_id="crm")
    announce(session, "crm", "Contacts", span(0))
    row = noted(session)
    assert row is not None
    row.value = '"something else"'
    session.commit()
    announce(session, "crm", "Contacts", span(10))
    known = AnnouncedSpans.of(json.loads(row.value))
    assert known is not None
    assert known.since == span(10).start
    assert span(0).start not in known


def test_nobody_waits(session: Session) -> None:
    """Without a DAG that is scheduled by changes, no event and no note is stored."""
    add_waiting_dag(
        session, "flow", "Contacts", names=["insightly/crm/Leads/changes/15s/5s"], insightly_conn_id="crm"
    )
    assert announce(session, "crm", "Contacts", span(0)) == 0
    session.commit()
    assert noted(session) is None
    assert list(session.scalars(select(AssetEvent))) == []


def test_an_asset_that_no_dag_is_scheduled_by(session: Session) -> None:
    """Airflow keeps the asset of a DAG whose schedule was changed. It wakes no DAG."""
    add_waiting_dag(session, "flow", "Contacts", insightly_conn_id="crm")
    session.execute(delete(DagScheduleAssetReference))
    assert announce(session, "crm", "Contacts", span(0)) == 0
    assert list(session.scalars(select(AssetEvent))) == []


def test_no_cursor_is_kept(session: Session) -> None:
    """A DAG without a cursor gets the event, but no note, since there is no cursor to note it at."""
    add_waiting_dag(session, "flow", names=["insightly/crm/Contacts/changes/15s/5s"])
    assert announce(session, "crm", "Contacts", span(0)) == 1
    session.commit()
    assert list(session.scalars(select(AssetStateStoreModel))) == []


def test_rolled_back(session: Session) -> None:
    """Events and notes are written in one transaction."""
    add_waiting_dag(session, "flow", "Contacts", insightly_conn_id="crm")
    announce(session, "crm", "Contacts", span(0))
    session.rollback()
    assert noted(session) is None
    assert list(session.scalars(select(AssetEvent))) == []


def test_an_event_that_waits_for_its_run_takes_later_ones_along(session: Session) -> None:
    """A run gets the events up to the time of the queue's row, so that time is moved to the last event."""
    add_waiting_dag(session, "flow", "Contacts", insightly_conn_id="crm", cursor="flow/detect")
    add_waiting_dag(session, "other", "Contacts", cursor="other/detect")
    announce(session, "insightly_default", "Contacts", span(0))
    session.commit()
    (of_others,) = session.scalars(select(AssetDagRunQueue.created_at))
    for second in (0, 5):
        announce(session, "crm", "Contacts", span(second))
        session.commit()
    rows = {row.target_dag_id: row.created_at for row in session.scalars(select(AssetDagRunQueue))}
    events = list(session.scalars(select(AssetEvent.timestamp)))
    assert len(events) == 3
    assert rows["flow"] >= max(events)
    assert rows["other"] == of_others
