"""A workflow in one task, on a real Airflow."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.demo.airflow_stack import StackError, wait_for
from tests.e2e.conftest import CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_retry_sends_what_is_missing(stack: Stack, started: datetime) -> None:
    """One of five records fails and arrives with the retry. XCom, rendered fields and logs hold no record."""
    stack.bin_answers("one_task", status=503, times=1, match="one task 3")
    tasks = [stack.add_task(f"one task {number}") for number in range(5)]
    run = stack.start_run_since(started, "one task", dag_id="one_task")
    assert stack.wait_for_run("one_task", run) == "success"

    posts = Counter(stack.received_ids("one_task"))
    assert posts == {task["TASK_ID"]: 1 + (task is tasks[3]) for task in tasks}
    assert len({kept["headers"]["webhook-id"] for kept in stack.received("one_task")}) == 5
    report = stack.xcom("one_task", run, "flow")
    assert (report["total"], report["delivered"], report["attempts"]) == (5, 5, 6)
    counts = stack.task_state("one_task", run, "flow", "run_counts")
    assert (counts["version"], counts["met"]) == (1, 5)
    assert counts["detected"] >= 5  # other tests' records as well
    assert 0 < counts["requests_left"] <= counts["requests_a_day"]
    task = stack.tasks("one_task", run)["flow"]
    assert task["try_number"] == 2
    assert set(task["rendered_fields"]) == {"window", "cursor"}
    logs = "".join(stack.log("one_task", run, "flow", number) for number in (1, 2))
    assert "4 of 5 payloads delivered" in logs
    assert CANARY not in logs + json.dumps(task)

    stack.clear("one_task", run, "flow")
    assert stack.wait_for_run("one_task", run) == "success"
    assert len(stack.received("one_task")) == 6


NUMBERS = (
    '{"A":1234567890123456.78,"B":1.10,"C":1E2,"D":1e20,"E":1e400,"F":18446744073709551616,"G":-0.0,'
    '"H":[123456789012345678901234567890,0.5,7],"I":100000000000000000000.0}'
)


@pytest.mark.parametrize(
    ("dag_id", "last"), [("change_to_webhook", "deliver"), ("one_task_odd_records", "flow")]
)
def test_odd_records(stack: Stack, started: datetime, dag_id: str, last: str) -> None:
    """Numbers that JSONB would change arrive as written. A record that nests too deep stops only itself."""
    title = f"odd {dag_id}"
    task = {"DETAILS": CANARY, "NUMBERS": loads(NUMBERS)}
    effort = [{"FIELD_NAME": "Effort_hours__c", "FIELD_VALUE": loads("1234567890123456.78")}]
    odd = stack.put_record("Tasks", {**task, "TITLE": f"{title} 1", "CUSTOMFIELDS": effort})["TASK_ID"]
    deep = loads("[" * 200 + f'"{CANARY}"' + "]" * 200)
    bad = stack.put_record("Tasks", {**task, "TITLE": f"{title} 2", "DEEP": deep})["TASK_ID"]
    good = stack.add_task(f"{title} 3")["TASK_ID"]
    run = stack.start_run_since(started, title, dag_id=dag_id, receiver="receiver_odd_records")
    assert stack.wait_for_run(dag_id, run) == "failed"

    kept = [kept["body"] for kept in stack.received("odd_records")]
    bodies = {json.loads(body)["entity"]["TASK_ID"]: body for body in kept if title in body}
    assert set(bodies) == {odd, good}
    assert f'"NUMBERS":{NUMBERS}' in bodies[odd]
    assert '"FIELD_VALUE":1234567890123456.78' in bodies[odd]
    report = stack.xcom(dag_id, run, last)
    assert (report["total"], report["delivered"]) == (3, 2)
    (item,) = report["undelivered"]
    assert (item["record_type"], item["record_id"], item["attempts"]) == ("Tasks", bad, 0)
    assert item["error"] == "no body can be built: DEEP: its values nest deeper than 100 levels"
    states = stack.tasks(dag_id, run)
    assert {name: one["state"] for name, one in states.items() if name != last} == {
        name: "success" for name in states if name != last
    }
    assert states[last]["try_number"] == 1  # another try could change nothing
    first = stack.log(dag_id, run, "detect" if "detect" in states else last)
    assert f"Tasks {bad} can't be delivered: DEEP" in first
    assert CANARY not in first + stack.log(dag_id, run, last) + json.dumps(states)


def test_the_report_of_a_skipped_deliver_task(stack: Stack) -> None:
    """A later task with the rule ``none_failed`` runs, and gets ``None`` as the report."""
    run = stack.start_run("after_a_skip")
    assert stack.wait_for_run("after_a_skip", run) == "success"
    assert stack.tasks("after_a_skip", run)["deliver"]["state"] == "skipped"
    assert stack.xcom("after_a_skip", run, "after") == {"report": None}


KEYS, FLOW = "one_task_keys", "detect_and_deliver"


@pytest.mark.scale
def test_each_webhook_has_its_own_keys(stack: Stack) -> None:
    """One is retried, one makes an asset event, one is sent later. Each happens once, also after a resend."""
    first = stack.start_run(KEYS)  # it begins when it starts
    assert stack.wait_for_run(KEYS, first) == "success"
    stack.unpause(f"{KEYS}__pending")
    stack.bin_answers("keys_now", status=503, times=1, match="one task keys 1")
    stack.bin_answers("keys_dead", status=500)
    ids = [stack.add_task(f"one task keys {number}")["TASK_ID"] for number in range(3)]
    time.sleep(3)  # a run reads up to a second ago, and begins in less
    run = stack.start_run(KEYS)
    assert stack.wait_for_run(KEYS, run) == "success"
    assert stack.tasks(KEYS, run)[FLOW]["try_number"] == 2

    assert Counter(stack.received_ids("keys_now")) == {ids[0]: 1, ids[1]: 2, ids[2]: 1}
    assert Counter(stack.received_ids("keys_dead")) == dict.fromkeys(ids, 1)
    reports = stack.xcom(KEYS, run, FLOW)
    assert {name: (one["total"], one["delivered"]) for name, one in reports.items()} == {
        "now": (3, 3),
        "dead": (3, 0),
    }
    (event,) = dead_letters(stack)
    assert (event["source_run_id"], event["extra"]["webhooks"]) == (run, ["dead"])
    assert event["extra"]["total"] == 3
    logs = "".join(stack.log(KEYS, run, FLOW, number) for number in (1, 2))
    assert f"Scheduled 3 webhooks in DAG '{KEYS}__pending'" in logs
    assert "Not acknowledged, by kind:" in logs
    wait_for("what is sent later", lambda: len(stack.received("keys_later")) >= 3, 240)

    links = stack.airflow.api(f"/dags/{KEYS}/dagRuns/{quote(run)}/taskInstances/{FLOW}/links")["extra_links"]
    assert links["Records in Insightly"] == f"{stack.sandbox}/v3.1/Tasks"
    page = stack.airflow.page(links["Deliveries"])
    assert all(str(record_id) in page for record_id in ids)
    assert CANARY not in page + logs

    stack.clear(KEYS, run, FLOW)
    assert stack.wait_for_run(KEYS, run) == "success"
    assert len(stack.received("keys_now")) == 4
    assert len(stack.received("keys_dead")) == 6
    assert len(dead_letters(stack)) == 2
    assert resend(stack, ids[0]) == "success"
    assert Counter(stack.received_ids("keys_now"))[ids[0]] == 2
    assert len({one["headers"]["webhook-id"] for one in stack.received("keys_now")}) == 3
    assert len(stack.received("keys_dead")) == 6

    # Of a record that is gone, no body can be built again.
    stack.crm("DELETE", f"/Tasks/{ids[1]}")
    assert resend(stack, ids[1]) == "failed"
    (row,) = json.loads(
        stack.command("deliveries", *about(ids[1]), "--state", "undelivered", "--output", "json")
    )
    assert (row["record"], row["state"]) == (f"Tasks:{ids[1]}", "unsent")
    assert "its record has left the window" in row["error"]
    assert len(stack.received("keys_now")) == 5
    assert Counter(stack.received_ids("keys_later")) == dict.fromkeys(ids, 1)


def about(record_id: int) -> tuple[str, ...]:
    return ("--dag-id", KEYS, "--record", f"Tasks:{record_id}", "--receiver", "receiver_keys_now")


def resend(stack: Stack, record_id: int) -> str:
    """Send a record's message again. Return the final state of its run."""
    (result,) = json.loads(
        stack.command("resend", "--yes", "-o", "json", *about(record_id), "--state", "any")
    )
    assert result["outcome"] == "cleared"
    return stack.wait_for_run(KEYS, result["run_id"])


def dead_letters(stack: Stack) -> list[dict[str, Any]]:
    def listed() -> list[dict[str, Any]] | None:
        # Airflow 3.3 answers 500 while a run that an event has created is still queued.
        with contextlib.suppress(StackError):
            return stack.airflow.api(f"/assets/events?source_dag_id={KEYS}&limit=100")["asset_events"]
        return None

    return wait_for("the asset events", listed, 60)
