"""Windows, modes and connections of the detect task, on a real Airflow."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from airflow_insightly_hooks.core.dates import api_time
from airflow_insightly_hooks.demo.airflow_stack import StackError, wait_for
from tests.e2e.conftest import API_KEY, CANARY, PASSWORD, USERNAME, WRONG_KEY, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_refused_key_fails_at_once_and_names_the_connection(stack: Stack, started: datetime) -> None:
    """401 from the API -> the task fails without a retry, names the connection, and shows no key.

    This holds in every mode, and with ``soft_fail``.
    """
    run = stack.start_run_since(started, "any", dag_id="wrong_key")
    assert stack.wait_for_run("wrong_key", run) == "failed"

    tasks = stack.tasks("wrong_key", run)
    assert {task_id: (task["state"], task["try_number"]) for task_id, task in tasks.items()} == dict.fromkeys(
        ("detect", "soft_poke", "soft_reschedule", "soft_deferred"), ("failed", 1)
    )
    log = stack.log("wrong_key", run, "detect")
    assert "connection 'insightly_wrong_key'" in log
    assert "refuses the API key (401)" in log
    assert WRONG_KEY not in log


def test_all_modes_give_the_same(stack: Stack, started: datetime) -> None:
    """poke, reschedule and deferrable return the same changes."""
    made = [stack.add_task(f"mode {i}")["TASK_ID"] for i in range(3)]
    run = stack.start_run_since(started, "mode", dag_id="poke_and_deferrable")
    assert stack.wait_for_run("poke_and_deferrable", run) == "success"
    found = {
        mode: stack.xcom("poke_and_deferrable", run, mode) for mode in ("poke", "reschedule", "deferred")
    }
    assert found["poke"] == found["reschedule"] == found["deferred"]
    assert set(made) <= {change["record_id"] for change in found["poke"]}


def test_a_waiting_sensor_holds_no_slot_and_returns_the_first_change(stack: Stack) -> None:
    """``on_empty="wait"`` stays deferred until a record is added, then returns it and nothing older.

    While deferred, it takes no worker slot.
    """
    stack.add_task("before the first run")
    time.sleep(3)  # the run begins to watch a second (settle) before its start
    run = stack.start_run("waits_for_a_change")
    task = "detect"

    def deferred() -> bool:
        return stack.tasks("waits_for_a_change", run)[task]["state"] == "deferred"

    wait_for("the deferred sensor", deferred, 240)
    pool = stack.airflow.api("/pools/default_pool")
    assert pool["deferred_slots"] >= 1
    assert pool["include_deferred"] is False  # what is deferred takes none of its slots
    made = stack.add_task("what is waited for")
    assert stack.wait_for_run("waits_for_a_change", run) == "success"
    (change,) = stack.xcom("waits_for_a_change", run, task)
    assert (change["record_id"], change["event"]) == (made["TASK_ID"], "added")


def test_a_backfill_reads_every_change_in_exactly_its_interval(stack: Stack) -> None:
    """A backfill of four past intervals finds each change in its own interval only."""
    base = datetime(2024, 3, 5, 10, tzinfo=timezone.utc)
    # One at each edge, one in the middle, one before and one after all of them.
    minutes = (-1, 0, 30, 60, 119, 120, 210, 239, 240)
    made = {}
    for minute in minutes:
        created = base + timedelta(minutes=minute)
        text = created.strftime("%Y-%m-%d %H:%M:%S")
        record = {"SUBJECT": CANARY, "OWNER_USER_ID": 999308, "DATE_CREATED_UTC": text}
        made[stack.put_record("Emails", record)["EMAIL_ID"]] = minute
    last = base + timedelta(hours=3)
    stack.unpause("hourly")
    stack.airflow.cli(
        "backfill",
        "create",
        "--dag-id",
        "hourly",
        "--from-date",
        base.isoformat(),
        "--to-date",
        last.isoformat(),
    )

    def backfilled() -> list[dict]:
        runs = stack.airflow.api("/dags/hourly/dagRuns?run_type=backfill&limit=50")["dag_runs"]
        return runs if len(runs) == 4 and all(run["state"] == "success" for run in runs) else []

    runs = wait_for("the backfill's four runs", backfilled, 240)
    found = {}
    for run in runs:
        start = api_time(run["data_interval_start"])
        changes = stack.xcom("hourly", run["dag_run_id"], "detect")
        found[start] = sorted(made[change["record_id"]] for change in changes)
    stack.pause("hourly")
    hour = timedelta(hours=1)
    assert found == {
        base: [0, 30],
        base + hour: [60, 119],
        base + 2 * hour: [120],
        base + 3 * hour: [210, 239],
    }
    assert sorted(stack.received_ids("hourly", "EMAIL_ID")) == sorted(
        i for i, m in made.items() if 0 <= m < 240
    )


@pytest.mark.on_sqlite
def test_runs_without_interval_go_on_from_where_the_last_one_ended(stack: Stack) -> None:
    """Scheduled runs without an interval: their windows adjoin, and each change comes once."""
    stack.unpause("every_few_seconds")

    def runs() -> list[dict]:
        found = stack.airflow.api("/dags/every_few_seconds/dagRuns?limit=100&order_by=run_after")["dag_runs"]
        return [run for run in found if run["state"] == "success"]

    wait_for("the first run", runs, 240)
    made = []
    for i in range(6):
        contact = stack.crm("GET", "/Contacts?top=1")[0]["CONTACT_ID"]
        note = {"TITLE": f"note {i}", "BODY": CANARY}
        made.append(stack.crm("POST", f"/Contacts/{contact}/Notes", note)["NOTE_ID"])
        time.sleep(3)
    wait_for("all notes", lambda: len(stack.received("cursor")) >= len(made), 240)
    so_far = len(runs())
    wait_for("two further runs", lambda: len(runs()) >= so_far + 2, 240)
    # What has ended is compared while the DAG runs on: of a paused one Airflow starts nothing more, so that a
    # run which is queued, or between two tasks, does not end.
    windows = [stack.xcom("every_few_seconds", run["dag_run_id"], "detect", "window") for run in runs()]
    stack.pause("every_few_seconds")

    assert sorted(stack.received_ids("cursor", "NOTE_ID")) == made
    assert len(windows) >= 3
    assert [w["end"] for w in windows[:-1]] == [w["start"] for w in windows[1:]]


def test_a_connection_means_the_same_as_uri_as_json_and_through_the_form(
    stack: Stack, started: datetime
) -> None:
    """A connection as URI, as JSON or from the form makes the same requests with the same credentials."""
    host, port = stack.sandbox.removeprefix("http://").split(":")
    form = {"host": host, "port": int(port), "schema": "http"}
    for connection in (
        {
            "connection_id": "insightly_form",
            "conn_type": "insightly",
            **form,
            "password": API_KEY,
            "extra": '{"api_version": "v3.1", "timeout": 20, "requests_per_second": 10}',
        },
        {
            "connection_id": "receiver_form",
            "conn_type": "insightly_webhook",
            **form,
            "login": USERNAME,
            "password": PASSWORD,
            "extra": '{"path": "/bin/form", "timeout": 20, "verify": "true", "headers": null, "web_url": ""}',
        },
    ):
        stack.airflow.api("/connections", "POST", connection)
    stack.add_task("form one")
    run = stack.start_run_since(started, "form one", dag_id="connection_forms")
    assert stack.wait_for_run("connection_forms", run) == "success"

    seen = []
    for name in ("uri", "json", "form"):
        (kept,) = stack.received(name)
        ours = {"webhook-timestamp", "user-agent"}
        seen.append(
            (kept["username"], kept["body"], {k: v for k, v in kept["headers"].items() if k not in ours})
        )
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == USERNAME


def test_the_test_button_says_what_is_wrong(stack: Stack) -> None:
    """The connection form's button tells success, unknown host, refused key and wrong path apart."""

    def press(**connection: object) -> tuple[bool, str]:
        body = {"connection_id": "pressed", **connection}
        answer = stack.airflow.api("/connections/test", "POST", body)
        return answer["status"], answer["message"]

    host = f"{stack.sandbox}/v3.1"
    assert press(conn_type="insightly", host=host, password=API_KEY)[0] is True
    ok, text = press(conn_type="insightly", host=host, password=WRONG_KEY)
    assert not ok
    assert "refuses the API key (401)" in text
    assert WRONG_KEY not in text
    ok, text = press(conn_type="insightly", host="nosuchpod", password=API_KEY)
    assert not ok
    assert "api.nosuchpod.insightly.com" in text
    assert "there is no such host; is the pod right?" in text
    receiver = {"conn_type": "insightly_webhook", "host": f"{stack.sandbox}/bin/form", "login": USERNAME}
    ok, text = press(**receiver, password="another")
    assert not ok
    assert "401" in text
    assert "check login and password" in text
    ok, text = press(conn_type="insightly", host="http://crm.example.com/v3.1", password=API_KEY)
    assert not ok
    assert text.startswith("this connection, host: plain http")  # Airflow tests under an id that it makes up


