"""Find the connections in Airflow's database."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["stored_connections"]


def stored_connections(conn_types: Iterable[str]) -> dict[str, str]:
    """Return the connections that have one of these types: the type by the connection's id.

    :raises DatabaseNotFound: if the database can't be read.
    """
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_insightly_hooks.database.presence import check_database

    check_database()
    query = select(Connection.conn_id, Connection.conn_type).where(Connection.conn_type.in_(list(conn_types)))
    with create_session() as session:
        return {row.conn_id: row.conn_type for row in session.execute(query)}
