"""``preview``: the effect of a workflow on one record."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_insightly_hooks.core.detection.changes import ChangeWindow, changes_in
from airflow_insightly_hooks.core.detection.storable_changes import storable
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.hooks.insightly import InsightlyHook
from airflow_insightly_hooks.operators.payload import BuildPayloadOperator
from airflow_insightly_hooks.sandbox.server import RunningSandbox
from tests.cli.conftest import Command
from tests.conftest import Connect

PASSWORD = "hunter2-password"
WORKFLOW = """\
- name: Contact in a region
  record_type: Contacts
  evaluate: created
  criteria: {field: Region__c, operator: in, value: [Europe, Asia, Americas]}
  webhooks:
    - {name: Billing, conn_id: billing, headers: {X-Team: crm}}
- name: Nobody
  record_type: Contacts
  criteria:
    all:
      - {field: CONTACT_ID, operator: greater_than, value: 0}
      - {field: FIRST_NAME, operator: equals, value: "nobody's name"}
  webhooks:
    - {name: Billing, conn_id: billing}
"""
EVERYTHING = ChangeWindow.of(("2000-01-01", "2100-01-01"))


@pytest.fixture
def workflows(tmp_path: Path) -> Path:
    (tmp_path / "workflows.yaml").write_text(WORKFLOW)
    return tmp_path / "workflows.yaml"


@pytest.fixture
def receiver(insightly: RunningSandbox, connect: Connect) -> str:
    """The name of a request bin, with the connection ``billing`` leading to it."""
    connect(
        "billing",
        host=insightly.bin_url("billing"),
        login="me",
        password=PASSWORD,
        extra={"headers": {"X-Api-Key": "the-key"}, "signing_secret": "whsec_" + "QUFB" * 8},
    )
    return "billing"


def contact_with_region(insightly: RunningSandbox) -> dict[str, Any]:
    records = InsightlyHook(exact_numbers=True).iter_records("Contacts")
    return next(record for record in records if "Region__c" in json.dumps(record))


def test_the_body_is_what_the_tasks_would_send(
    command: Command, receiver: str, insightly: RunningSandbox, workflows: Path
) -> None:
    """Id and body are the same as the DAG's build task makes from the sensor's change, with custom dates."""
    record = contact_with_region(insightly)
    ran = command(
        "preview", f"{workflows}#contact_in_a_region", "--record", record["CONTACT_ID"], "-o", "json"
    )
    assert ran.code == 0
    shown = json.loads(ran.out)
    (change,) = changes_in(EVERYTHING, RECORD_TYPES["Contacts"], [record], ["added"])
    build = BuildPayloadOperator(
        task_id="build",
        changes=json.loads(json.dumps([storable(change)])),
        workflow="contact_in_a_region/Billing",
    )
    (payload,) = build.execute({})
    (message,) = shown["messages"]
    assert {key: message[key] for key in ("message_id", "body")} == {
        key: payload[key] for key in ("message_id", "body")
    }
    assert message["due"] is message["not_sent"] is message["problem"] is None
    assert [(change["event"], change["triggers"]) for change in shown["changes"]] == [
        ("added", True),
        ("updated", False),
    ]


def test_headers_are_those_that_go_out_without_secrets(
    command: Command, receiver: str, insightly: RunningSandbox, workflows: Path
) -> None:
    """Each header that arrives is shown, except those that authenticate."""
    record_id = contact_with_region(insightly)["CONTACT_ID"]
    arguments = ("preview", f"{workflows}#contact_in_a_region", "--record", record_id, "--send", "--yes")
    ran = command(*arguments)
    assert ran.code == 0
    assert "Authorization: Basic ***\nX-Api-Key: ***\nX-Team: crm\n" in ran.out
    assert "webhook-signature: (made for each attempt)\n" in ran.out
    assert "Billing: acknowledged, status 200, " in ran.out
    for secret in (PASSWORD, "the-key", "whsec", "QUFB"):
        assert secret not in ran.out + ran.err
    (request,) = insightly.received(receiver)
    head, _, body = ran.out.partition("\n\n")[2].partition("\n\n")
    shown = {line.partition(":")[0].lower() for line in head.splitlines()[2:]}
    assert shown - {"authorization"} == {*request["headers"]} - {"connection"}
    assert request["username"] == "me"
    assert request["body"] == body.splitlines()[0]
    assert request["headers"]["webhook-id"].startswith("msg_test_")
    assert request["headers"]["webhook-id"] not in ran.out.partition("Billing: acknowledged")[0]


def test_a_record_that_does_not_trigger(
    command: Command, receiver: str, workflows: Path, insightly: Any
) -> None:
    """The deciding conditions are marked. No message is shown or sent, unless the user asks for it."""
    record = contact_with_region(insightly)
    record_id, name = record["CONTACT_ID"], record["FIRST_NAME"]
    arguments = ("preview", f"{workflows}#nobody", "--record", record_id, "--event", "updated")
    ran = command(*arguments, "--send", "--yes")
    assert ran.code == 1
    assert ran.out.splitlines()[1:] == [
        ran.out.splitlines()[1],
        "Criteria (> marks what decided):",
        "    criteria.all: not met",
        f"    criteria.all[0]: CONTACT_ID greater_than 0: met (it is {record_id})",
        f'  > criteria.all[1]: FIRST_NAME equals "nobody\'s name": not met (it is {name!r})',
    ]
    assert ran.out.splitlines()[1].endswith("does not trigger: the record does not meet the criteria")
    assert insightly.received(receiver) == []
    conditions = json.loads(command(*arguments, "-o", "json").out)["conditions"]
    assert [(each["value"], each["found"]) for each in conditions] == [
        (0, record_id),
        ("nobody's name", name),
    ]
    ran = command(*arguments, "--send", "--yes", "--always")
    assert ran.code == 1
    assert "Billing: acknowledged" in ran.out
    assert len(insightly.received(receiver)) == 1


def test_a_record_from_standard_input_needs_no_connection(
    command: Command, workflows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output says what is unknown then: headers, and which custom fields hold dates."""
    record = {"CONTACT_ID": 7, "CUSTOMFIELDS": [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "Asia"}]}
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(record).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    ran = command("preview", f"{workflows}#contact_in_a_region", "--json", "-")
    assert ran.code == 0
    assert "Note: the types of custom fields are not known here" in ran.out
    assert "POST to connection 'billing'\n(the headers are not known: The conn_id `billing`" in ran.out
    assert ran.out.splitlines()[-1].startswith('{"entity":{"CONTACT_ID":7,')


