"""Airflow's metadata database in memory: all tables, a test's DAGs, and the state of tasks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from airflow import settings
from airflow.models import DagModel, import_all_models
from airflow.models.asset import AssetModel, TaskInletAssetReference
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.base import Base
from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG, Asset
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

BUNDLE = "dags-folder"


@contextmanager
def metadata_database(*, with_tables: bool = True) -> Iterator[Callable[[], Session]]:
    """Have Airflow use a new database, and yield a factory for its sessions."""
    import_all_models()
    with _new_database(with_tables) as engine, pytest.MonkeyPatch.context() as patch:
        sessions = sessionmaker(engine, expire_on_commit=False)
        patch.setattr(settings, "engine", engine)
        patch.setattr(settings, "Session", scoped_session(sessions))
        patch.setattr(settings, "NonScopedSession", sessions)
        yield sessions


_unused: list[Engine] = []


@contextmanager
def _new_database(with_tables: bool) -> Iterator[Engine]:
    """Yield an engine of a new database. Engines are reused, since each compiles its statements anew."""
    engine = _unused.pop() if _unused else _in_memory()
    connection = _connection(engine)
    connection.rollback()
    _connection(_to_copy(with_tables)).backup(connection)
    try:
        yield engine
    finally:
        _unused.append(engine)


_filled: dict[Callable[[Session], object], Engine] = {}


def fill(session: Session, add: Callable[[Session], object]) -> None:
    """Fill a new database with a function. It is called once in a process, and its result is copied."""
    connection = _connection(session.get_bind())
    if add in _filled:
        _connection(_filled[add]).backup(connection)
        return
    add(session)
    session.commit()
    session.expunge_all()
    _filled[add] = _in_memory()
    connection.backup(_connection(_filled[add]))


@cache
def _to_copy(with_tables: bool) -> Engine:
    """Return a database to copy, since making the tables takes a tenth of a second."""
    engine = _in_memory()
    if with_tables:
        Base.metadata.create_all(engine)
    return engine


def _in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


def _connection(engine: Engine | Connection) -> sqlite3.Connection:
    connection = engine.engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


class AssetState:
    """An asset's state in a database, as a task writes it."""

    def __init__(self, session: Session, asset_id: int, dag_id: str | None = None) -> None:
        self._session, self._asset_id, self._dag_id = session, asset_id, dag_id

    def get(self, key: str, default: Any = None) -> Any:
        row = self._session.get(AssetStateStoreModel, (self._asset_id, key))
        return default if row is None else json.loads(row.value)

    def set(self, key: str, value: Any) -> None:
        row = AssetStateStoreModel(
            asset_id=self._asset_id,
            key=key,
            value=json.dumps(value),
            last_updated_by_dag_id=self._dag_id,
        )
        self._session.merge(row)
        self._session.commit()

    def delete(self, key: str) -> None:
        row = self._session.get(AssetStateStoreModel, (self._asset_id, key))
        if row is not None:
            self._session.delete(row)
            self._session.commit()


def add_dag(session: Session, dag: DAG, *, is_paused: bool = False) -> None:
    """Have Airflow know a DAG, as its DAG processor would."""
    if session.get(DagBundleModel, BUNDLE) is None:
        session.add(DagBundleModel(name=BUNDLE))
        session.flush()
    session.add(
        DagModel(
            dag_id=dag.dag_id, bundle_name=BUNDLE, is_stale=False, is_paused=is_paused, fileloc="dags.py"
        )
    )
    session.flush()
    SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name=BUNDLE, session=session)
    for task in dag.tasks:
        for inlet in task.inlets:
            asset_id = asset_of(session, inlet)
            session.add(TaskInletAssetReference(asset_id=asset_id, dag_id=dag.dag_id, task_id=task.task_id))
    session.commit()


def add_again(session: Session, dag: DAG) -> None:
    """Have Airflow store a known DAG again after a change."""
    SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name=BUNDLE, session=session)
    session.commit()


def asset_of(session: Session, asset: Asset) -> int:
    """Return the id of an asset, which is added if it is missing."""
    found = session.scalar(select(AssetModel.id).where(AssetModel.name == asset.name))
    if found is not None:
        return found
    model = AssetModel(name=asset.name, uri=asset.uri, group="asset")
    session.add(model)
    session.flush()
    return model.id
