"""Writes and reads runs, and the state of tasks and assets, of Airflow's database as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.models.asset import AssetModel
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from airflow_insightly_hooks.database.deliveries import DeliveryFilter, search_deliveries
from airflow_insightly_hooks.database.resend import resend

__all__ = ["asset_state", "clear", "load", "send_again", "stored"]

RUN = ("run_id", "run_type", "triggered_by", "state", "conf")
TIMES = ("logical_date", "data_interval_start", "data_interval_end", "run_after", "start_date", "end_date")
TASK = ("task_id", "map_index", "state", "try_number", "max_tries")


def stored() -> dict[str, Any]:
    """Return all runs of the database with their tasks, XComs and state, and the state of all assets."""
    with create_session() as session:
        runs = []
        for run in session.scalars(select(DagRun).order_by(DagRun.id)):
            item = {"dag_id": run.dag_id, **{name: _plain(getattr(run, name)) for name in (*RUN, *TIMES)}}
            item["tasks"] = [
                {
                    **{name: _plain(getattr(task, name)) for name in TASK},
                    "xcoms": {x.key: x.value for x in session.scalars(_of(XComModel, run, task))},
                    "state_store": {
                        row.key: json.loads(row.value)
                        for row in session.scalars(_of(TaskStateStoreModel, run, task))
                    },
                }
                for task in sorted(run.get_task_instances(session=session), key=lambda t: t.task_id)
            ]
            runs.append(item)
        assets: dict[str, dict[str, Any]] = {}
        rows = select(AssetModel.name, AssetStateStoreModel).join(
            AssetModel, AssetModel.id == AssetStateStoreModel.asset_id
        )
        for name, row in session.execute(rows):
            assets.setdefault(name, {})[row.key] = json.loads(row.value)
        return {"runs": runs, "assets": assets}


def load(found: Mapping[str, Any], dags: Mapping[str, Any]) -> None:
    """Put the result of ``stored`` into the database.

    :param dags: the scheduler's DAGs by their ids, which are already in the database.
    """
    with create_session() as session:
        for item in found["runs"]:
            times = {name: item[name] and datetime.fromisoformat(item[name]) for name in TIMES}
            run = dags[item["dag_id"]].create_dagrun(
                run_id=item["run_id"],
                run_type=DagRunType(item["run_type"]),
                triggered_by=DagRunTriggeredByType(item["triggered_by"]),
                state=DagRunState(item["state"]),
                conf=item["conf"],
                logical_date=times["logical_date"],
                data_interval=times["data_interval_start"]
                and (times["data_interval_start"], times["data_interval_end"]),
                run_after=times["run_after"],
                start_date=times["start_date"],
                session=session,
            )
            run.end_date = times["end_date"]
            session.flush()
            tasks = {(t.task_id, t.map_index): t for t in run.get_task_instances(session=session)}
            for kept in item["tasks"]:
                task = tasks[kept["task_id"], kept["map_index"]]
                for name in ("state", "try_number", "max_tries"):
                    setattr(task, name, kept[name])
                where = {name: getattr(task, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
                for key, value in kept["xcoms"].items():
                    XComModel.set(key, value, **where, serialize=False, session=session)
                for key, value in kept["state_store"].items():
                    session.add(
                        TaskStateStoreModel(**where, dag_run_id=run.id, key=key, value=json.dumps(value))
                    )
        for name, values in found["assets"].items():
            asset = session.scalars(select(AssetModel).where(AssetModel.name == name)).one()
            for key, value in values.items():
                session.add(AssetStateStoreModel(asset_id=asset.id, key=key, value=json.dumps(value)))


def asset_state(name: str) -> dict[str, Any]:
    """Return the state of an asset, by key."""
    with create_session() as session:
        rows = select(AssetStateStoreModel).join(AssetModel, AssetModel.id == AssetStateStoreModel.asset_id)
        return {
            row.key: json.loads(row.value) for row in session.scalars(rows.where(AssetModel.name == name))
        }


def clear(dag_id: str, task_id: str) -> str:
    """Clear a task of a DAG's first run, as a user does. Return the run's id."""
    with create_session() as session:
        task = session.scalars(
            select(TaskInstance)
            .join(DagRun, DagRun.run_id == TaskInstance.run_id)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.task_id == task_id)
            .order_by(DagRun.id)
        ).first()
        assert task is not None
        clear_task_instances([task], session)
        return str(task.run_id)


def send_again(dag_id: str) -> None:
    """Ask for all messages of a DAG to be sent again, as the pages and the command line do."""
    with create_session() as session:
        found = search_deliveries(session, DeliveryFilter(dag_ids=[dag_id])).rows
        asked = list(resend(session, found, by="ada", what="all"))
    assert [item.outcome for item in asked] == ["cleared"]


def _of(model: Any, run: DagRun, task: TaskInstance) -> Any:
    return select(model).where(
        model.dag_run_id == run.id, model.task_id == task.task_id, model.map_index == task.map_index
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value.value) if hasattr(value, "value") else value
