"""The pages in a browser: by themselves, within Airflow, behind a reverse proxy."""

from __future__ import annotations

import pytest

from tests.browser import check_accessibility, screenshots
from tests.ui.e2e.airflow_server import AirflowServer
from tests.ui.e2e.conftest import VisitAs
from tests.ui.e2e.routes import PAGES, address_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NAV = "/plugin/insightly-webhooks"
"""Where Airflow shows the pages."""


@pytest.mark.parametrize("path", PAGES)
def test_a_page(airflow: AirflowServer, visit: VisitAs, path: str) -> None:
    """Nothing fails and nobody is shut out, wide and narrow, light and dark; no page is wider than it may."""
    page = visit(airflow, "admin").open(address_of(path, airflow.seed))
    assert page.locator("h1").count() == 1
    for picture in screenshots(page, path.strip("/").replace("/", "-") or "overview"):
        check_accessibility(page)
        width = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, f"{picture.name} scrolls sideways"


@pytest.mark.parametrize("server", ["airflow", "fab_airflow", "prefixed_airflow"])
def test_within_airflow(request: pytest.FixtureRequest, visit: VisitAs, server: str) -> None:
    """Airflow's navigation has them, in a frame; all that they need is below Airflow's own path."""
    # Airflow lists its plugins' pages to those who may see plugins: of FAB's roles, Op and Admin.
    page = visit(request.getfixturevalue(server), "op").open(NAV)
    frame = page.frame_locator("iframe")
    frame.locator("h1").wait_for()
    check_accessibility(page)
