"""docs/how-to/real-account.md: its commands, connections, file and outputs are real."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from airflow_insightly_hooks import load_workflow
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.hooks.webhook import WebhookHook
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command, command  # noqa: F401 — a fixture
from tests.conftest import Connect
from tests.how_to.pages import Page, commands

PAGE = Page("real-account.md")


def test_no_block_is_without_a_test() -> None:
    """The tests below and test_commands.py execute every block of the page."""
    bash_and_outputs = ["bash", "bash", "bash", "", "bash", "bash", "bash", "yaml", "", "bash"]
    assert PAGE.kinds() == bash_and_outputs


def made_by_command() -> dict[str, dict[str, object]]:
    """Return the connections of the page's commands, by their ids."""
    made = {}
    for line in commands(PAGE.block("bash", "connections add")):
        options = dict(zip(line[4::2], line[5::2], strict=True))
        made[line[3]] = {name.removeprefix("--conn-"): value for name, value in options.items()}
        made[line[3]]["conn_type"] = made[line[3]].pop("type")
    return made


def made_in_the_environment() -> dict[str, dict[str, object]]:
    """Return the connections that the page's exports make, as a shell reads them."""
    script = PAGE.block("bash", "export AIRFLOW_CONN") + "\nenv -0"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    prefix = "AIRFLOW_CONN_"
    return {
        name.removeprefix(prefix).lower(): json.loads(value)
        for name, value in variables.items()
        if name.startswith(prefix) and name not in os.environ
    }


def test_the_ways_to_make_connections(connect: Connect) -> None:
    """Commands and environment make the same connections, and the hooks accept them."""
    made = made_by_command()
    assert made == made_in_the_environment()
    for conn_id, fields in made.items():
        connect(conn_id, **fields)
    assert InsightlyHook("insightly_default").base_url == "https://api.na1.insightly.com/v3.1"
    assert str(WebhookHook("billing_webhook").get_conn()) == "https://billing.example.com/insightly"


def test_the_names_in_the_form() -> None:
    """The page uses the form's own names of types and fields."""
    from airflow_insightly_hooks.provider import get_provider_info

    for kind in get_provider_info()["connection-types"]:
        if kind["connection-type"] == "insightly_incoming":
            continue
        assert f"**{kind['hook-name']}**" in PAGE.text
        names = kind["ui-field-behaviour"]["relabeling"]
        assert f"*{names['host']}*" in PAGE.text
        assert f"*{names['password']}*" in PAGE.text or kind["connection-type"] == "insightly_webhook"


def test_what_doctor_prints(
    insightly: RunningSandbox,
    connect: Connect,
    command: Command,  # noqa: F811 — the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page's command prints the page's rows, among others."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    connect("billing_webhook", host=insightly.bin_url("billing"))
    (line,) = commands(PAGE.block("bash", "insightly doctor"))
    ran = command(*line[2:], "-o", "json")
    assert ran.code == 0, ran.out
    found = {
        (row["subject"], row["level"], kind_of(row["finding"], insightly)) for row in json.loads(ran.out)
    }
    shown = [row.split(" | ") for row in PAGE.block("", "accepts the API key").splitlines()[2:]]
    assert len(shown) == 5
    for subject, level, finding in shown:
        assert (subject.strip(), level.strip(), kind_of(finding, insightly)) in found


def kind_of(finding: str, sandbox: RunningSandbox) -> str:
    """Return a finding without the parts that differ between accounts."""
    for url in (sandbox.api_url, "https://api.na1.insightly.com/v3.1"):
        finding = finding.replace(url, "API")
    for url in (sandbox.url, "https://billing.example.com"):
        finding = finding.replace(url, "RECEIVER")
    return re.sub(r"'.*'", "ACCOUNT", re.sub(r"[\d,:-]*\d", "N", finding)).strip()


def test_the_workflow_is_a_dry_run(tmp_path: Path) -> None:
    """The file is valid, and its workflow makes no POST."""
    (tmp_path / "new_contacts.yaml").write_text(PAGE.block("yaml", "dry_run"), "utf-8")
    workflow = load_workflow(tmp_path / "new_contacts.yaml")
    assert (workflow.dag_id, workflow.dry_run) == ("new_contacts", True)
