"""Workflows on a real Airflow: the modes of evaluation, several webhooks, time triggers, watchers, files."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from airflow_insightly_hooks.core.dates import api_time, format_api_time, iso_time
from airflow_insightly_hooks.core.delivery.message_id import message_id
from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LATER = 120
"""Seconds until a receiver that is down is tried again, and until what is pending is due.

What is looked at before takes a quarter of it on two processors with nothing else to do. Other tests run
meanwhile.
"""
PENDING = "some_seconds_later__pending"
MODES = ("created", "created_and_edited", "until_triggered")


def run_all(stack: Stack, *dag_ids: str, expected: str = "success") -> dict[str, str]:
    """Run DAGs side by side, one second after the last action."""
    time.sleep(2.1)  # so that it has settled: the workflows' settle is a second
    runs = {dag_id: stack.start_run(dag_id) for dag_id in dag_ids}
    assert {dag_id: stack.wait_for_run(dag_id, run) for dag_id, run in runs.items()} == dict.fromkeys(
        dag_ids, expected
    )
    return runs


def bodies(stack: Stack, name: str) -> list[dict[str, Any]]:
    return [json.loads(kept["body"]) for kept in stack.received(name)]


class Overlapping(NamedTuple):
    """Three runs of a workflow, and the lead that each has found."""

    runs: list[str]
    leads: list[int]


@pytest.fixture(scope="module")
def overlapping(stack: Stack) -> Overlapping:
    """Start three runs while a receiver is down. It asks the first run to wait longer than the test does."""
    run_all(stack, "overlapping")
    stack.bin_answers("down", status=503, headers={"Retry-After": str(LATER)}, times=1)
    started = Overlapping([], [])
    for _ in range(3):
        lead = {"LAST_NAME": "e2e", "LEAD_DESCRIPTION": CANARY, "LEAD_SOURCE_ID": 1, "LEAD_STATUS_ID": 1}
        started.leads.append(stack.crm("POST", "/Leads", lead)["LEAD_ID"])
        time.sleep(2.1)  # it has settled
        started.runs.append(stack.start_run("overlapping"))
        wait_for("the receiver that is down", lambda: stack.received("down"), timeout=240)
        # Else a run before, which is late, takes this lead with its own, and this one finds nothing.
        wait_for(
            "its detect task",
            lambda: stack.tasks("overlapping", started.runs[-1])["detect"]["state"] == "success",
            timeout=240,
        )
    return started


class Timed(NamedTuple):
    """Records with a time trigger by their names, and what the workflow's first run has scheduled."""

    ids: dict[str, int]
    scheduled: dict[str, Any]


@pytest.fixture(scope="module")
def timed(stack: Stack) -> Timed:
    """Start a workflow's run that schedules webhooks."""
    dag_id = "some_seconds_later"
    run_all(stack, dag_id)
    ids = {}
    for name in ("sent", "lost", "deleted", "cancelled"):
        made = {"OPPORTUNITY_NAME": f"e2e {name}", "OPPORTUNITY_STATE": "OPEN", "OPPORTUNITY_DETAILS": CANARY}
        ids[name] = stack.crm("POST", "/Opportunities", made)["OPPORTUNITY_ID"]
    first_run = run_all(stack, dag_id)[dag_id]
    return Timed(ids, stack.xcom(dag_id, first_run, "schedule", "pending"))


def test_runs_do_not_wait_for_a_receiver_that_another_run_waits_for(
    stack: Stack, overlapping: Overlapping
) -> None:
    """One run waits. Later runs deliver to the working receiver at once, and leave the other's messages."""
    runs, leads = overlapping
    assert [stack.wait_for_run("overlapping", run) for run in runs[1:]] == ["success"] * 2
    assert set(stack.received_ids("up", "LEAD_ID")) == set(leads)
    assert stack.received_ids("down", "LEAD_ID") == leads[:1]  # it has asked to wait
    report = stack.xcom("overlapping", runs[2], "deliver_down")
    assert (report["total"], report["delivered"], report["undelivered"], report["left"]) == (1, 0, [], 1)
    assert "has been failing since" in stack.log("overlapping", runs[2], "deliver_down")


