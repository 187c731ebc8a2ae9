"""Is Airflow's metadata database at hand? And a session of it."""

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
    """Airflow's metadata database isn't at hand; ``reason`` says why, without its address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Airflow's database can't be read: {self.reason}. Run this command where Airflow's scheduler or "
            "API server runs, with the same configuration (AIRFLOW_HOME, [database] sql_alchemy_conn); "
            "'airflow db check' tests the connection, 'airflow db migrate' makes the tables"
        )


def check_database() -> None:
    """Check that the tables of Airflow 3.3 can be read with this machine's configuration.

    A file of SQLite that isn't there is not made.

    :raises DatabaseNotFound: if they can't.
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
    except (SQLAlchemyError, OSError, ImportError) as error:  # its text may hold the address, or a name
        raise DatabaseNotFound(type(error).__name__) from None


@contextmanager
def metadata_session(*, is_snapshot: bool = False) -> Iterator[Session]:
    """Yield a session, which is committed at the end, and rolled back if the block fails.

    :param is_snapshot: whether all that is read in it is of one moment.
    :raises DatabaseNotFound: if the database isn't at hand.
    """
    from airflow.utils.session import create_session

    check_database()
    with create_session() as session:
        if is_snapshot:
            begin_snapshot(session)
        yield session


def begin_snapshot(session: Session) -> None:
    """Have all that a session reads from now on be of one moment; what it has changed is rolled back."""
    session.rollback()
    if session.get_bind().dialect.name == "postgresql":  # others do so by themselves
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
