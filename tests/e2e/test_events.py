"""DAGs that record changes wake, on a real Airflow. Each change comes once to each DAG in every case."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import requests

from airflow_insightly_hooks.demo.airflow_stack import wait_for
from tests.e2e.conftest import CANARY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WOKEN = ("woken_first", "woken_second", "woken_rarely")
ALONE = ("woken_alone", "woken_beside")
SEARCH = "/v3.1/{}/Search"
HALTED = 6.0
"""Seconds for which the API doesn't answer, where it is looked at whether the triggerer goes on."""
SOON = 240.0
"""Seconds within which a run comes and ends, even where the machine is busy."""
_RETURNED: dict[tuple[str, str, str], list[int]] = {}
"""What runs that have ended have returned, by Airflow, DAG and run: it is asked for again and again."""


class Added:
    """The records that a test adds, and how often each DAG has found them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.added: list[int] = []

    def found(self, dag_id: str) -> Counter[int]:
        return found(self.stack, dag_id)

    def wait_until_found(self, *dag_ids: str) -> None:
        """Wait until each DAG has found all records and no run is active. No DAG may have found one twice."""
        for dag_id in dag_ids:
            wait_for(
                f"all changes in {dag_id}", lambda d=dag_id: set(self.added) <= set(self.found(d)), SOON, 1
            )
            assert self.found(dag_id) == Counter(self.added), dag_id


class Tickets(Added):
    def add(self, count: int = 1) -> None:
        for _ in range(count):
            made = self.stack.put_record("Ticket", {"TITLE": CANARY})
            self.added.append(made["TICKET_ID"])


class Milestones(Added):
    def add(self, seconds_ago: float = 0) -> int:
        """Add a record with a time of creation in the past. Return its id."""
        created = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
        times = {"DATE_CREATED_UTC": created.strftime("%Y-%m-%d %H:%M:%S")} if seconds_ago else {}
        made: int = self.stack.put_record("Milestones", {"TITLE": CANARY, **times})["MILESTONE_ID"]
        self.added.append(made)
        return made


def runs(stack: Stack, dag_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.airflow.api(f"/dags/{dag_id}/dagRuns?limit=100&order_by=run_after")[
        "dag_runs"
    ]
    assert not [run["dag_run_id"] for run in found if run["state"] == "failed"]
    return found


def found(stack: Stack, dag_id: str) -> Counter[int]:
    """Return how often a DAG's runs have returned each record."""
    counted: Counter[int] = Counter()
    for run in runs(stack, dag_id):
        key = stack.airflow.url, dag_id, run["dag_run_id"]
        if (records := _RETURNED.get(key)) is None:
            records = returned(stack, dag_id, run["dag_run_id"])
            if run["state"] == "success":  # it returns no others
                _RETURNED[key] = records
        counted.update(records)
    return counted


def returned(stack: Stack, dag_id: str, run_id: str) -> list[int]:
    """Return the ids of the records that a run has returned so far."""
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/detect/xcomEntries"
    entries = stack.airflow.api(path)["xcom_entries"]
    if not any(entry["key"] == "return_value" for entry in entries):
        return []
    return [change["record_id"] for change in stack.xcom(dag_id, run_id, "detect")]


def searches(stack: Stack, record_type: str = "Ticket") -> int:
    counts = requests.get(f"{stack.sandbox}/_sandbox", timeout=10).json()["requests"]
    return int(counts.get(f"GET {SEARCH.format(record_type)}", 0))


def count_searches(stack: Stack, seconds: float, record_type: str = "Ticket") -> tuple[int, float]:
    """Count searches for some seconds, or until there are two. Return their number and the time it took."""
    before, began = searches(stack, record_type), time.monotonic()
    time.sleep(seconds)
    wait_for("two polls", lambda: searches(stack, record_type) >= before + 2, SOON)
    # The time first: what comes between the two calls is counted, and not its time.
    took = time.monotonic() - began
    return searches(stack, record_type) - before, took


