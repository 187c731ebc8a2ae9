"""A separate Airflow for tests. Its database is in a temporary folder, and is used as long as a test runs.

Airflow reads its settings when it is imported, and a test's module has often imported it already. So the
settings that determine the database are replaced while a test runs, and restored afterwards. Airflow reads
other options of its configuration from the environment each time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_insightly_hooks.hooks.process_registry import clear_process_registries

__all__ = ["BUNDLE", "new_database", "own_airflow"]

BUNDLE = "tests"
"""The name of the DAG bundle for the tests' DAGs."""
DATABASE = "airflow.db"
SETTINGS = (
    *("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC", "DAGS_FOLDER", "PLUGINS_FOLDER"),
    *("engine", "Session", "NonScopedSession", "async_engine", "AsyncSession"),
)
"""The names in ``airflow.settings`` that concern the database and folders."""


def new_database(folder: Path) -> Path:
    """Make an Airflow database without DAGs in ``folder``, as a template for tests, and return its file."""
    with own_airflow(folder, None) as database:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.utils.db import initdb

        with _no_warnings():  # providers make tables, too
            initdb()
        DagBundlesManager().sync_bundles_to_db()
    return database


@contextmanager
def own_airflow(folder: Path, template: Path | None) -> Iterator[Path]:
    """Make this process's Airflow use a database in ``folder``.

    :param folder: an empty folder.
    :param template: the database to copy; ``None`` begins without a database.
    :returns: the database's file.
    """
    database = folder / DATABASE
    dags = folder / "dags"
    dags.mkdir()
    if template is not None:
        shutil.copyfile(template, database)
    with _environment(_variables(folder, database, dags)), _no_warnings():
        from airflow import settings

        before = {name: getattr(settings, name) for name in SETTINGS}
        settings.configure_vars()
        settings.configure_orm()
        _load_api_server()
    try:
        with _environment(_variables(folder, database, dags)), _xcoms_in_database():
            yield database
    finally:
        clear_process_registries()
        if settings.Session is not None:
            settings.Session.remove()
        if settings.engine is not None:
            settings.engine.dispose()
        if settings.async_engine is not None:
            settings.async_engine.sync_engine.dispose()
        for name, value in before.items():
            setattr(settings, name, value)


def _variables(folder: Path, database: Path, dags: Path) -> dict[str, str]:
    bundle = {
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(dags)},
    }
    variables = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"sqlite+aiosqlite:///{database}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        # Airflow asks a secrets backend before the environment, and it may have a connection to the real CRM.
        "AIRFLOW__SECRETS__BACKEND": "",
        "AIRFLOW__WORKERS__SECRETS_BACKEND": "",
        # Another XCom backend may use the object storage of the user's own Airflow.
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.sdk.bases.xcom.BaseXCom",
    }
    if "airflow" not in sys.modules:  # importing Airflow reads and makes files in this folder
        variables["AIRFLOW_HOME"] = str(folder)
    return variables


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _xcoms_in_database() -> Iterator[None]:
    """Make tasks keep XComs in the database. Airflow read the setting when it was imported."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import task_runner, xcom

    before = xcom.XCom
    modules: tuple[Any, ...] = (xcom, task_runner)
    for module in modules:
        module.XCom = BaseXCom
    try:
        yield
    finally:
        for module in modules:
            module.XCom = before


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Ignore warnings of Airflow's own modules while they are loaded. They don't concern the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load_api_server() -> None:
    """Start the API server for tasks, in this process and without a port."""
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    _ = in_process_api_server().transport
