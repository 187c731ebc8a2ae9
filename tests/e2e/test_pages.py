"""The pages in a browser, on a running Airflow: from a failed message to its arrival."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.browser import Visit, check_accessibility, chromium
from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DAG = "urgent_tasks_to_the_desk"
NAV = "/plugin/insightly-webhooks"
TITLE = "urgent <script>alert(1)</script>"
LONG = 120_000
"""Milliseconds that a run may take."""
expect.set_options(timeout=LONG)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(stack: Stack, browser: Browser) -> Iterator[Visit]:
    """An operator's visit. Every unexpected error fails the test."""
    stack.airflow.dags()  # logs in
    token = str(stack.airflow._session.headers["Authorization"]).removeprefix("Bearer ")
    visit = Visit(browser, stack.airflow.url, token)
    yield visit
    visit.close()
    visit.check()


@pytest.fixture(scope="module")
def failed(stack: Stack) -> int:
    """Return the id of a record whose webhook the receiver has refused. Another webhook is pending."""
    stack.wait_for_run(DAG, stack.start_run(DAG))
    stack.bin_answers("desk", status=503)
    task_id = int(stack.add_task(TITLE, PRIORITY=3)["TASK_ID"])
    run_id = wait_for("a run that has found the record", lambda: _found(stack), 240)
    assert stack.wait_for_run(DAG, run_id) == "failed"
    stack.bin_answers("desk")
    return task_id


def _found(stack: Stack) -> str | None:
    """Return a run that has found a change. The record becomes visible a second after the change."""
    run_id = stack.start_run(DAG)
    stack.wait_for_run(DAG, run_id)
    return run_id if stack.tasks(DAG, run_id)["deliver_desk"]["state"] == "failed" else None


def open_within_airflow(visit: Visit) -> tuple[Page, FrameLocator]:
    page = visit.open(NAV)
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Overview").wait_for()
    return page, frame


def go_to(frame: FrameLocator, name: str) -> None:
    frame.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
    frame.get_by_role("heading", level=1, name=name).wait_for()


def show_pending(page: Page, frame: FrameLocator, record_id: int) -> None:
    """Filter the pending webhooks by a record, and wait for the list."""
    frame.get_by_label("Record id").fill(str(record_id))
    frame.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile(f"record={record_id}"))  # the list before has the record, too


def test_a_failure_is_found_sent_again_and_arrives(stack: Stack, visit: Visit, failed: int) -> None:
    """Overview, filter, one delivery with its payload, send again, progress, the request bin."""
    page, frame = open_within_airflow(visit)
    row = frame.get_by_role("row").filter(has_text=DAG).first
    expect(row.get_by_role("cell").nth(5)).to_contain_text("1")

    go_to(frame, "Deliveries")
    frame.get_by_role("combobox", name="Workflow").select_option(DAG)
    frame.get_by_role("combobox", name="State").select_option("undelivered")
    frame.get_by_role("button", name="Show").click()
    expect(frame.get_by_role("row").filter(has_text=str(failed))).to_have_count(1)
    page.wait_for_url(re.compile("state=undelivered"))  # Airflow takes the address over: it can be shared
    assert parse_qs(urlsplit(page.url).query)["workflow"] == [DAG]

    frame.get_by_role("row").filter(has_text=str(failed)).get_by_role("link").first.click()
    expect(frame.get_by_label("Payload, indented")).to_contain_text(TITLE)
    expect(frame.get_by_text("503").first).to_be_visible()
    check_accessibility(page)

    frame.get_by_role("button", name="Send again").click()
    expect(frame.get_by_role("heading", name="Send 1 message again?")).to_be_visible()
    assert all(kept["acknowledged_with"] == 503 for kept in stack.received("desk"))
    frame.get_by_role("button", name="Send 1 message again").click()
    expect(frame.get_by_text("Done").first).to_be_visible()
    check_accessibility(page)
    assert [kept["acknowledged_with"] for kept in stack.received("desk")][-1] == 200
    assert failed in stack.received_ids("desk")


def test_a_preview_says_why_and_sends_a_test(stack: Stack, visit: Visit, failed: int) -> None:
    """The preview shows each condition, the deciding one, and the body. It POSTs a test to the receiver."""
    other = int(stack.add_task("urgent, but not very", PRIORITY=1)["TASK_ID"])
    page, frame = open_within_airflow(visit)
    go_to(frame, "Preview")
    choice = frame.get_by_role("option", name=re.compile("^Urgent tasks to the desk"))
    frame.get_by_role("combobox", name="Workflow").select_option(choice.get_attribute("value"))
    frame.get_by_label("Record id").fill(str(other))
    frame.get_by_role("button", name="Preview").click()
    expect(frame.locator("#result")).to_contain_text("does not trigger", ignore_case=True)
    expect(frame.locator(".culprit")).to_contain_text("PRIORITY")
    check_accessibility(page)

    frame.get_by_label("Record id").fill(str(failed))
    frame.get_by_role("button", name="Preview").click()
    expect(frame.locator("#result pre").first).to_contain_text(TITLE)
    before = len(stack.received("desk"))
    frame.get_by_role("button", name="Send this to the receiver as a test").first.click()
    expect(frame.get_by_role("heading", name="as a test?")).to_be_visible()
    assert len(stack.received("desk")) == before
    frame.get_by_role("button", name="Send it to").click()
    expect(frame.get_by_role("heading", name="The receiver acknowledged the test")).to_be_visible()
    sent = stack.received("desk")[-1]
    assert len(stack.received("desk")) == before + 1
    assert sent["headers"]["webhook-id"].startswith("msg_test_")


def test_what_is_pending_is_cancelled(stack: Stack, visit: Visit, failed: int) -> None:
    """Choose a webhook, read the confirmation, confirm it, and see it cancelled."""
    page, frame = open_within_airflow(visit)
    go_to(frame, "Pending")
    show_pending(page, frame, failed)
    frame.get_by_role("checkbox", name=f"Tasks {failed}").check()
    frame.get_by_role("button", name="Cancel selected").click()
    frame.get_by_role("heading", name="Cancel 1 pending webhook?").wait_for()
    frame.get_by_role("button", name="Cancel 1 pending webhook").click()
    page.wait_for_url(re.compile(r"/pending/runs\?"))
    expect(frame.locator("progress")).to_have_attribute("value", "1")
    check_accessibility(page)
    go_to(frame, "Pending")
    show_pending(page, frame, failed)
    expect(frame.get_by_role("checkbox", name=f"Tasks {failed}")).to_have_count(0)
    assert stack.received("desk_later") == []


def test_links_leave_airflows_frame(visit: Visit, failed: int) -> None:
    """A link to a DAG opens it in the whole window, not in the frame."""
    page, frame = open_within_airflow(visit)
    frame.get_by_role("link", name="Urgent tasks to the desk").click()
    page.wait_for_url(re.compile(rf"/dags/{DAG}"))


def test_a_dags_tab_shows_its_own(visit: Visit, failed: int) -> None:
    """The tab of a workflow's DAG has its deliveries, and no navigation."""
    page = visit.open(f"/dags/{DAG}/plugin/insightly-webhooks-dag")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("row").filter(has_text=str(failed)).first).to_be_visible()
    expect(frame.get_by_role("navigation", name="Pages")).to_have_count(0)
    check_accessibility(page)
