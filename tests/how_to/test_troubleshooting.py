"""docs/how-to/troubleshooting.md: commands, errors and logs have each text that it quotes."""

from __future__ import annotations

import inspect
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowNotFoundException
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time import supervisor
from airflow.utils.file import might_contain_dag

from airflow_insightly_hooks.core.errors import IncompleteScan, InvalidConnection, LostCursor
from airflow_insightly_hooks.hooks.api.api_errors import InsightlyAccessError, InsightlyRateLimitError
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.operators.criteria import EvaluateCriteriaOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from airflow_insightly_hooks.sensors.record_change import InsightlyRecordChangeSensor
from airflow_insightly_hooks.ui import app
from airflow_insightly_hooks.ui.problems import Forbidden
from tests.cli.conftest import Command, command  # noqa: F401 — a fixture
from tests.conftest import Connect, Logged, TaskInstance, ended, run_context
from tests.how_to.pages import Page
from tests.servers import answer, serving

PAGE = Page("troubleshooting.md")
ROWS = {row.split(" | ")[0].strip("| ") for row in PAGE.text.splitlines() if row.startswith("| ")}
"""The first cell of each row of the page's tables."""
KEY = "key-of-the-account"


def named(text: str) -> bool:
    """Return whether a row of the page quotes a text."""
    return f"`{text}`" in ROWS


def test_no_block_is_without_a_test() -> None:
    """test_commands.py runs the commands, tests below run other blocks. One was tried by hand, with curl."""
    assert PAGE.kinds().count("") == 5
    assert [code.split()[0] for kind, code in PAGE.blocks if kind == "bash"].count("curl") == 2


@pytest.mark.parametrize(
    ("conn_id", "fields"),
    [
        ("insightly_default", {"host": "na1"}),
        ("insightly_default", {"host": "na 1", "password": KEY}),
        ("insightly_default", {"host": "https://api.na1.insightly.com", "schema": "https", "password": KEY}),
        ("insightly_default", {"host": "http://api.na1.insightly.com", "password": KEY}),
        ("billing_webhook", {}),
        ("billing_webhook", {"host": "https://u:password@example.com", "login": "u", "password": KEY}),
        ("billing_webhook", {"host": "http://example.com", "login": "u", "password": KEY}),
        ("billing_webhook", {"host": "https://example.com", "extra": {"time_out": 3}}),
        ("billing_webhook", {"host": "https://example.com", "extra": {"signing_secret": "no secret"}}),
    ],
)
def test_invalid_connections(connect: Connect, conn_id: str, fields: dict[str, Any]) -> None:
    """Each text is the error of a connection with that mistake."""
    conn_type = {"insightly_default": "insightly", "billing_webhook": "insightly_webhook"}[conn_id]
    connect(conn_id, conn_type, **fields)
    with pytest.raises(InvalidConnection) as raised:
        InsightlyHook().account_name() if conn_type == "insightly" else WebhookHook(conn_id).get_conn()
    assert named(str(raised.value))


def test_a_missing_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is Airflow's own."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    with pytest.raises(AirflowNotFoundException) as raised:
        WebhookHook("billing_webhook").get_conn()
    assert f"``{raised.value}``" in PAGE.text


@pytest.mark.parametrize("status", [401, 404, 422])
def test_what_a_receiver_answers(insightly: RunningSandbox, connect: Connect, status: int) -> None:
    """Each status has the page's text."""
    insightly.answer_with("billing", status=status)
    connect("billing_webhook", host=insightly.bin_url("billing"))
    assert named(str(WebhookHook("billing_webhook").send("{}", message_id="msg_1").error))


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1:9", "https://no-such-host.invalid", "http://169.254.169.254"]
)
def test_receivers_that_can_not_be_reached(connect: Connect, host: str) -> None:
    """Each has the page's text, and nothing is sent."""
    connect("billing_webhook", host=host)
    result = WebhookHook("billing_webhook").send("{}", message_id="msg_1")
    assert not result.sent
    assert named(str(result.error))


