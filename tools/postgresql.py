"""A temporary PostgreSQL database, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import psycopg2  # type: ignore[import-untyped]

__all__ = ["NoServerError", "temporary_database"]

ADDRESS = "postgresql+psycopg2://postgres@127.0.0.1:5432"


class NoServerError(Exception):
    """No PostgreSQL answers. The text says at which address."""


@contextlib.contextmanager
def temporary_database(template: str | None = None, *, is_durable: bool = True) -> Iterator[str]:
    """Make a database, yield its SQLAlchemy address, and drop the database, even if it is still used.

    :param template: the address of a database to copy. It must not be in use.
    :param is_durable: whether a commit waits for the disk. This takes milliseconds, and a task has dozens of
        commits. Without it, data is lost only if PostgreSQL or the machine crashes, not if a client does.
    :raises NoServerError: if no PostgreSQL answers.
    """
    try:
        server = psycopg2.connect(host="127.0.0.1", port=5432, user="postgres", dbname="test")
    except psycopg2.OperationalError:
        raise NoServerError(
            "no PostgreSQL answers on 127.0.0.1:5432 for user postgres and database test"
        ) from None
    server.autocommit = True
    name = f"airflow_e2e_{uuid.uuid4().hex[:12]}"
    try:
        with server.cursor() as cursor:
            copied = f" TEMPLATE {template.rpartition('/')[2]}" if template is not None else ""
            cursor.execute(f"CREATE DATABASE {name}{copied}")
            if not is_durable:
                cursor.execute(f"ALTER DATABASE {name} SET synchronous_commit TO off")
        yield f"{ADDRESS}/{name}"
    finally:
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.close()
