"""More promises of a deliver task: dead letters, resending, order, metrics, a short log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from standardwebhooks.webhooks import Webhook

from airflow_insightly_hooks.demo.airflow_stack import StackError, wait_for
from tests.e2e.conftest import SIGNING_SECRET, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # all runs are waited for by the first tests

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "dead-letters.md").read_text()
DAG_FILE = (Path(__file__).parent / "dags" / "deliveries.py").read_text()
BUSY = 300
"""Seconds to wait for runs that all go on at once."""
FAILURES = 10_000
DELAY = 2.0
"""Seconds that a receiver takes where order is looked at."""


class Runs(NamedTuple):
    """The runs that go on during the tests. Each test waits for its own run."""

    unharmed: str
    harmed: str
    whole: str
    part: str
    slow: str
    failing: str
    ten_thousand: str


@pytest.fixture(scope="module", autouse=True)
def runs(stack: Stack) -> Runs:
    """Start them."""
    stack.unpause("dead_letter_queue")
    stack.bin_answers("reporting", status=500, match='"CONTACT_ID":2,')
    unharmed, harmed = (
        stack.start_run("reports", receiver="receiver_reporting", payloads=payloads, chunks=chunks)
        for payloads, chunks in (
            ([[1, at(0)]], [[[3, at(0)]], [[4, at(0)]]]),
            ([[1, at(1)], [2, at(1)]], [[[5, at(1)]], [[2, at(2)]]]),
        )
    )
    stack.bin_answers("redelivered_in_part", status=500, match='"CONTACT_ID":2,')
    stack.bin_answers("in_order", delay=DELAY)
    stack.bin_answers("held_back", status=503, times=1, match='"CONTACT_ID":1,')
    stack.bin_answers("failing", status=500)
    payloads = [[record, at(0)] for record in (1, 2, 3)]
    changes = [[1, at(2)], [1, at(0)], [2, at(3)], [3, at(3)], [1, at(1)]]
    return Runs(
        unharmed,
        harmed,
        stack.start_run("redelivery", receiver="receiver_redelivered", payloads=payloads),
        stack.start_run("redelivery", receiver="receiver_redelivered_in_part", payloads=payloads),
        stack.start_run("in_order", receiver="receiver_in_order", payloads=changes),
        stack.start_run("in_order", receiver="receiver_held_back", payloads=changes),
        stack.start_run("ten_thousand"),
    )


def at(second: int) -> str:
    return f"2026-03-01T08:00:0{second}Z"


def record_ids(kept: list[dict[str, Any]]) -> list[int]:
    return [json.loads(one["body"])["entity"]["CONTACT_ID"] for one in kept]


def sorted_messages(kept: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return id and body of the messages that came, sorted."""
    return sorted((one["headers"]["webhook-id"], one["body"]) for one in kept)


def received_at(kept: dict[str, Any]) -> float:
    return datetime.fromisoformat(kept["received_at"].replace("Z", "+00:00")).timestamp()


# --- dead letters ----------------------------------------------------------------------------------------


