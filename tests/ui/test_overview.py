"""The overview, over a month of deliveries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from html import unescape
from typing import Any

import pytest
from airflow.models import DagModel
from sqlalchemy import update
from sqlalchemy.orm import Session

from airflow_insightly_hooks import Webhook, Workflow
from airflow_insightly_hooks.database.overview.activity import Activity, ActivityCounts
from airflow_insightly_hooks.database.overview.receivers import ReceiverHealth
from airflow_insightly_hooks.database.overview.workflow_dags import WorkflowDag
from airflow_insightly_hooks.database.stored_workflows import StoredWorkflow
from airflow_insightly_hooks.ui.charts import HEIGHT, Chart
from airflow_insightly_hooks.ui.routes.overview import _counted_since, _receiver_state, _workflow_state
from tests.ui.conftest import Login
from tests.ui.people import Strict
from tests.ui.seed import SCRIPT, Seed, seed

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
HIDDEN = ("payroll_contacts", "organisations_to_billing")
EARLIER, LATER = NOW.replace(hour=11), NOW.replace(hour=13)


@pytest.fixture(scope="module")
def a_month() -> Iterator[tuple[Session, Seed]]:
    """A month of deliveries that no test changes."""
    from tests.metadata_database import metadata_database

    with metadata_database() as sessions, sessions() as session:
        yield session, seed(session)


@pytest.fixture
def session(a_month: tuple[Session, Seed]) -> Session:
    return a_month[0]


def rows(page: str) -> dict[str, str]:
    """Return the text of each row of the page's tables by its first line."""
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", page.split("<tbody>", 1)[1], re.DOTALL):
        row = re.sub(r'<span class="hidden">.*?</span>|<svg.*?</svg>', "", row, flags=re.DOTALL)
        lines = [unescape(line).strip() for line in re.sub(r"<[^>]*>", "\n", row).splitlines()]
        text = [line for line in lines if line]
        found[text[0]] = " ".join(text[1:])
    return found


def test_a_workflow_is_listed_with_what_it_did(login: Login) -> None:
    found = rows(login("VIEWER").get("/insightly/").text)
    deals = found["Won deals to the ERP"]
    assert deals.startswith("won_deals_to_the_erp ● active")
    assert deals.endswith(" 12 142 6 70 5 69 1 1 0"), "of both periods: detected, met, …"
    assert "‖ paused" in found["Renewal reminder"]
    assert found["Renewal reminder"].endswith("25 —")
    assert "◇ dry run" in found["New leads, a trial"]
    assert "never" in found["Survey after a project"]


def test_what_needs_a_look_comes_first_and_what_is_idle_last(login: Login) -> None:
    names = list(rows(login().get("/insightly/").text.split("</table>")[0]))
    assert names[:2] == ["Organisations to billing", "Won deals to the ERP"]
    assert names[-1] == "Renewal reminder"


def test_what_a_retry_dag_sends_counts_for_its_workflow(login: Login) -> None:
    page = login().get("/insightly/").text
    assert "organisations_to_billing__retry" not in page
    assert "survey_after_a_project__pending" not in page


def test_a_receiver_that_is_down_says_since_when_and_until_when(login: Login) -> None:
    found = rows(login().get("/insightly/").text)
    billing = found["billing_webhook"]
    assert "◷ waiting failing since" in billing
    assert "no try before" in billing
    assert "answered 503" in billing
    assert "● healthy" in found["erp_webhook"]


def test_the_figures_at_the_top_lead_to_their_deliveries(login: Login) -> None:
    page = login().get("/insightly/").text
    top = page[page.index('<dl class="figures') : page.index("</dl>")]
    for state in ("delivered", "undelivered"):
        assert f'href="/insightly/deliveries?state={state}&amp;period=24h"' in top


def test_the_requests_that_are_left_are_told(login: Login) -> None:
    page = login().get("/insightly/").text
    assert re.search(r"<strong>3\d,\d{3}</strong> left of 40,000", page)


def test_nothing_is_told_of_a_dag_that_the_person_may_not_see(login: Login) -> None:
    hidden = [f"{name}{suffix}" for name in HIDDEN for suffix in ("", "__retry", "__pending")]
    client = login(manager=Strict(hidden=hidden))
    page = client.get("/insightly/").text
    assert "payroll" not in page.casefold()
    assert "billing_webhook" not in page
    assert "organisations" not in page.casefold()
    assert "Won deals to the ERP" in page