def test_the_list_of_connections_tests_one_with_port_0(stack: Stack) -> None:
    """Airflow's list tests a connection only if it has a port. Port 0 is enough; the command needs none."""
    host = f"{stack.sandbox}/v3.1"
    stored = {"connection_id": "insightly_listed", "conn_type": "insightly", "host": host}
    stack.airflow.api("/connections", "POST", {**stored, "password": API_KEY})
    shown = stack.airflow.api("/connections/insightly_listed")
    # What the button in the list sends: what is shown, with texts for what is empty, and 0 for no port.
    sent = {**stored, "login": "", "schema": "", "extra": shown["extra"] or "{}", "port": shown["port"] or 0}
    sent["password"] = shown["password"] or ""
    with pytest.raises(StackError, match="with 400"):
        stack.airflow.api("/connections/test", "POST", sent)
    assert "Connection success!" in stack.airflow.cli("connections", "test", "insightly_listed")
    stack.airflow.api("/connections/insightly_listed?update_mask=port", "PATCH", {**stored, "port": 0})
    assert stack.airflow.api("/connections/test", "POST", sent)["status"] is True
    receiver = {
        "connection_id": "receiver_listed",
        "conn_type": "insightly_webhook",
        "host": stack.sandbox.removeprefix("http://").partition(":")[0],
        "schema": "http",
        "port": 0,
    }
    stack.airflow.api("/connections", "POST", receiver)
    answer = stack.airflow.api("/connections/test", "POST", receiver)
    assert answer["message"].startswith("http://127.0.0.1: ")  # 0 is no port: the scheme's own was asked


