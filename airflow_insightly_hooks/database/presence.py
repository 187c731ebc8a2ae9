"""Check that Airflow's metadata database can be read, and open sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_insightly_hooks.core.errors import InsightlyHooksError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["DatabaseNotFound", "begin_snapshot", "check_database", "metadata_session"]


class DatabaseNotFound(InsightlyHooksError):
    """Airflow's metadata database can't be read.

    Cause: Raised when a command or a check needs the database, and this machine's configuration has no
    address for it, its file is missing, the connection fails, or its tables are missing or too old.

    Remedy: Run the command where Airflow's scheduler or API server runs, with the same configuration.
    ``airflow db check`` tests the connection; ``airflow db migrate`` creates the tables.

    :param reason: what is wrong, without the database's address.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Airflow's database can't be read: {self.reason}. Run this command where Airflow's scheduler or "
            "API server runs, with the same configuration (AIRFLOW_HOME, [database] sql_alchemy_conn); "
            "'airflow db check' tests the connection, 'airflow db migrate' creates the tables"
        )


def check_database() -> None:
    """Check that the tables of Airflow 3.3 can be read with this machine's configuration.

    If the file of an SQLite database is missing, it is not created.

    :raises DatabaseNotFound: if the tables can't be read.
    """
    from airflow import settings
    from airflow.models.asset_state_store import AssetStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    engine = settings.engine
    if engine is None:
        raise DatabaseNotFound("its address is not configured")
    file = engine.url.database if engine.url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not Path(file).is_file():
        raise DatabaseNotFound(f"there is no file {file}")
    try:
        with create_session() as session:
            session.execute(select(AssetStateStoreModel.key).limit(1))
    except (SQLAlchemyError, OSError, ImportError) as error:  # its text may hold the address or a user name
        raise DatabaseNotFound(type(error).__name__) from None


@contextmanager
def metadata_session(*, is_snapshot: bool = False) -> Iterator[Session]:
    """Yield a session, which is committed at the end, or rolled back if the block fails.

    :param is_snapshot: whether all reads in the session see the database at one moment.
    :raises DatabaseNotFound: if the database can't be read.
    """
    from airflow.utils.session import create_session

    check_database()
    with create_session() as session:
        if is_snapshot:
            begin_snapshot(session)
        yield session


def begin_snapshot(session: Session) -> None:
    """Begin a transaction whose reads all see the database at one moment; earlier changes are rolled back."""
    session.rollback()
    if session.get_bind().dialect.name == "postgresql":  # other databases do this by default
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