def test_what_a_run_may_do_otherwise_is_noted(command: Command, tmp_path: Path) -> None:
    """Notes say what is not looked up here. A receiver that is a template is not looked up, either."""
    (tmp_path / "w.yaml").write_text(
        "name: W\nrecord_type: Contacts\nevaluate: until_triggered\nactive: false\ndry_run: true\n"
        "criteria: {field: DATE_UPDATED_UTC, operator: within_last, value: 1d}\n"
        "webhooks: [{name: w, uri: '{{ var.value.password }}', after: 1d}]\n"
    )
    (tmp_path / "r.json").write_text('{"CONTACT_ID": 7, "DATE_UPDATED_UTC": "2026-01-31 08:00:00"}')
    arguments = ("preview", tmp_path / "w.yaml", "--json", tmp_path / "r.json")
    ran = command(*arguments)
    assert ran.code == 0
    assert [line for line in ran.out.splitlines() if line.startswith("Note: ")] == [
        "Note: the workflow is not active: its tasks send nothing until it is active",
        "Note: the workflow is a dry run: its tasks do everything except the POST",
        "Note: a record triggers only once: the preview does not check whether this one has triggered before",
        "Note: relative dates are measured from each change's own time (--now sets another time)",
        "Note: a webhook with a time trigger sends the record as it is when the webhook is due",
    ]
    assert "w: at 2026-02-01T08:00:00Z, as added\nPOST to a URI\n" in ran.out
    assert "password" not in ran.out
    ran = command(*arguments, "--now", "2026-03-01")
    assert ran.code == 1
    assert "relative dates are measured from 2026-03-01T00:00:00Z" in ran.out


def test_mistakes_of_other_files(command: Command, workflows: Path, tmp_path: Path) -> None:
    """They are reported. But if a workflow is chosen by its id, it is shown all the same."""
    (workflows.parent / "broken.yaml").write_text("name: [")
    (tmp_path / "r.json").write_text('{"CONTACT_ID": 7}')
    ran = command("preview", f"{workflows.parent}#nobody", "--json", tmp_path / "r.json")
    assert ran.code == 1
    assert ran.out.startswith("Nobody (nobody): Contacts 7\n")
    for argument in (f"{workflows.parent}#nowhere", workflows.parent):
        ran = command("preview", argument, "--json", tmp_path / "r.json")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: {workflows.parent}/broken.yaml:2: not YAML: ")