def test_the_example_dags_run_unchanged(stack: Stack) -> None:
    """Both example DAGs deliver: the help page's task, and a contact of the region to two receivers."""
    first = stack.start_run("contacts_in_region")
    stack.wait_for_run("contacts_in_region", first)  # from its end on, changes are watched
    stack.unpause("new_task_webhook")

    def watches() -> bool:
        """Return whether a run has read, has found no change, and waits."""
        path = "/dags/new_task_webhook/dagRuns/~/taskInstances?state=deferred"
        return bool(stack.airflow.api(path)["total_entries"])

    wait_for("a run that watches", watches, 240)
    task = stack.add_task("for the example")
    people = {
        country: stack.crm("POST", "/Contacts", {"FIRST_NAME": CANARY, "ADDRESS_MAIL_COUNTRY": country})
        for country in ("France", "Germany")
    }
    time.sleep(7)  # settle, 5 s in the examples
    run = stack.start_run("contacts_in_region")
    assert stack.wait_for_run("contacts_in_region", run) == "success"
    wait_for(
        "the task's webhook",
        lambda: any(f'"TASK_ID":{task["TASK_ID"]}' in kept["body"] for kept in stack.received("example")),
        240,
    )
    stack.pause("new_task_webhook", "contacts_in_region")  # else they would run beside all other tests
    bodies = [kept["body"] for kept in stack.received("example")]
    assert sum(f'"CONTACT_ID":{people["France"]["CONTACT_ID"]},' in body for body in bodies) == 2
    assert not any(f'"CONTACT_ID":{people["Germany"]["CONTACT_ID"]},' in body for body in bodies)
    tasks = stack.tasks("contacts_in_region", run)
    delivered = [tasks[f"deliver_to_{receiver}"] for receiver in ("billing", "newsletter")]
    assert [(task["state"], task["try_number"]) for task in delivered] == [("success", 1)] * 2