def begin(stack: Stack, *dag_ids: str) -> None:
    """Unpause DAGs, which starts their watchers. Wait for their first runs, which store where they begin."""
    for dag_id in dag_ids:
        stack.airflow.wait_for_dag(dag_id)
        stack.unpause(dag_id)
    for dag_id in dag_ids:
        wait_for(
            f"the first run of {dag_id}",
            lambda d=dag_id: any(run["state"] == "success" for run in runs(stack, d)),
            SOON,
        )
    time.sleep(1.1)


@pytest.fixture(scope="module")
def tickets(stack: Stack) -> Iterator[Tickets]:
    """Three DAGs that wait for tickets. Two of them share a watcher."""
    enough = {"requests_per_day": 10**9}  # else the polls would be spaced out, to make the day's last
    requests.put(f"{stack.sandbox}/_sandbox", json=enough, timeout=10).raise_for_status()
    begin(stack, *WOKEN)
    yield Tickets(stack)
    stack.pause(*WOKEN)


def test_bursts_and_quiet(stack: Stack, tickets: Tickets) -> None:
    """A burst's changes come once to each of three DAGs. In quiet times they share one poll an interval."""
    for _ in range(3):
        tickets.add(4)
        time.sleep(1.3)
    tickets.wait_until_found(*WOKEN)
    wait_for("the last runs' end", lambda: not _unfinished(stack), SOON)
    count, seconds = count_searches(stack, 12)
    # One a second, not two and a half; and those of a run more: a second that was seen in part has its rest
    # taken for late.
    assert count <= seconds + 10


def test_an_api_that_is_down_is_not_hammered_and_ends_no_watcher(stack: Stack, tickets: Tickets) -> None:
    """During a few seconds of 503, requests are seconds apart. Then the changes are found, once."""
    watchers = _watchers(stack)
    fault = {"path": SEARCH.format("Ticket"), "status": 503, "times": None, "retry_after": None}
    requests.put(f"{stack.sandbox}/_sandbox", json={"fault": fault}, timeout=10).raise_for_status()
    try:
        tickets.add(2)
        count, seconds = count_searches(stack, 10)
        assert count <= seconds + 3
    finally:
        requests.put(f"{stack.sandbox}/_sandbox", json={"fault": None}, timeout=10).raise_for_status()
    tickets.wait_until_found(*WOKEN)
    assert _watchers(stack) == watchers


def test_an_event_that_airflow_loses_is_said_again(stack: Stack, tickets: Tickets) -> None:
    """A DAG whose queued event is deleted from the database is woken again, and no other DAG is."""
    address = stack.database.replace("+psycopg2", "")
    end = time.monotonic() + SOON
    with contextlib.closing(psycopg2.connect(address)) as database, database.cursor() as cursor:
        database.autocommit = True
        tickets.add()
        lost = 0
        while time.monotonic() < end:
            cursor.execute("DELETE FROM asset_dag_run_queue WHERE target_dag_id = 'woken_first'")
            if cursor.rowcount and not lost:
                end = time.monotonic() + 3
            lost += cursor.rowcount
            time.sleep(0.02)
    assert lost
    tickets.wait_until_found(*WOKEN)


def test_a_dag_that_was_paused_is_woken_for_what_came_meanwhile(stack: Stack, tickets: Tickets) -> None:
    """Airflow keeps no event for a paused DAG. The DAG reads the missed changes without a new one."""
    stack.pause("woken_second")
    tickets.add(2)
    tickets.wait_until_found("woken_first", "woken_rarely")
    stack.unpause("woken_second")
    tickets.wait_until_found(*WOKEN)


