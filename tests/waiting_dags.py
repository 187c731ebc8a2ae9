"""DAGs that are scheduled by changes of records, in Airflow's database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.models import DagModel
from airflow.models.asset import AssetActive, DagScheduleAssetReference, TaskInletAssetReference
from airflow.models.dagbundle import DagBundleModel
from airflow.sdk import Asset
from sqlalchemy.orm import Session

from airflow_insightly_hooks.hooks.assets import changes_asset_name, records_asset
from tests.metadata_database import BUNDLE, asset_of

__all__ = ["add_waiting_dag"]


def add_waiting_dag(
    session: Session,
    dag_id: str,
    *record_types: str,
    insightly_conn_id: str = "insightly_default",
    is_paused: bool = False,
    names: Sequence[str] = (),
    **how: Any,
) -> list[str]:
    """Add a DAG that keeps cursors of record types, and is scheduled by their changes.

    :param names: the names of assets to schedule it by, instead of the record types' assets.
    :param how: arguments of ``changes_asset_name``, which change the assets' names.
    :returns: the names of the assets that it is scheduled by.
    """
    if session.get(DagBundleModel, BUNDLE) is None:
        session.add(DagBundleModel(name=BUNDLE))
        session.flush()
    session.add(
        DagModel(
            dag_id=dag_id, bundle_name=BUNDLE, is_stale=False, is_paused=is_paused, fileloc=f"{dag_id}.py"
        )
    )
    session.flush()
    how = {"poll_interval": 15.0, "settle": 5.0, **how}
    changes = list(names) or [changes_asset_name(insightly_conn_id, kind, **how) for kind in record_types]
    for name in changes:
        asset_id = _active(session, Asset(name=name, uri=name.replace("/", "://", 1)))
        session.add(DagScheduleAssetReference(asset_id=asset_id, dag_id=dag_id))
    for kind in record_types:
        asset_id = _active(session, records_asset(insightly_conn_id, kind))
        session.add(TaskInletAssetReference(asset_id=asset_id, dag_id=dag_id, task_id="detect"))
    session.commit()
    return changes


def _active(session: Session, asset: Asset) -> int:
    """Return the id of an asset that is in use by a DAG."""
    asset_id = asset_of(session, asset)
    session.merge(AssetActive(name=asset.name, uri=asset.uri))
    session.flush()
    return asset_id
