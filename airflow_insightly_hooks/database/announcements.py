"""Notify DAGs of changes: create an event on each asset whose events schedule DAGs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow._shared.timezones import timezone
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetDagRunQueue, AssetModel, DagScheduleAssetReference
from airflow.models.asset_state_store import AssetStateStoreModel
from sqlalchemy import select, update

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.incoming.announced import AnnouncedSpans
from airflow_insightly_hooks.hooks.assets import (
    ANNOUNCED,
    account_prefix,
    changed_type_in,
    changes_prefix,
    cursor_in,
    records_asset,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_insightly_hooks.core.detection.changes import ChangeWindow

__all__ = ["announce", "watched_record_types"]

WRITER = "api"
"""What Airflow's own pages show as the writer of a value."""


def announce(session: Session, insightly_conn_id: str, record_type: str, span: ChangeWindow) -> int:
    """Create an event on each asset of the changes, and store the announcement; return how many assets.

    :param session: a session of Airflow's database; the caller commits.
    :param insightly_conn_id: the connection of the account whose records were changed.
    :param span: the span of time in which the records were changed.
    """
    assets = _watched_assets(session, changes_prefix(insightly_conn_id, record_type))
    if not assets:
        return 0
    _note(session, insightly_conn_id, record_type, span)
    queued = _queue_of(session, assets)
    payload = {"since": iso_time(span.start), "until": iso_time(span.end)}
    for asset in assets:
        cursor = cursor_in(asset.name)
        of_one_dag = {} if cursor is None else {"cursor": cursor}
        extra = {"from_webhook": True, "payload": {**payload, **of_one_dag}}
        asset_manager.register_asset_change(asset=asset, extra=extra, session=session)
    _renew_queue(session, assets, queued)
    return len(assets)


def _queue_of(session: Session, assets: Sequence[AssetModel]) -> set[tuple[int, str]]:
    """Return the rows of the queue for these assets: the asset's id, and the DAG that will get a run."""
    columns = select(AssetDagRunQueue.asset_id, AssetDagRunQueue.target_dag_id)
    rows = session.execute(columns.where(AssetDagRunQueue.asset_id.in_([asset.id for asset in assets])))
    return {(asset_id, dag_id) for asset_id, dag_id in rows}


def _renew_queue(session: Session, assets: Sequence[AssetModel], queued: set[tuple[int, str]]) -> None:
    """Update the rows of the queue, so that the scheduler makes a run for each event that was just stored.

    A run gets the events up to the time of its row in the queue, but Airflow does not update a row that
    exists. So this function updates it. If a scheduler is making the run for an earlier event, it deletes the
    row at the end; the update waits for it, and the row is added again. This must be the last step: a
    scheduler skips rows that are locked.

    :param queued: the rows that were in the queue before the events.
    """
    of_assets = AssetDagRunQueue.asset_id.in_([asset.id for asset in assets])
    session.execute(update(AssetDagRunQueue).where(of_assets).values(created_at=timezone.utcnow()))
    for asset_id, dag_id in queued - _queue_of(session, assets):
        session.merge(AssetDagRunQueue(asset_id=asset_id, target_dag_id=dag_id))


def watched_record_types(session: Session, insightly_conn_id: str) -> set[str]:
    """Return the record types whose changes schedule DAGs.

    :param insightly_conn_id: the connection of the account that has the records.
    """
    assets = _watched_assets(session, account_prefix(insightly_conn_id))
    return {record_type for asset in assets if (record_type := changed_type_in(asset.name)) is not None}


def _watched_assets(session: Session, prefix: str) -> Sequence[AssetModel]:
    """Return the assets whose events schedule DAGs, by id: the same order everywhere avoids deadlocks."""
    is_scheduled_by = select(DagScheduleAssetReference.asset_id)
    found = session.scalars(
        select(AssetModel)
        .where(AssetModel.name.startswith(prefix, autoescape=True), AssetModel.id.in_(is_scheduled_by))
        .order_by(AssetModel.id)
    )
    return [asset for asset in found if asset.name.startswith(prefix)]  # LIKE may ignore case


def _note(session: Session, insightly_conn_id: str, record_type: str, span: ChangeWindow) -> None:
    """Store the announcement for the watcher (``triggers.watcher``), which may have to announce it again."""
    asset = records_asset(insightly_conn_id, record_type)
    asset_id = session.scalar(
        select(AssetModel.id)
        .where(AssetModel.name == asset.name, AssetModel.uri == asset.uri)
        .with_for_update(key_share=True)  # tasks may add keys to the state meanwhile
    )
    if asset_id is None:  # no sensor stores a cursor there
        return
    row = session.get(AssetStateStoreModel, (asset_id, ANNOUNCED))
    if row is None:
        row = AssetStateStoreModel(asset_id=asset_id, key=ANNOUNCED, value="null")
        session.add(row)
    known = AnnouncedSpans.of(json.loads(row.value)) or AnnouncedSpans.from_now_on(span)
    known.add(span)
    row.value, row.updated_at = json.dumps(known.as_value()), timezone.utcnow()
    row.last_updated_by_kind = WRITER
