"""From a change in the CRM to a receiver, on a real Airflow."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import CANARY, PASSWORD, USERNAME, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HELP_PAGE_BODY = Path(__file__).parent.parent / "vectors" / "help_page_task_body.json"
PIPELINE = "change_to_webhook"
BASIC = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def body_of(record: dict[str, Any]) -> str:
    """Return the body expected for a task's record. It is written here again, without the package's code."""

    def date(text: str) -> str:
        instant = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
        # The tests' dates are all in winter, when Los Angeles is eight hours behind.
        return rf'"\/Date({int(instant.timestamp()) * 1000}-0800)\/"'

    dates = {"DUE_DATE", "START_DATE", *(name for name in record if name.endswith("_DATE_UTC"))}
    dates |= {"DATE_CREATED_UTC", "DATE_UPDATED_UTC"}
    fields = [
        f'"{name}":{date(value) if name in dates and value else json.dumps(value, ensure_ascii=False)}'
        for name, value in record.items()
    ]
    return '{"entity":{' + ",".join(fields) + "}}"


def compact(text: str) -> str:
    return text.replace(": ", ":").replace(", ", ",")


@pytest.mark.on_sqlite
def test_an_added_record_becomes_one_webhook_with_exact_body_and_credentials(
    stack: Stack, started: datetime
) -> None:
    """Record added -> one webhook, the exact body, the right Basic credentials."""
    task = stack.add_task("added one", DUE_DATE="2027-01-10 08:00:00", PRIORITY=2)
    run = stack.start_run_since(started, "added one", receiver="receiver_added")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    (kept,) = stack.received("added")
    assert kept["body"] == compact(body_of(task))
    assert kept["username"] == USERNAME  # the bin checked the password, and answers 401 to any other
    assert kept["acknowledged_with"] == 200
    assert kept["headers"]["content-type"] == "application/json; charset=utf-8"
    assert kept["headers"]["webhook-id"].startswith("msg_")
    report = stack.xcom(PIPELINE, run, "deliver")
    assert (report["total"], report["delivered"], report["undelivered"], report["attempts"]) == (1, 1, [], 1)
    (change,) = stack.xcom(PIPELINE, run, "evaluate")
    assert (change["event"], change["record_id"]) == ("added", task["TASK_ID"])


def test_the_help_pages_task_comes_out_as_the_help_page_shows_it(stack: Stack) -> None:
    """The help page's task, seeded in the sandbox, makes the help page's body, byte for byte.

    The milliseconds of its creation and update are the exception: times of the API and the sandbox have none.
    """
    stack.bin_answers("help_page")
    window = {"start": "2017-03-10 03:34:10", "end": "2017-03-10 03:34:11"}
    run = stack.start_run(PIPELINE, title="New Lead Task", receiver="receiver_help_page", **window)
    assert stack.wait_for_run(PIPELINE, run) == "success"

    (kept,) = stack.received("help_page")
    page = HELP_PAGE_BODY.read_text().replace("1489116850787", "1489116850000")
    assert kept["body"] == compact(page.replace("\n", ""))


def test_an_updated_record_becomes_a_webhook_of_event_updated(stack: Stack) -> None:
    """Record updated -> one webhook with event ``updated`` and the record's new state."""
    task = stack.add_task("updated one")
    time.sleep(1.1)
    started = datetime.now(timezone.utc).replace(microsecond=0)
    updated = stack.crm("PUT", "/Tasks", {"TASK_ID": task["TASK_ID"], "STATUS": "IN PROGRESS"})
    run = stack.start_run_since(started, "updated one", receiver="receiver_updated")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    (kept,) = stack.received("updated")
    assert kept["body"] == compact(body_of(updated))
    assert '"STATUS":"IN PROGRESS"' in kept["body"]
    (payload,) = stack.xcom(PIPELINE, run, "build")
    assert payload["event"] == "updated"
    assert payload["message_id"] == kept["headers"]["webhook-id"]