@pytest.mark.parametrize(
    ("settings", "password"),
    [({}, "another-key"), ({"no_access": ["Contacts"]}, None), ({"not_in_plan": ["Contacts"]}, None)],
    ids=["401", "403", "404"],
)
def test_what_insightly_refuses(
    insightly: RunningSandbox, connect: Connect, settings: dict[str, Any], password: str | None
) -> None:
    """401, 403 and 404 have the page's texts."""
    insightly.configure(**settings)
    if password:
        connect("insightly_default", "insightly", host=insightly.api_url, password=password)
    with pytest.raises(InsightlyAccessError) as raised:
        list(InsightlyHook().iter_records("Contacts"))
    beginnings = [row.strip("`… ") for row in ROWS if row.startswith("`… ")]
    assert len([each for each in beginnings if each in str(raised.value)]) == 1


def test_the_days_requests_are_spent(insightly: RunningSandbox) -> None:
    """The text is the page's, except for host and day."""
    insightly.configure(requests_per_day=1)
    InsightlyHook().account_name()
    with pytest.raises(InsightlyRateLimitError) as raised:
        InsightlyHook().account_name()
    text = re.sub(r"\d{4}-\d\d-\d\d", "DAY", str(raised.value))
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    shown = PAGE.block("", "its requests for today").strip().replace("api.na1.insightly.com", "HOST")
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", shown) == text


def test_the_same_page_again_and_again(connect: Connect) -> None:
    """This is an incomplete scan. Its text is the page's, except for the numbers."""
    records = json.dumps([{"CONTACT_ID": 1}, {"CONTACT_ID": 2}]).encode()
    with serving(lambda _: [answer("200 OK", "X-Total-Count: 9", body=records)]) as server:
        fields = {"host": server.url, "password": KEY, "extra": {"requests_per_second": 10_000}}
        connect("insightly_default", "insightly", **fields)
        with pytest.raises(IncompleteScan) as raised:
            list(InsightlyHook().iter_records("Contacts", page_size=2))
    shown = PAGE.block("", "some may have been missed").strip()
    assert re.sub(r"[\d,]*\d", "N", shown) == re.sub(r"[\d,]*\d", "N", str(raised.value))


def sensor(**arguments: Any) -> InsightlyRecordChangeSensor:
    return InsightlyRecordChangeSensor(
        task_id="detect", record_type="Contacts", deferrable=False, **arguments
    )


def test_a_lost_cursor(insightly: RunningSandbox) -> None:
    """The text is the page's, and the key in it is the one in the page's address."""
    ti = TaskInstance("new_contacts", "detect")
    ti.previous = {"success": [ended("scheduled__0", datetime(2026, 11, 27, tzinfo=timezone.utc))]}
    with pytest.raises(LostCursor) as raised:
        sensor().execute(run_context(ti=ti))
    assert str(raised.value) == PAGE.block("", "has run before").strip()
    assert f"/state-store/{raised.value.key}" in PAGE.block("bash", "state-store")


def test_a_time_that_is_put_there(insightly: RunningSandbox) -> None:
    """With the page's value under that key, the task continues from that time."""
    ti = TaskInstance("new_contacts", "detect")
    ti.previous = {"success": [ended("scheduled__0", datetime(2026, 11, 27, tzinfo=timezone.utc))]}
    context = run_context(ti=ti)
    request = PAGE.block("bash", "state-store")
    (key,) = re.findall(r"/state-store/([\w/]+)", request)
    (body,) = re.findall(r"-d '(.*)'", request)
    start = datetime.now(timezone.utc) - timedelta(minutes=10)
    assert re.fullmatch(r"[\dT:-]+Z", json.loads(body)["value"])
    task = sensor(on_empty="succeed")
    (asset,) = task.inlets
    context["asset_state_store"][asset].set(key, start.strftime("%Y-%m-%dT%H:%M:%SZ"))
    task.execute(context)
    assert ti.xcom["window"]["start"] == start.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_skipped_detect(insightly: RunningSandbox) -> None:
    """It says that nothing has changed, and in which window."""
    moment = datetime(2026, 3, 10, tzinfo=timezone.utc)
    with pytest.raises(AirflowSkipException) as raised:
        sensor(window={"start": moment, "end": moment + timedelta(hours=1)}).execute(run_context())
    (shown,) = re.findall(r"`(Contacts: nothing changed in) …`", PAGE.text)
    assert str(raised.value).startswith(shown)


