"""A session of Airflow's metadata database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from tests.metadata_database import metadata_database


@pytest.fixture
def session() -> Iterator[Session]:
    with metadata_database() as sessions, sessions() as session:
        yield session