def test_unmet_criteria_skip_what_follows(stack: Stack, started: datetime) -> None:
    """Criteria not met -> later tasks skipped, nothing sent, run successful."""
    stack.add_task("unmet one")
    run = stack.start_run_since(started, "another title", receiver="receiver_unmet")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    states = {name: task["state"] for name, task in stack.tasks(PIPELINE, run).items()}
    assert states == {"detect": "success", "evaluate": "success", "build": "skipped", "deliver": "skipped"}
    assert stack.received("unmet") == []
    assert stack.task_state(PIPELINE, run, "detect", "run_counts")["detected"] >= 1
    assert stack.task_state(PIPELINE, run, "evaluate", "run_counts") == {"version": 1, "met": 0}


def test_two_failures_then_success_make_three_posts_of_one_message(stack: Stack, started: datetime) -> None:
    """Receiver answers 503, 503, 200 -> three POSTs, one id, same bytes, task successful at try 3."""
    stack.bin_answers("later", status=503, times=2)
    stack.add_task("later one")
    run = stack.start_run_since(started, "later one", receiver="receiver_later")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    received = stack.received("later")
    assert [kept["acknowledged_with"] for kept in received] == [503, 503, 200]
    assert len({kept["headers"]["webhook-id"] for kept in received}) == 1
    assert len({kept["body"] for kept in received}) == 1
    assert stack.tasks(PIPELINE, run)["deliver"]["try_number"] == 3


def test_three_failures_end_in_a_report_that_names_the_record(stack: Stack, started: datetime) -> None:
    """Always 503 -> exactly three POSTs, task failed, log, exception and XCom name the record."""
    stack.bin_answers("never", status=503)
    task = stack.add_task("never one")
    run = stack.start_run_since(started, "never one", receiver="receiver_never")
    assert stack.wait_for_run(PIPELINE, run) == "failed"

    assert [kept["acknowledged_with"] for kept in stack.received("never")] == [503, 503, 503]
    assert stack.tasks(PIPELINE, run)["deliver"]["state"] == "failed"
    report = stack.xcom(PIPELINE, run, "deliver")
    assert (report["total"], report["delivered"], report["attempts"]) == (1, 0, 3)
    (undelivered,) = report["undelivered"]
    assert (undelivered["record_type"], undelivered["record_id"]) == ("Tasks", task["TASK_ID"])
    assert (undelivered["status"], undelivered["attempts"]) == (503, 3)
    log = stack.log(PIPELINE, run, "deliver", 3)
    assert f"Tasks {task['TASK_ID']} " in log
    assert f"1 of 1 payload is undelivered: Tasks {task['TASK_ID']} (answered 503)" in log
    assert "UndeliveredError" in log


@pytest.mark.on_sqlite
def test_a_retry_posts_only_what_is_not_acknowledged(stack: Stack, started: datetime) -> None:
    """Of 20 payloads 3 fail at first -> the retry POSTs 3."""
    tasks = [stack.add_task(f"some {i:02}{' unlucky' if i in (3, 9, 17) else ''}") for i in range(20)]
    stack.bin_answers("some", status=500, times=3, match="unlucky")
    run = stack.start_run_since(started, "some", receiver="receiver_some")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    received = stack.received("some")
    assert len(received) == 23
    unlucky = {task["TASK_ID"] for task in tasks if "unlucky" in task["TITLE"]}
    assert set(stack.received_ids("some")[20:]) == unlucky
    assert {kept["acknowledged_with"] for kept in received[20:]} == {200}
    assert stack.tasks(PIPELINE, run)["deliver"]["try_number"] == 2


def test_a_cleared_deliver_task_sends_nothing_twice(stack: Stack, started: datetime) -> None:
    """A deliver task that is cleared after its success sends no message again."""
    stack.add_task("cleared one")
    run = stack.start_run_since(started, "cleared one", receiver="receiver_cleared")
    assert stack.wait_for_run(PIPELINE, run) == "success"
    assert len(stack.received("cleared")) == 1

    stack.clear(PIPELINE, run, "deliver")
    assert stack.wait_for_run(PIPELINE, run) == "success"
    assert stack.tasks(PIPELINE, run)["deliver"]["try_number"] == 2
    assert len(stack.received("cleared")) == 1
    report = stack.xcom(PIPELINE, run, "deliver")
    assert (report["total"], report["delivered"]) == (1, 1)