def events_of(stack: Stack, run_id: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Return a run's asset events: the task that emitted it, its map index, the event's extra."""

    def listed() -> dict[str, Any] | None:
        # Airflow 3.3 answers 500 while a run that an event has created is still queued: it has no start date.
        with contextlib.suppress(StackError):
            return stack.airflow.api("/assets/events?source_dag_id=reports&limit=100")
        return None

    found = wait_for("the asset events", listed, BUSY)["asset_events"]
    return [
        (event["source_task_id"], event["source_map_index"], event["extra"])
        for event in found
        if event["source_run_id"] == run_id
    ]


def test_what_stays_undelivered_starts_a_dag_of_ones_own(stack: Stack, runs: Runs) -> None:
    """With ``undelivered_asset``, undelivered payloads make one event with the report, which starts a DAG."""
    example = DAG_FILE[
        DAG_FILE.index('with DAG("dead_letter_queue"') : DAG_FILE.index("    @task\n    def take_")
    ]
    assert example in PAGE
    assert stack.wait_for_run("reports", runs.unharmed, BUSY) == "success"
    assert stack.wait_for_run("reports", runs.harmed, BUSY) == "success"

    posts = [record for record in record_ids(stack.received("reporting")) if record == 2]
    assert len(posts) == 2 * 3  # by the plain task and by the mapped one, three times each
    assert stack.tasks("reports", runs.harmed)["deliver"]["try_number"] == 3
    assert events_of(stack, runs.unharmed) == []
    events = events_of(stack, runs.harmed)
    emitted = {(task, index): extra for task, index, extra in events}
    assert len(events) == 2
    assert emitted.keys() == {("deliver", -1), ("deliver_chunk", 1)}
    report = emitted["deliver", -1]
    assert report == stack.xcom("reports", runs.harmed, "deliver")
    assert (report["total"], report["delivered"], report["attempts"]) == (2, 1, 4)
    (item,) = report["undelivered"]
    assert (item["record_id"], item["status"], item["attempts"]) == (2, 500, 3)

    def taken() -> tuple[list[Any], list[Any]] | None:
        """Return the reports and triggers that the DAG's runs have seen, once a run has seen both reports."""
        ended = stack.airflow.api("/dags/dead_letter_queue/dagRuns")["dag_runs"]
        if not ended or any(run["state"] != "success" for run in ended):
            return None
        seen, triggering = (
            [stack.xcom("dead_letter_queue", run["dag_run_id"], task_id) for run in ended]
            for task_id in ("take", "take_what_triggered")
        )
        return (seen, triggering) if max(map(len, seen)) == 2 else None

    seen, triggering = wait_for("the DAG of dead letters", taken, BUSY)
    # Of two events that come together Airflow may hand over one only: the other waits for the next event.
    assert 1 <= sum(map(len, triggering)) <= 2
    assert all(reports and all(report in emitted.values() for report in reports) for reports in triggering)
    assert sorted(max(seen, key=len), key=str) == sorted(emitted.values(), key=str)


# --- sending again -------------------------------------------------------------------------------------


def deliveries(stack: Stack, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(stack.command("deliveries", "--dag-id", "redelivery", "-o", "json", *arguments))


def resend(stack: Stack, *arguments: str) -> dict[str, Any]:
    """Send messages of one task again, and wait for the end of its run. Return the command's output."""
    (result,) = json.loads(stack.command("resend", "--yes", "-o", "json", *arguments))
    assert stack.wait_for_run("redelivery", result["run_id"]) == "success"
    return result


@pytest.mark.scale
def test_messages_are_sent_again_in_one_step(stack: Stack, runs: Runs) -> None:
    """One command resends undelivered messages, a whole run or one message. A clear repeats no message."""
    whole, part = runs.whole, runs.part
    assert stack.wait_for_run("redelivery", whole, BUSY) == "success"
    assert stack.wait_for_run("redelivery", part, BUSY) == "failed"
    first = stack.received("redelivered")
    assert sorted(record_ids(first)) == [1, 2, 3]
    assert len(stack.received("redelivered_in_part")) == 3 + 2
    stack.clear("redelivery", whole, "deliver")
    assert stack.wait_for_run("redelivery", whole) == "success"
    assert len(stack.received("redelivered")) == 3

    in_part = ("--receiver", "receiver_redelivered_in_part")
    (undelivered,) = deliveries(stack, *in_part, "--state", "undelivered")
    assert (undelivered["record"], undelivered["status"], undelivered["attempts"]) == ("Contacts:2", 500, 3)
    assert {row["record"] for row in deliveries(stack, *in_part)} == {f"Contacts:{n}" for n in (1, 2, 3)}
    stack.bin_answers("redelivered_in_part")
    assert resend(stack, *in_part, "--since", "1h")["outcome"] == "cleared"
    assert record_ids(stack.received("redelivered_in_part")[5:]) == [2]
    attempts = deliveries(stack, *in_part, "--record", "2", "--attempts")
    assert [(row["state"], row["status"]) for row in attempts] == [
        ("delivered", 200),
        *[("delivered", 500)] * 2,
    ]

    assert resend(stack, "--dag-id", "redelivery", "--run-id", whole, "--state", "any")["messages"] == 3
    second = stack.received("redelivered")[3:]
    assert sorted_messages(second) == sorted_messages(first)
    of_third = next(one["headers"]["webhook-id"] for one in first if record_ids([one]) == [3])
    assert resend(stack, "--message", of_third, "--receiver", "receiver_redelivered")["messages"] == 1
    (third,) = stack.received("redelivered")[6:]
    assert sorted_messages([third]) == sorted_messages([one for one in first if record_ids([one]) == [3]])

    sent = [one for one in [*first, *second, third] if record_ids([one]) == [3]]
    stamps = [int(one["headers"]["webhook-timestamp"]) for one in sent]
    assert stamps == sorted(set(stamps))
    assert len({one["headers"]["webhook-signature"] for one in sent}) == 3
    for one in sent:
        Webhook(SIGNING_SECRET).verify(one["body"], one["headers"])
    logged = stack.airflow.api("/eventLogs?event=insightly_resend&dag_id=redelivery")["event_logs"]
    assert [json.loads(log["extra"])["messages"] for log in logged] == [1, 3, 1]
    assert all(log["owner"] and log["task_id"] == "deliver" for log in logged)


def test_a_new_run_over_the_same_window_redelivers(stack: Stack, started: datetime) -> None:
    """A new run sends all changes of the window that meet the criteria again, under the same ids."""
    for title in ("window one", "window two"):
        stack.add_task(title)
    runs = [
        stack.start_run_since(started, title, receiver="receiver_same_window")
        for title in ("window", "window", "window two")
    ]
    assert [stack.wait_for_run("change_to_webhook", run) for run in runs] == ["success"] * 3
    received = sorted_messages(stack.received("same_window"))
    assert len(received) == 5
    assert len(set(received)) == 2
    assert sum("window two" in body for _, body in received) == 3


# --- order -----------------------------------------------------------------------------------------------


def test_ordered_deliveries_keep_each_records_order(stack: Stack, runs: Runs) -> None:
    """A record's changes go in order, one at a time, beside other records'. After a failure they wait."""
    assert stack.wait_for_run("in_order", runs.slow, BUSY) == "success"
    assert stack.wait_for_run("in_order", runs.failing, BUSY) == "success"

    received = stack.received("in_order")
    ones = [kept for kept in received if record_ids([kept]) == [1]]
    assert [json.loads(kept["body"])["entity"]["AT"] for kept in ones] == [at(n) for n in (0, 1, 2)]
    times = [received_at(kept) for kept in ones]
    assert all(later - earlier >= DELAY for earlier, later in pairwise(times))
    others = [received_at(kept) for kept in received if record_ids([kept]) != [1]]
    assert max(others) < times[1]  # they didn't wait for the first record

    received = stack.received("held_back")
    assert sorted(record_ids(received[:3])) == [1, 2, 3]
    assert sorted(kept["acknowledged_with"] for kept in received[:3]) == [200, 200, 503]
    assert [json.loads(kept["body"])["entity"]["AT"] for kept in received[3:]] == [at(n) for n in (0, 1, 2)]
    assert stack.tasks("in_order", runs.failing)["deliver"]["try_number"] == 2
    log = stack.log("in_order", runs.failing, "deliver", 1)
    assert "an earlier change of the same record is undelivered" in log


# --- metrics ---------------------------------------------------------------------------------------------


def test_a_killed_task_counts_what_is_in_doubt(stack: Stack) -> None:
    """After a kill -9 in mid-POST the retry sends the messages in doubt, and counts them in a metric."""
    stack.bin_answers("hangs", delay=15, match='"CONTACT_ID":2,')
    run = stack.start_run("interrupted", payloads=[[1, at(0)], [2, at(0)]])
    wait_for("two POSTs", lambda: len(stack.received("hangs")) == 2, 240)
    time.sleep(2)  # the first one's acknowledgement is recorded within a second
    os.kill(stack.tasks("interrupted", run)["deliver"]["pid"], signal.SIGKILL)
    stack.bin_answers("hangs")
    assert stack.wait_for_run("interrupted", run) == "success"

    assert sorted(record_ids(stack.received("hangs"))) == [1, 2, 2]
    assert stack.xcom("interrupted", run, "deliver")["attempts"] == 3

    def exported() -> dict[str, Any] | None:
        metrics = stack.collector.of_task("interrupted", "deliver")
        return metrics if "insightly_webhook.in_doubt" in metrics else None

    metrics = wait_for("the metrics", exported, 120)
    totals = {name.removeprefix("insightly_webhook."): metric.total for name, metric in metrics.items()}
    latency = totals.pop("latency")
    # What the killed try has counted is lost with it.
    assert totals == {"in_doubt": 1, "attempts": 1, "delivered": 1}
    assert 0 < latency < 15_000


def test_metrics_count_what_each_try_has_done(stack: Stack, runs: Runs) -> None:
    """Airflow's metrics hold each try's deliveries, POSTs, undelivered messages and latencies."""
    for run in (runs.unharmed, runs.harmed):
        assert stack.wait_for_run("reports", run) == "success"

    def exported() -> dict[str, Any] | None:
        metrics = stack.collector.of_task("reports", "deliver")
        return metrics if metrics.get("insightly_webhook.undelivered", (0,))[0] >= 3 else None

    metrics = wait_for("the metrics", exported, 120)
    latency = metrics.pop("insightly_webhook.latency")
    totals = {name: metric.total for name, metric in metrics.items()}
    assert totals == {
        "insightly_webhook.delivered": 2,
        "insightly_webhook.attempts": 5,
        "insightly_webhook.undelivered": 3,  # one, at the end of each of three tries
    }
    assert latency.count == 5
    assert latency.total > 0


# --- the log ---------------------------------------------------------------------------------------------


def test_ten_thousand_failures_make_a_short_log(stack: Stack, runs: Runs) -> None:
    """10,000 failures make about 20 warnings, progress, a table by kind, and a report below 48 KB."""
    assert stack.wait_for_run("ten_thousand", runs.ten_thousand, BUSY) == "failed"

    log = stack.log("ten_thousand", runs.ten_thousand, "deliver")
    events = [str(entry["event"]) for entry in json.loads(log)["content"]]
    assert len(events) < 100
    assert len(log) < 60_000
    assert sum("was not acknowledged" in event for event in events) == 20
    report = stack.xcom("ten_thousand", runs.ten_thousand, "deliver")
    assert len(json.dumps(report)) < 48_000
    assert (report["total"], report["delivered"], report["attempts"]) == (FAILURES, 0, FAILURES)
    assert (len(report["undelivered"]), report["undelivered_count"]) == (200, FAILURES)
    progress = re.compile(
        r"\d+ of 10,000 payloads sent, 0 acknowledged, \d+ failing, [\d.]+/s, about \d+ s left"
    )
    seconds = received_span(report)
    shown = [event for event in events if progress.fullmatch(event)]
    assert len(shown) >= seconds // 10 >= 1, (seconds, events)
    (table,) = [event for event in events if event.startswith("Not acknowledged, by kind:")]
    assert table.split("\n")[1:] == ["    10000  answered 500"]


def received_span(report: dict[str, Any]) -> float:
    started, ended = (
        datetime.fromisoformat(report[name].replace("Z", "+00:00")) for name in ("started_at", "ended_at")
    )
    return (ended - started).total_seconds()