def test_a_time_trigger(stack: Stack, timed: Timed) -> None:
    """A webhook is not moved, doubled or sent before its time, and can be cancelled."""
    ids, scheduled = timed
    cancelling = stack.start_run(PENDING, cancel=[ids["cancelled"]])
    assert stack.wait_for_run(PENDING, cancelling) == "success"
    waiting = stack.xcom(PENDING, cancelling, "due", "pending")
    assert {entry["record_id"] for entry in waiting["first"]} == {ids["sent"], ids["lost"], ids["deleted"]}
    # A second trigger: of one that is pending, and of the one that was cancelled.
    for name in ("sent", "cancelled"):
        stack.crm(
            "PUT", "/Opportunities", {"OPPORTUNITY_ID": ids[name], "OPPORTUNITY_NAME": f"e2e {name}, later"}
        )
    run_all(stack, "some_seconds_later")
    stack.crm("PUT", "/Opportunities", {"OPPORTUNITY_ID": ids["lost"], "OPPORTUNITY_STATE": "LOST"})
    stack.crm("DELETE", f"/Opportunities/{ids['deleted']}")
    stack.clear(PENDING, cancelling, "due")  # it cancels once, not again what was scheduled since
    assert stack.wait_for_run(PENDING, cancelling) == "success"
    waiting = stack.xcom(PENDING, cancelling, "due", "pending")
    assert {entry["record_id"] for entry in waiting["first"]} == set(ids.values())
    assert waiting["count"] == 4
    (sent,) = [entry for entry in waiting["first"] if entry["record_id"] == ids["sent"]]
    (first,) = [entry for entry in scheduled["timed"] if entry["record_id"] == ids["sent"]]
    assert sent == first  # not moved by the second trigger
    assert stack.received("timed") == []  # and nothing was sent at once
    for component in ("scheduler", "triggerer"):
        stack.airflow.processes.stop(component)
        stack.airflow.start(component)