def test_a_cleared_failed_task_delivers_what_is_missing(stack: Stack, started: datetime) -> None:
    """A failed deliver task that is cleared sends the missing messages, in three new attempts at most."""
    stack.bin_answers("never", status=503, match="stubborn")
    stack.add_task("refused one")
    stack.add_task("refused two, stubborn")
    before = len(stack.received("never"))
    run = stack.start_run_since(started, "refused", receiver="receiver_never")
    assert stack.wait_for_run(PIPELINE, run) == "failed"
    assert len(stack.received("never")) == before + 1 + 3

    stack.bin_answers("never", status=503, times=1, match="stubborn")
    stack.clear(PIPELINE, run, "deliver")
    assert stack.wait_for_run(PIPELINE, run) == "success"
    assert [kept["acknowledged_with"] for kept in stack.received("never")[before + 4 :]] == [503, 200]


def test_a_uri_from_a_variable_is_sent_to_and_shown_nowhere(stack: Stack, started: datetime) -> None:
    """A URI with user information, from an Airflow variable, works and is rendered without it."""
    stack.add_task("variable one")
    run = stack.start_run_since(started, "variable one", dag_id="uri_from_variable")
    assert stack.wait_for_run("uri_from_variable", run) == "success"

    (kept,) = stack.received("variable")
    assert (kept["username"], kept["acknowledged_with"]) == (USERNAME, 200)
    rendered = stack.tasks("uri_from_variable", run)["deliver"]["rendered_fields"]
    assert rendered["uri"] == f"{stack.sandbox}/bin/variable"
    assert rendered["payloads"]["count"] == 1


def test_what_is_given_literally_is_used_and_shown_nowhere(stack: Stack) -> None:
    """Literal tokens, headers, changes and payloads: ``test_secrets`` finds them in no table and no log."""
    run = stack.start_run("literals", host=stack.sandbox.removeprefix("http://"))
    assert stack.wait_for_run("literals", run) == "failed"
    states = {task_id: task["state"] for task_id, task in stack.tasks("literals", run).items()}
    assert states == dict.fromkeys(("one", "shared", "evaluate", "build"), "success") | {
        "unrendered": "failed"
    }
    kept = stack.received("literals")
    assert [one["headers"]["x-literal"] for one in kept] == [CANARY] * 2
    assert [json.loads(one["body"]) for one in kept] == [{"BODY": CANARY}] * 2


def test_mapped_tasks_deliver_chunks_and_show_no_contents(stack: Stack, started: datetime) -> None:
    """``.expand(payloads=…)`` delivers all chunks once. Rendered fields hold counts and ids only."""
    tasks = [stack.add_task(f"mapped {i}") for i in range(5)]
    run = stack.start_run_since(started, "mapped", dag_id="mapped_over_chunks")
    assert stack.wait_for_run("mapped_over_chunks", run) == "success"

    assert sorted(stack.received_ids("mapped")) == sorted([task["TASK_ID"] for task in tasks] * 2)
    found = stack.airflow.api(f"/dags/mapped_over_chunks/dagRuns/{run}/taskInstances?limit=50")
    for task_id in ("deliver", "deliver_separate"):
        rendered = [t["rendered_fields"] for t in found["task_instances"] if t["task_id"] == task_id]
        assert sorted(fields["payloads"]["count"] for fields in rendered) == [1, 2, 2]
    assert CANARY not in json.dumps(found)


def test_the_links_lead_to_the_receiver_and_to_the_records(stack: Stack, started: datetime) -> None:
    """The deliver task links to the receiver's page, the detect task to the list of its records."""
    stack.add_task("linked one")
    run = stack.start_run_since(started, "linked one", receiver="receiver_added")
    assert stack.wait_for_run(PIPELINE, run) == "success"

    def links(task_id: str) -> dict[str, str]:
        return stack.airflow.api(f"/dags/{PIPELINE}/dagRuns/{run}/taskInstances/{task_id}/links")[
            "extra_links"
        ]

    assert links("deliver") == {"Receiver": f"{stack.sandbox}/bin/added"}
    assert links("detect") == {"Records in Insightly": f"{stack.sandbox}/v3.1/Tasks"}
