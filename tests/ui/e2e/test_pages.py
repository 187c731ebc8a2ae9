"""The pages in a browser: by themselves, within Airflow, behind a reverse proxy."""

from __future__ import annotations

import pytest

from tests.browser import check_accessibility, check_layout
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
    check_layout(page, path.strip("/").replace("/", "-") or "overview")


def test_a_filtered_list(airflow: AirflowServer, visit: VisitAs) -> None:
    """What narrows a list down can be seen and taken away by everybody; so can what is wrong with a field."""
    one = visit(airflow, "admin")
    page = one.open("/insightly/deliveries?state=undelivered&record=7&period=30d")
    check_layout(page, "deliveries-filtered")
    page.get_by_role("link", name="Remove this filter: Record").click()
    page.set_viewport_size({"width": 1400, "height": 900})  # a narrow list has no head
    page.get_by_role("checkbox", name="Select all on this page").check()
    check_layout(page, "deliveries-selected")
    one.expect("400")
    check_accessibility(one.open("/insightly/deliveries?record=x"))


@pytest.mark.parametrize("server", ["airflow", "fab_airflow", "prefixed_airflow"])
def test_within_airflow(request: pytest.FixtureRequest, visit: VisitAs, server: str) -> None:
    """Airflow's navigation has them, in a frame; all that they need is below Airflow's own path."""
    # Airflow lists its plugins' pages to those who may see plugins: of FAB's roles, Op and Admin.
    page = visit(request.getfixturevalue(server), "op").open(NAV)
    frame = page.frame_locator("iframe")
    frame.locator("h1").wait_for()
    check_accessibility(page)