@pytest.mark.parametrize("form", ["{module}:made", "{file}:made"])
def test_a_workflow_in_python(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """It can be in a module or a file of Python, even one that prints."""
    (tmp_path / "my_workflows.py").write_text(
        "from airflow_insightly_hooks import Webhook, Workflow\n"
        "print('loaded')\n"
        "made = Workflow(name='W', record_type='Notes', webhooks=[Webhook(name='w', conn_id='c')])\n"
        "dag = made.to_dag()\n"
    )
    (tmp_path / "note.json").write_text('{"NOTE_ID": 7}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_workflows", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = form.format(module="my_workflows", file=tmp_path / "my_workflows.py")
    ran = command("preview", text, "--json", "note.json", "-o", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["record_id"] == 7
    ran = command("preview", text.replace("made", "lost"), "--json", "note.json")
    assert ran.code == 2
    assert "its attribute 'lost' is not a Workflow; it has these workflows: made\n" in ran.err


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("nobody", "; write a dag_id after its folder: dags/workflows#nobody"),
        ("nowhere.yaml", ""),
        ("no/where", ""),
    ],
)
def test_a_dag_id_alone(command: Command, given: str, hint: str) -> None:
    """The error says where a ``dag_id`` belongs, unless the argument is a path."""
    ran = command("preview", given, "--record", "1")
    assert ran.code == 2
    assert ran.err == f"error: {given}: no such file or folder (or module:attribute){hint}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{file}#nobody"], 2, "one record is needed: give either --record ID or --json FILE"),
        (["{file}#nobody", "--record", "1", "--json", "x"], 2, "one record is needed"),
        (["{file}", "--record", "1"], 2, "one of these: contact_in_a_region, nobody"),
        (
            ["{file}#nowhere", "--record", "1"],
            2,
            "there is no workflow 'nowhere'; there are: contact_in_a_region",
        ),
        (["nowhere.yaml", "--record", "1"], 2, "nowhere.yaml: no such file or folder"),
        (["no_module:x", "--record", "1"], 2, "no_module can't be imported: there is no module 'no_module'"),
        (["no_file.py:x", "--record", "1"], 2, "no_file.py: no such file"),
        (["{file}#nobody", "--json", "nowhere.json"], 2, "nowhere.json can't be read: No such file"),
        (["{file}#nobody", "--json", "{file}"], 2, "is not JSON: line 1"),
        (["{file}#nobody", "--json", "{binary}"], 2, "is not JSON"),
        (["{file}#nobody", "--json", "{list}"], 2, "one record is needed, as Insightly's API returns it"),
        (
            ["{file}#nobody", "--json", "{lead}"],
            2,
            "the record can't be previewed: record: it has no usable CONTACT_ID",
        ),
        (["{binary}", "--json", "{lead}"], 2, "it can't be read: byte 1 is not UTF-8"),
        (["{file}#nobody", "--json", "{lead}", "--now", "soon"], 2, "--now: a time (2026-01-31, "),
        (["{file}#nobody", "--record", "999"], 3, "Contacts have no record 999 in the account of connection"),
        (["{file}#nobody", "--record", "1", "--conn", "nowhere"], 3, "The conn_id `nowhere` isn't defined"),
        (["{file}#nobody", "--record", "1", "--conn", "wrong"], 3, "refuses the API key (401)"),
        (
            ["{file}#nobody", "--record", "1", "--send"],
            2,
            "error: there is no terminal to ask for a confirmation: add --yes",
        ),
    ],
)
def test_wrong_input(
    command: Command,
    insightly: RunningSandbox,
    connect: Connect,
    workflows: Path,
    arguments: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line says what is wrong. The exit code is 2 for wrong input, and 3 if the command can't be done."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    connect("wrong", "insightly", host=insightly.api_url, password=PASSWORD)
    names = {"file": workflows, "binary": workflows.parent / "b", "list": workflows.parent / "l"}
    names["lead"] = workflows.parent / "lead.json"
    names["binary"].write_bytes(b"\xff\xfe\x00")
    names["list"].write_text("[]")
    names["lead"].write_text('{"LEAD_ID": 7}')
    ran = command("preview", *(argument.format(**names) for argument in arguments))
    assert (ran.code, ran.out) == (code, "")
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert said in line
    assert PASSWORD not in ran.err


def test_confirmation(
    command: Command,
    receiver: str,
    insightly: RunningSandbox,
    workflows: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``--send`` names the webhooks and asks. Without the answer yes nothing is sent."""
    record_id = contact_with_region(insightly)["CONTACT_ID"]
    for answer, code, sent in (("what?\nn\n", 1, 0), ("y\n", 0, 1)):
        stdin = io.StringIO(answer)
        monkeypatch.setattr(stdin, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", stdin)
        ran = command("preview", f"{workflows}#contact_in_a_region", "--record", record_id, "--send")
        assert ran.code == code
        assert "POST this record's data as a test, once, to: Billing? [y/n]" in ran.err
        assert len(insightly.received(receiver)) == sent