def test_a_lost_cursor_is_where_the_last_run_ended(stack: Stack, tickets: Tickets) -> None:
    """If Airflow has deleted the cursor, the DAG goes on from the end of the last run's window."""
    tickets.wait_until_found(*WOKEN)
    wait_for("the last runs' end", lambda: not _unfinished(stack), SOON)
    key = "cursor/woken_first/detect"
    (asset,) = [
        asset
        for asset in stack.airflow.api("/assets?limit=500")["assets"]
        if asset["name"] == "insightly/insightly_default/Ticket"
    ]
    stack.airflow.api(f"/assets/{asset['id']}/state-store/{key}", "DELETE")
    tickets.add()
    tickets.wait_until_found(*WOKEN)


def test_a_killed_triggerer_loses_nothing(stack: Stack, tickets: Tickets) -> None:
    """After a kill in the middle of a change, all changes come once when a triggerer runs again."""
    processes = stack.airflow.processes
    tickets.add()
    os.killpg(processes.pid("triggerer"), signal.SIGKILL)
    try:
        processes.stop("triggerer")
        tickets.add(2)
        time.sleep(3)
    finally:
        stack.airflow.start("triggerer")
    tickets.wait_until_found(*WOKEN)


def test_a_dag_that_is_edited_and_renamed_between_two_polls_goes_on(stack: Stack, tickets: Tickets) -> None:
    """First its interval is edited, then its name, with the old cursor. Changes meanwhile are found once."""
    begin(stack, "woken_to_be_renamed")
    file = Path(stack.airflow.env["AIRFLOW__CORE__DAGS_FOLDER"], "events.py")
    text = file.read_text()
    added = [stack.put_record("Product", {"PRODUCT_NAME": CANARY})["PRODUCT_ID"]]
    # Another interval is another asset, and another watcher.
    edited = text.replace('"Product", poll_interval=1', '"Product", poll_interval=2')
    file.write_text(edited)
    stack.parse("woken_to_be_renamed")
    added.append(stack.put_record("Product", {"PRODUCT_NAME": CANARY})["PRODUCT_ID"])
    wait_for("both", lambda: set(added) <= set(found(stack, "woken_to_be_renamed")), SOON, 1)
    wait_for("the last run's end", lambda: not _unfinished(stack, "woken_to_be_renamed"), SOON)

    stack.pause("woken_to_be_renamed")  # it is renamed while nothing of it runs
    renamed = edited.replace("woken_to_be_renamed", "woken_renamed")
    old_cursor = 'poll_interval=2, cursor="woken_to_be_renamed/detect"'
    file.write_text(renamed.replace('"Product", poll_interval=2', f'"Product", {old_cursor}'))
    added.append(stack.put_record("Product", {"PRODUCT_NAME": CANARY})["PRODUCT_ID"])
    stack.parse("woken_first")
    begin(stack, "woken_renamed")
    added.append(stack.put_record("Product", {"PRODUCT_NAME": CANARY})["PRODUCT_ID"])

    def both() -> Counter[int]:
        return found(stack, "woken_to_be_renamed") + found(stack, "woken_renamed")

    try:
        wait_for("all", lambda: set(added) <= set(both()), SOON, 1)
        assert both() == Counter(added)
    finally:
        stack.pause("woken_renamed")


@pytest.fixture(scope="module")
def milestones(stack: Stack, tickets: Tickets) -> Iterator[Milestones]:
    """Two DAGs that wait for milestones, each with its own watcher."""
    begin(stack, *ALONE)
    yield Milestones(stack)
    stack.pause(*ALONE)