def test_a_skipped_evaluate(logged: Logged) -> None:
    """Its log counts the changes that meet the criteria, that don't, and that trigger for the first time."""
    change = {
        "record_type": "Contacts",
        "record_id": 1,
        "event": "updated",
        "changed_at": "2026-03-10T08:00:00Z",
        "record": {"CONTACT_ID": 1, "FIRST_NAME": "Ada"},
    }

    def evaluate(context: dict[str, Any], **arguments: Any) -> list[Any]:
        with DAG("new_contacts"):
            task = EvaluateCriteriaOperator(task_id="evaluate", changes=[change], **arguments)
        return task.execute(context)

    ada = {"field": "FIRST_NAME", "operator": "equals", "value": "Ada"}
    bob = {"field": "FIRST_NAME", "operator": "equals", "value": "Bob"}
    slip = {"field": "FIRSTNAME", "operator": "equals", "value": "Ada"}
    for criteria, active in ((bob, True), (ada, False), (slip, True)):
        assert evaluate(run_context(), criteria=criteria, active=active) == []
    once: dict[str, Any] = {"criteria": ada, "until_triggered": True, "record_type": "Contacts"}
    first = run_context()
    assert evaluate(first, **once) == [change]
    next_run = run_context(
        ti=TaskInstance(run_id="scheduled__2"), asset_state_store=first["asset_state_store"]
    )
    assert evaluate(next_run, **once) == []
    shown = re.findall(
        r"`(\d+ (?:of \d+ changes meet|changes? ignored|of them).*?|No record of Contacts.*?)`", PAGE.text
    )
    assert len(shown) == 4
    assert set(shown) <= set(logged.messages("info", "warning"))


def test_a_2xx_of_something_else(insightly: RunningSandbox, connect: Connect) -> None:
    """With ``expect_body`` it is a failure."""
    connect("billing_webhook", host=insightly.bin_url("billing"), extra={"expect_body": "only the receiver"})
    result = WebhookHook("billing_webhook").send("{}", message_id="msg_1")
    assert (result.acknowledged, result.status) == (False, 200)
    assert f"`{result.error}`" in PAGE.text


def test_what_check_prints(
    tmp_path: Path,
    command: Command,  # noqa: F811 — the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong operator is shown as on the page."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dags" / "workflows"
    folder.mkdir(parents=True)
    (folder / "lost.yaml").write_text(
        "name: Lost\nrecord_type: Contacts\n"
        "criteria: {field: FIRST_NAME, operator: equal, value: Ada}\n"
        "webhooks:\n  - {name: Billing, conn_id: billing_webhook}\n"
    )
    ran = command("check", "dags/workflows")
    assert ran.code == 1
    assert ran.out + ran.err == PAGE.block("", "lost.yaml")


def test_a_dag_file_without_the_word(tmp_path: Path) -> None:
    """Airflow skips a file without the word ``dag``, and reads the page's line."""
    file = tmp_path / "crm.py"
    (line,) = re.findall(r"`(dags = load_workflows\(.*?\))`", PAGE.text)
    found = []
    for text in (line, line.replace("dags", "workflows")):
        file.write_text(f"from airflow_insightly_hooks import load_workflows\n{text}\n")
        found.append(might_contain_dag(str(file), True))
    assert found == [True, False]


def test_what_airflow_says_of_a_killed_task() -> None:
    """The text is that of Airflow's supervisor."""
    source = inspect.getsource(supervisor)
    first, second = re.findall(r"[^.]+\.", PAGE.block("", "terminated by signal").strip())
    assert f'"{first}"' in source
    assert f'"{second}"' in source


def test_what_the_pages_answer() -> None:
    """The page quotes their texts."""
    source = inspect.getsource(app)
    details = re.findall(r"^\| (?:401|403|404), `(.*?)`", PAGE.text, re.MULTILINE)
    assert len(details) == 3
    forbidden = str(Forbidden("new_contacts", "read task instances of new_contacts"))
    for detail in details:
        assert detail in source or forbidden.startswith(detail.rstrip("… "))
