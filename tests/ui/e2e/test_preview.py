"""The preview in a browser: from a pasted record to the question whether to send it."""

from __future__ import annotations

import json

import pytest

from tests.browser import check_layout
from tests.ui.e2e.airflow_server import AirflowServer
from tests.ui.e2e.conftest import VisitAs
from tests.ui.workflows import SECRETS

pytestmark = pytest.mark.e2e

RECORD = {
    "OPPORTUNITY_ID": 7,
    "OPPORTUNITY_NAME": "A deal",
    "OPPORTUNITY_STATE": "WON",
    "DATE_CREATED_UTC": "2026-01-01 08:00:00",
    "DATE_UPDATED_UTC": "2026-01-02 08:00:00",
}


@pytest.mark.parametrize("state", ["WON", "LOST"])
def test_a_preview(airflow: AirflowServer, visit: VisitAs, state: str) -> None:
    """Each page of it is shown without barriers, wide and narrow, and holds no secret."""
    page = visit(airflow, "admin").open("/insightly/preview?dag_id=won_deals_to_the_erp")
    page.get_by_text("Or paste a record as JSON").click()
    page.get_by_label("Record", exact=True).fill(json.dumps({**RECORD, "OPPORTUNITY_STATE": state}))
    page.get_by_role("button", name="Preview").click()
    verdict = "triggers" if state == "WON" else "does not trigger"
    page.get_by_role("heading", name=verdict).wait_for()
    check_layout(page, f"preview-{verdict.replace(' ', '-')}")
    if state == "LOST":
        page.get_by_text("ERP: at once").click()
    assert "signature" in page.content()
    page.get_by_role("button", name="Send this to the receiver as a test").click()
    page.get_by_role("button", name="Send it to https://erp.example.com/insightly/won").wait_for()
    check_layout(page, "preview-confirm")
    assert not [secret for secret in SECRETS if secret in page.content()]
    page.get_by_role("button", name="Go back, send nothing").click()
    page.get_by_role("heading", name=verdict).wait_for()
