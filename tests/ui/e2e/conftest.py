"""Real API servers with pages to look at, and a browser to look at them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser
from postgresql import NoServerError

from tests.browser import Visit, chromium
from tests.ui.e2e.airflow_server import (
    AirflowServer,
    fab_server,
    prefixed_server,
    seeded_database,
    simple_server,
)
from tests.ui.seed import Seed

VisitAs = Callable[..., Visit]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Seed]]:
    """Return the address of the database that those of the servers are copies of, and what is in it."""
    try:
        with seeded_database(tmp_path_factory.mktemp("airflow-seed")) as made:
            yield made
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def airflow(template: tuple[str, Seed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """Return an Airflow with the simple auth manager."""
    with simple_server(tmp_path_factory.mktemp("airflow-simple"), *template) as server:
        yield server


@pytest.fixture(scope="session")
def fab_airflow(
    template: tuple[str, Seed], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowServer]:
    """Return an Airflow with FAB's auth manager."""
    with fab_server(tmp_path_factory.mktemp("airflow-fab"), *template) as server:
        yield server


@pytest.fixture(scope="session")
def prefixed_airflow(
    template: tuple[str, Seed], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowServer]:
    """Return an Airflow below a path, behind a reverse proxy."""
    with prefixed_server(tmp_path_factory.mktemp("airflow-prefixed"), *template) as server:
        yield server


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[VisitAs]:
    """Make a person's visit to an Airflow; what goes wrong during it fails the test.

    ``visit(airflow, "viewer", scheme="dark").open("/insightly/")`` returns Playwright's page.
    """
    visits: list[Visit] = []

    def begin(server: AirflowServer, user: str | None, **options: Any) -> Visit:
        token = server.token(user) if user is not None else None
        visits.append(Visit(browser, server.base_url, token, **options))
        return visits[-1]

    yield begin
    for one in visits:
        one.close()
    for one in visits:
        one.check()