def insightly_command(stack: Stack, *arguments: object) -> list[dict[str, Any]]:
    """Run a command of ``airflow insightly`` beside the scheduler; return what it prints as JSON."""
    command = [sys.executable, "-m", "airflow", "insightly", *map(str, arguments), "--output", "json"]
    # Where metrics are on, Airflow logs to standard output before a command begins.
    env = {**stack.airflow.env, "AIRFLOW__METRICS__OTEL_ON": "False"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.scale
def test_pending_webhooks_are_listed_cancelled_and_sent_by_command(stack: Stack) -> None:
    """Three leads have two webhooks each. One webhook is cancelled, one is sent now, and the others stay."""
    pending_dag = "steered__pending"
    run_all(stack, "steered")
    ids = {}
    for name in ("cancelled", "sent", "kept"):
        lead = {"LAST_NAME": "e2e steered", "LEAD_DESCRIPTION": CANARY, "FIRST_NAME": name}
        ids[name] = stack.crm("POST", "/Leads", {**lead, "LEAD_SOURCE_ID": 1, "LEAD_STATUS_ID": 1})["LEAD_ID"]
    run_all(stack, "steered")

    def pending() -> dict[tuple[str, int], dict[str, Any]]:
        found = insightly_command(stack, "pending", "list", "--dag-id", "steered")
        return {(row["webhook"], row["record_id"]): row for row in found}

    both = [(webhook, record_id) for webhook in ("days_later", "weeks_later") for record_id in ids.values()]
    listed = wait_for("all to be pending", lambda: len(found := pending()) == 6 and found, 240)
    assert list(listed) == both  # by the time that they are due
    row = listed["days_later", ids["sent"]]
    assert (row["record_type"], row["event"], row["sent_by"]) == ("Leads", "added", pending_dag)
    assert api_time(row["due"]) - api_time(row["changed_at"]) == timedelta(days=3)
    # Sent at once is the record's state of now, under the id of the change that triggered.
    stack.crm("PUT", "/Leads", {"LEAD_ID": ids["sent"], "FIRST_NAME": "changed since"})
    (cancelling,) = insightly_command(stack, "pending", "cancel", "--record", ids["cancelled"], "--yes")
    (sending,) = insightly_command(
        stack, "pending", "send-now", "--record", ids["sent"], "--webhook", "days_later", "--yes"
    )
    assert (cancelling["dag_id"], cancelling["webhooks"]) == (pending_dag, 2)
    assert (sending["dag_id"], sending["webhooks"]) == (pending_dag, 1)
    for run in (cancelling, sending):
        assert stack.wait_for_run(pending_dag, run["run_id"]) == "success"
    assert [body["entity"]["FIRST_NAME"] for body in bodies(stack, "days_later")] == ["changed since"]
    assert stack.received_ids("days_later", "LEAD_ID") == [ids["sent"]]
    (arrived,) = stack.received("days_later")
    expected = message_id("steered/days_later", "Leads", ids["sent"], "added", row["changed_at"])
    assert arrived["headers"]["webhook-id"] == expected
    assert stack.received("weeks_later") == []
    assert list(pending()) == [
        key for key in both if key[1] != ids["cancelled"] and key != ("days_later", ids["sent"])
    ]
    found = stack.airflow.api(f"/dags/{pending_dag}/dagRuns/{quote(cancelling['run_id'])}")
    assert (found["triggered_by"], found["triggering_user_name"]) == ("cli", getpass.getuser())
    assert found["note"].startswith("2 pending webhooks: cancel, requested by ")
    assert f"1 cancelled: [{ids['cancelled']}]" in stack.log(
        pending_dag, cancelling["run_id"], "due_days_later"
    )
    # A cleared task carries the request out no second time, and sends no second time.
    stack.clear(pending_dag, sending["run_id"], "due_days_later")
    assert stack.wait_for_run(pending_dag, sending["run_id"]) == "success"
    assert len(stack.received("days_later")) == 1


@pytest.mark.scale
def test_the_three_modes_of_evaluation(stack: Stack) -> None:
    """For a record that is created and edited twice, the modes send one, three and one webhook."""
    dag_ids = [f"mode_{mode}" for mode in MODES]
    run_all(stack, *dag_ids)  # each marks where it begins
    project = {"PROJECT_NAME": "e2e", "STATUS": "NOT STARTED", "PROJECT_DETAILS": CANARY}
    project = stack.crm("POST", "/Projects", project)
    run_all(stack, *dag_ids)
    for status in ("IN PROGRESS", "COMPLETED"):
        stack.crm("PUT", "/Projects", {"PROJECT_ID": project["PROJECT_ID"], "STATUS": status})
        run_all(stack, *dag_ids)
    statuses = {mode: [body["entity"]["STATUS"] for body in bodies(stack, mode)] for mode in MODES}
    assert statuses == {
        "created": ["NOT STARTED"],
        "created_and_edited": ["NOT STARTED", "IN PROGRESS", "COMPLETED"],
        "until_triggered": ["NOT STARTED"],
    }


def test_a_dead_receiver_holds_up_no_other(stack: Stack) -> None:
    """One of two receivers is dead. The other one gets its webhook, and the dead one's is reported."""
    run_all(stack, "two_webhooks")
    stack.bin_answers("dead", status=503)
    lead = {"LAST_NAME": "e2e", "LEAD_DESCRIPTION": CANARY, "LEAD_SOURCE_ID": 1, "LEAD_STATUS_ID": 1}
    lead = stack.crm("POST", "/Leads", lead)
    runs = run_all(stack, "two_webhooks", expected="failed")
    assert bodies(stack, "alive") == [{"LEAD_ID": lead["LEAD_ID"], "LAST_NAME": "e2e"}]
    tasks = stack.tasks("two_webhooks", runs["two_webhooks"])
    assert {task_id: task["state"] for task_id, task in tasks.items()} == {
        "detect": "success",
        "evaluate": "success",
        "build_alive": "success",
        "deliver_alive": "success",
        "build_dead": "success",
        "deliver_dead": "failed",
    }
    report = stack.xcom("two_webhooks", runs["two_webhooks"], "deliver_dead")
    assert (report["delivered"], report["undelivered"][0]["attempts"]) == (0, 3)
    assert len({kept["headers"]["webhook-id"] for kept in stack.received("dead")}) == 1


def test_a_watcher_wakes_its_dag(stack: Stack) -> None:
    """A DAG that is scheduled by changes runs when records change, and misses no change."""

    def first_run() -> bool:
        found = stack.airflow.api("/dags/watched/dagRuns?limit=50")["dag_runs"]
        return any(run["state"] == "success" for run in found)

    stack.unpause("watched")
    wait_for("the watcher's first call", first_run, 240)
    made = []
    for number in range(3):
        pricebook = {"NAME": f"e2e {number}", "DESCRIPTION": CANARY, "ACTIVE": True, "CURRENCY_CODE": "USD"}
        made.append(stack.crm("POST", "/Pricebook", pricebook)["PRICEBOOK_ID"])
        time.sleep(4)
    wait_for("all pricebooks", lambda: len(stack.received("watched")) >= 3, 240)
    stack.pause("watched")
    assert sorted(stack.received_ids("watched", "PRICEBOOK_ID")) == sorted(made)


@pytest.mark.on_sqlite
def test_a_task_group_in_ones_own_dag(stack: Stack) -> None:
    """The tasks are visible in the group, and the DAG's own task runs after them."""
    run_all(stack, "grouped")
    event = stack.crm(
        "POST",
        "/Events",
        {
            "TITLE": "e2e",
            "DETAILS": CANARY,
            "START_DATE_UTC": "2027-01-10 08:00:00",
            "END_DATE_UTC": "2027-01-10 09:00:00",
        },
    )
    runs = run_all(stack, "grouped")
    assert set(stack.tasks("grouped", runs["grouped"])) == {
        "in_a_group.detect",
        "in_a_group.evaluate",
        "in_a_group.build",
        "in_a_group.deliver",
        "afterwards",
    }
    assert stack.received_ids("grouped", "EVENT_ID") == [event["EVENT_ID"]]


def test_a_broken_file_breaks_its_own_dag_only(stack: Stack) -> None:
    """The other DAGs load and run. Airflow's import errors show the file, line and path."""
    dags = {dag["dag_id"]: dag for dag in stack.airflow.dags()}
    assert "broken" not in dags
    assert not dags["from_a_file"]["has_import_errors"]
    assert not dags["mode_created"]["has_import_errors"]

    def shown() -> dict[str, str]:
        found = stack.airflow.api("/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    # When Airflow looks for new files, it forgets what was wrong with those that are no DAG files.
    stack.parse("from_a_file")
    errors = wait_for("the import error", shown, 240)
    reasons = {
        "broken": "broken.yaml:5: webhooks[0].conn: not a key that is known here",
        "pipe": "pipe.yaml:1: it is a named pipe, not a file: rename it",
        "keys": "keys.yaml:1: name: it is missing\n",
        r"caf\xe9": r"caf\xe9.yaml:2: not YAML: did not find expected node content",
        "number": "number.yaml:4: criteria.value: a number beyond 64 bits can't be stored",
    }
    assert set(errors) == {f"folder/{name}.yaml" for name in reasons}
    for name, reason in reasons.items():
        assert errors[f"folder/{name}.yaml"].startswith(reason)  # no traceback before it
    assert errors["folder/keys.yaml"].rstrip().endswith("\nand 9983 more")
    stack.airflow.cli("dags", "reserialize")  # which stops at what can't be serialized
    run_all(stack, "from_a_file")


SECOND = """
name: Second from a file
record_type: Notes
schedule: null
webhooks: [{name: any, conn_id: receiver_second}]
"""


def test_a_second_workflow_begins_now_beside_an_idle_one(stack: Stack) -> None:
    """A workflow that is added to a folder does not take over another workflow's six-day-old position."""
    run_all(stack, "from_a_file")  # its first run, or a later one
    assets = stack.airflow.api("/assets?limit=200")["assets"]
    (asset,) = [one["id"] for one in assets if one["name"] == "insightly/insightly_default/Notes"]
    cursor = f"/assets/{asset}/state-store/{quote('cursor/from_a_file/detect', safe='')}"
    idle_since = iso_time((datetime.now(timezone.utc) - timedelta(days=6)).replace(microsecond=0))
    stack.airflow.api(cursor, "PUT", {"value": idle_since})
    days_ago = format_api_time(datetime.now(timezone.utc) - timedelta(days=2))
    times = {"DATE_CREATED_UTC": days_ago, "DATE_UPDATED_UTC": days_ago}
    note = stack.put_record("Notes", {"TITLE": "e2e", "BODY": CANARY, **times})["NOTE_ID"]

    Path(stack.airflow.env["AIRFLOW__CORE__DAGS_FOLDER"], "folder", "second.yaml").write_text(SECOND)
    stack.parse("from_a_file")
    stack.airflow.wait_for_dag("second_from_a_file")
    stack.unpause("second_from_a_file")
    run = run_all(stack, "second_from_a_file")["second_from_a_file"]
    assert stack.tasks("second_from_a_file", run)["detect"]["state"] == "skipped"
    log = stack.log("second_from_a_file", run, "detect")
    assert "Cursor 'second_from_a_file/detect' is new: changes are read from" in log
    assert f"from_a_file/detect (read to {idle_since})" in log
    assert stack.received("second") == []

    run = run_all(stack, "from_a_file")["from_a_file"]
    assert note in [change["record_id"] for change in stack.xcom("from_a_file", run, "detect")]


def test_a_receiver_that_was_down_gets_the_rest(stack: Stack, overlapping: Overlapping) -> None:
    """When it works again, the retry DAG sends the messages that later runs have left."""
    runs, leads = overlapping
    assert stack.wait_for_run("overlapping", runs[0], LATER + 240) == "success"  # its retry
    wait_for("the rest", lambda: set(leads) <= set(stack.received_ids("down", "LEAD_ID")), timeout=240)
    received = [kept["headers"]["webhook-id"] for kept in stack.received("down")]
    assert len(received) == len(set(received)) + 1 == 4  # the first one twice, the others once
    assert len(stack.received("up")) == 3

    def ended() -> list[dict[str, Any]]:
        found = stack.airflow.api("/dags/overlapping__retry/dagRuns")["dag_runs"]
        return found if all(run["state"] == "success" for run in found) else []

    retries = wait_for("the retry DAG's runs", ended, timeout=240)
    assert len(retries) == 3  # one for each of the two that left something, and one that sent it
    tasks = [stack.tasks("overlapping__retry", run["dag_run_id"]) for run in retries]
    assert sorted(of_run["deliver_down"]["state"] for of_run in tasks) == ["skipped", "skipped", "success"]
    assert all(of_run["deliver_up"]["state"] == "skipped" for of_run in tasks)


def test_what_is_pending_is_sent_at_its_time(stack: Stack, timed: Timed) -> None:
    """The record is read and checked again at that time, even after a restart of Airflow."""
    wait_for("what is pending", lambda: len(stack.received("timed")) > 1, LATER + 240)
    names_sent = sorted(body["entity"]["OPPORTUNITY_NAME"] for body in bodies(stack, "timed"))
    assert names_sent == ["e2e cancelled, later", "e2e sent, later"]

    def ended() -> list[dict[str, Any]]:
        found = stack.airflow.api(f"/dags/{PENDING}/dagRuns?limit=50")["dag_runs"]
        return found if all(run["state"] == "success" for run in found) else []

    not_sent = [
        (item["record_id"], item["reason"])
        for run in wait_for("the end of all runs", ended, 240)
        for item in _not_sent(stack, PENDING, run["dag_run_id"])
    ]
    assert sorted(not_sent) == sorted(
        [
            (timed.ids["lost"], "it no longer meets the criteria"),
            (timed.ids["deleted"], "the record is gone"),
        ]
    )
    assert len(stack.received("timed")) == 2


def _not_sent(stack: Stack, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/due/xcomEntries"
    keys = [entry["key"] for entry in stack.airflow.api(path)["xcom_entries"]]
    return stack.xcom(dag_id, run_id, "due", "not_sent") if "not_sent" in keys else []
