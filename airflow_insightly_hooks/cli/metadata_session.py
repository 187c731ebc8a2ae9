"""A session of Airflow's metadata database, and its user, for the commands that need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.exceptions import AirflowConfigException
from airflow.utils.platform import getuser

from airflow_insightly_hooks.core.errors import InsightlyHooksError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

__all__ = ["DatabaseNotFound", "metadata_session", "user_name"]


class DatabaseNotFound(InsightlyHooksError):
    """Airflow's metadata database can't be read; ``reason`` says why, without its address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Airflow's database can't be read: {self.reason}. Run this command where Airflow's scheduler or "
            "API server runs, with the same configuration (AIRFLOW_HOME, [database] sql_alchemy_conn); "
            "'airflow db check' tests the connection, 'airflow db migrate' makes the tables"
        )


@contextmanager
def metadata_session() -> Iterator[Session]:
    """Yield a session, which is committed at the end, and rolled back if the block fails.

    :raises DatabaseNotFound: if there is no such database, or if it has no tables of Airflow 3.3.
    """
    from airflow import settings
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    if (file := _missing_file(settings.engine)) is not None:
        raise DatabaseNotFound(f"there is no file {file}")
    with create_session() as session:
        try:
            session.execute(select(AssetStateStoreModel.key).limit(1))
        except SQLAlchemyError as error:  # its text may hold the address, or a user's name
            raise DatabaseNotFound(type(error).__name__) from None
        yield session


def _missing_file(engine: Engine | None) -> str | None:
    """Return the file of an SQLite database that isn't there: to connect would make an empty one."""
    if engine is None or engine.url.get_backend_name() != "sqlite":
        return None
    file = engine.url.database
    return file if file and file != ":memory:" and not Path(file).exists() else None


def user_name() -> str:
    """Return the name of the user at the terminal, as Airflow's own commands record it."""
    try:
        return getuser()
    except AirflowConfigException:
        return "unknown"
