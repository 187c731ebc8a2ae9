"""Fills the metadata database that the environment names: two connections, and DAGs that wait for changes.

``python -m tests.incoming.e2e.seed``
"""

from __future__ import annotations

import json

from airflow.models import Connection
from airflow.utils.session import create_session

from tests.incoming.asgi import LOGIN, PASSWORD
from tests.waiting_dags import add_waiting_dag

__all__ = ["LIMITED"]

LIMITED = 20
"""Requests a minute that the connection ``limited`` allows."""


def main() -> None:
    with create_session() as session:
        for conn_id, limit in (("crm", 0), ("limited", LIMITED)):
            extra = json.dumps({"requests_per_minute": limit, "max_body_bytes": 200_000})
            session.add(
                Connection(conn_id, "insightly_incoming", login=LOGIN, password=PASSWORD, extra=extra)
            )
        session.add(Connection("other", "http", host="127.0.0.1", login=LOGIN, password=PASSWORD))
        add_waiting_dag(session, "own", "Contacts", cursor="own/detect")
        add_waiting_dag(session, "push", "Contacts", poll_interval=900.0, push=True)


if __name__ == "__main__":
    main()