def test_who_may_see_nothing_gets_an_empty_page(login: Login) -> None:
    page = login(manager=Strict(refuses=lambda *_: True)).get("/insightly/").text
    assert "No workflow yet" in page
    assert "webhook_default" not in page


def test_names_are_escaped(session: Session, login: Login) -> None:
    is_deals = DagModel.dag_id == "won_deals_to_the_erp"
    try:
        session.execute(update(DagModel).where(is_deals).values(_dag_display_property_value=SCRIPT))
        session.commit()
        page = login().get("/insightly/").text
    finally:
        session.execute(
            update(DagModel).where(is_deals).values(_dag_display_property_value="Won deals to the ERP")
        )
        session.commit()
    assert SCRIPT not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def health(**values: object) -> ReceiverHealth:
    usual = dict.fromkeys(ReceiverHealth._fields)
    counts = {"waiting": 0, "delivered": 0, "undelivered": 0, "unreadable": 0}
    return ReceiverHealth(**{**usual, **counts, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "values"),
    [
        ("healthy", {"last_success": EARLIER}),
        ("waiting", {"failing_since": EARLIER, "retry_at": LATER, "error": "answered 503"}),
        ("failing", {"failing_since": EARLIER, "retry_at": EARLIER, "last_success": EARLIER}),
        ("failing", {"last_success": EARLIER, "failed_at": NOW, "undelivered": 1}),
        ("failing", {"undelivered": 3}),
        ("unknown", {}),
    ],
)
def test_a_receivers_state(state: str, values: dict[str, object]) -> None:
    assert _receiver_state(health(**values), NOW) == state


def test_a_charts_bars_fill_its_height() -> None:
    days = [(date(2026, 1, 1), 100, 0), (date(2026, 1, 2), 0, 0), (date(2026, 1, 3), 99, 1)]
    chart = Chart.of(days)
    heights = [bar.delivered + bar.undelivered for bar in chart.bars]
    assert heights[1] == 0
    assert max(heights) <= HEIGHT
    assert min(heights[0], heights[2]) > 0.9 * HEIGHT - 3
    assert chart.bars[2].undelivered >= 1, "one failure among a hundred is seen"
    assert chart.bars[2].label == "2026-01-03: 99 delivered, 1 undelivered"
    assert chart.summary == ("Messages by day, 3 days: 100 at most, on 2026-01-01; undelivered ones on 1 day")


def test_a_chart_of_nothing_says_so() -> None:
    assert Chart.of([(date(2026, 1, 1), 0, 0)]).summary == "Nothing was sent in 1 day"
    assert Chart.of([]).bars == []


def dag(**values: bool) -> WorkflowDag:
    return WorkflowDag("w", "W", values.get("is_paused", False), values.get("is_stale", False), None, ())


@pytest.mark.parametrize(
    ("state", "values", "definitions"),
    [
        ("active", {}, [{}]),
        ("active", {}, []),
        ("missing", {"is_stale": True, "is_paused": True}, [{}]),
        ("paused", {"is_paused": True}, [{"active": False}]),
        ("inactive", {}, [{"active": False}]),
        ("active", {}, [{"active": False}, {}]),
        ("dry run", {}, [{"dry_run": True}]),
        ("active", {}, [{"dry_run": True}, {}]),
    ],
)
def test_a_workflows_state(state: str, values: dict[str, bool], definitions: list[dict[str, Any]]) -> None:
    """A DAG with several workflows has one state for all of them."""
    webhook = Webhook(name="b", conn_id="b")
    stored = [
        StoredWorkflow("w", "t", Workflow(name="W", record_type="Contacts", webhooks=[webhook], **one), None)
        for one in definitions
    ]
    assert _workflow_state(dag(**values), stored) == state


def test_it_is_said_since_when_changes_are_counted() -> None:
    """This is shown if counting began after the period did, as after an upgrade."""
    none = ActivityCounts(None, None, 0, 0, 0)
    new, old = (Activity("w", none, none, [], at, 0) for at in (NOW, NOW - timedelta(days=29)))
    assert _counted_since([new], NOW) == NOW
    assert _counted_since([new, old], NOW) is None
    assert _counted_since([], NOW) is None


def test_the_sums_stand_first(login: Login) -> None:
    """The sums of all workflows: delivered, undelivered, waiting and pending messages."""
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", login().get("/insightly/").text))
    assert re.search(
        r"Delivered in 24 hours [5-9] Undelivered in 24 hours [3-5] Left to retry DAGs 6 Pending 34", page
    ), page[:600]
