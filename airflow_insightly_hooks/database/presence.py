"""Is Airflow's metadata database at hand?"""

from __future__ import annotations

from pathlib import Path

from airflow_insightly_hooks.core.errors import InsightlyHooksError, told

__all__ = ["NoDatabase", "check_database"]


class NoDatabase(InsightlyHooksError):
    """Airflow's metadata database isn't at hand; ``reason`` says why, without its address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no Airflow database is at hand: {self.reason}"


def check_database() -> None:
    """Raise ``NoDatabase`` unless Airflow's tables can be read with this machine's configuration.

    A file of SQLite that isn't there is not made.
    """
    from airflow.configuration import conf
    from sqlalchemy import select
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(conf.get("database", "sql_alchemy_conn"))
    except Exception as error:  # a command or a secrets backend may give it
        raise NoDatabase(f"its address can't be read ({told(error)})") from None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(url.database or "").is_file():
        raise NoDatabase("its file doesn't exist; it was never migrated on this machine")
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session

    try:
        with create_session() as session:
            session.execute(select(Job.id).limit(1))
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise NoDatabase(
            f"it can't be read ({type(error).__name__}): does it run, and was 'airflow db migrate' run?"
        ) from None