@pytest.mark.parametrize("length", ["short", "long"])
def test_a_paused_dag_wakes_no_other_and_reads_soon_what_it_missed(
    stack: Stack, milestones: Milestones, length: str
) -> None:
    """While one DAG is paused, only the other DAG runs. When it is unpaused, it has a run by itself.

    In a long pause Airflow ends its watcher and later starts it again. In a short pause the watcher goes on.
    """
    milestones.wait_until_found(*ALONE)
    wait_for("the last runs' end", lambda: not _unfinished(stack, *ALONE), SOON)
    watched = len(_watchers(stack))
    stack.pause("woken_beside")
    try:
        if length == "long":
            stack.parse("woken_beside")
            wait_for("the watcher's end", lambda: len(_watchers(stack)) < watched, SOON)
        milestones.add()
        milestones.wait_until_found("woken_alone")
        awake, paused = len(runs(stack, "woken_alone")), len(runs(stack, "woken_beside"))
        polls = searches(stack, "Milestones")
        time.sleep(10)
        wait_for("four polls", lambda: searches(stack, "Milestones") >= polls + 4, SOON)
        # One run more: a second that was seen in part has its rest taken for late.
        assert len(runs(stack, "woken_alone")) <= awake + 1
    finally:
        stack.unpause("woken_beside")
    wait_for("a run", lambda: len(runs(stack, "woken_beside")) > paused, SOON)
    milestones.wait_until_found(*ALONE)


def test_what_becomes_visible_late_wakes_dags(stack: Stack, milestones: Milestones) -> None:
    """A record that shows up after its time was read is found at once, without another change."""
    milestones.wait_until_found(*ALONE)
    time.sleep(5)
    milestones.add(seconds_ago=60)
    milestones.wait_until_found(*ALONE)


def test_a_new_dag_begins_when_it_is_unpaused(stack: Stack, milestones: Milestones) -> None:
    """Its first window begins then, not when Airflow starts its watcher. Older records are not found."""
    milestones.add()
    time.sleep(8)
    stack.unpause("woken_at_last")
    made = milestones.add()
    wait_for("a run", lambda: any(run["state"] == "success" for run in runs(stack, "woken_at_last")), SOON)
    wait_for("what was made", lambda: found(stack, "woken_at_last"), SOON, 1)
    stack.pause("woken_at_last")
    assert found(stack, "woken_at_last") == Counter([made])
    first = next(run for run in runs(stack, "woken_at_last") if run["run_type"] == "scheduled")
    assert "'woken_at_last/detect' is new: changes are read from" in stack.log(
        "woken_at_last", first["dag_run_id"], "detect"
    )


def test_the_triggerer_was_never_blocked(stack: Stack, tickets: Tickets) -> None:
    """No trigger has blocked its loop or failed, and no event holds contents of a record."""
    before = searches(stack)
    sandbox = stack.airflow.processes.pid("sandbox")
    os.kill(sandbox, signal.SIGSTOP)  # whoever asks now waits
    try:
        time.sleep(HALTED)
    finally:
        os.kill(sandbox, signal.SIGCONT)
    wait_for("a poll", lambda: searches(stack) > before + 1, SOON)
    log = Path(stack.airflow.home, "triggerer.log").read_text(errors="replace")
    assert tickets.added
    blocked = [float(seconds) for seconds in re.findall(r"was blocked for ([\d.]+) seconds", log)]
    # A busy machine, and Airflow while it starts, hold it up for some tenths.
    assert max(blocked, default=0.0) < HALTED / 2
    assert "Shared stream poll failed" not in log
    assert "Trigger failed" not in log
    assert CANARY not in log


def _unfinished(stack: Stack, *dag_ids: str) -> int:
    return sum(
        stack.airflow.api(f"/dags/{dag_id}/dagRuns?state=running&state=queued")["total_entries"]
        for dag_id in dag_ids or WOKEN
    )


def _watchers(stack: Stack) -> list[Any]:
    """Return Airflow's rows of the watchers of tickets. A watcher that ends gets a new row."""
    address = stack.database.replace("+psycopg2", "")
    with contextlib.closing(psycopg2.connect(address)) as database, database.cursor() as cursor:
        cursor.execute(
            "SELECT id, created_date FROM trigger WHERE classpath LIKE '%%EventTrigger' ORDER BY id"
        )
        return cursor.fetchall()
