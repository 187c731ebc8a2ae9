"""A running API server that takes webhooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgresql import NoServerError

from tests.incoming.e2e.endpoint import Endpoint, endpoint, seeded_database


@pytest.fixture(scope="session")
def incoming_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the database that those of the servers are copies of."""
    try:
        with seeded_database(tmp_path_factory.mktemp("incoming-seed")) as address:
            yield address
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def server(incoming_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Return a server of one process."""
    with endpoint(tmp_path_factory.mktemp("incoming"), incoming_template) as running:
        yield running
