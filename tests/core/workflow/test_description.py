"""A workflow in words and as YAML. The text is accurate, and contains neither secrets nor Markdown markup."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks import Schedule, Webhook, Workflow
from airflow_insightly_hooks.core.criteria import OPERATORS as CRITERIA_OPERATORS
from airflow_insightly_hooks.core.workflow.definition import Evaluate
from airflow_insightly_hooks.core.workflow.description import (
    EVENTS,
    LONGEST_YAML,
    OPERATORS,
    description_markdown,
    description_text,
)
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from airflow_insightly_hooks.core.workflow.yaml_text import workflow_yaml
from tests.strategies import storable_text, workflow_files

WEBHOOK = {"name": "Billing", "conn_id": "billing_webhook"}
SECRET = "s3cret-of-a-test"


def workflow(**arguments: Any) -> Workflow:
    return Workflow(**{"name": "w", "record_type": "Contacts", "webhooks": [WEBHOOK], **arguments})


# --- as YAML -----------------------------------------------------------------------------------------------


@given(workflow_files())
def test_what_is_written_makes_an_equal_workflow(keys: dict[str, Any]) -> None:
    """This holds for everything that a file can contain.

    Masked values still make a workflow with the same keys.
    """
    made = Workflow(**keys)
    (again,) = read_workflows(workflow_yaml(made, masked=False), "w.yaml", Workflow)
    assert again == made
    (masked,) = read_workflows(workflow_yaml(made), "w.yaml", Workflow)
    assert [webhook.headers.keys() for webhook in masked.webhooks] == [
        w.headers.keys() for w in made.webhooks
    ]
    assert masked.criteria == made.criteria


def test_what_is_as_by_default_is_left_out() -> None:
    """The text is as short as one that a person would write."""
    assert workflow_yaml(workflow()) == (
        "name: w\nrecord_type: Contacts\nwebhooks:\n- name: Billing\n  conn_id: billing_webhook\n"
    )


def test_other_readers_of_yaml_read_the_same() -> None:
    """Texts that only other readers would take for another type are quoted, too."""
    made = workflow(
        criteria={"field": "TITLE", "operator": "in", "value": ["on", "2026-01-31", "1e5", "0x1F"]}
    )
    text = workflow_yaml(made)
    assert yaml.safe_load(text)["criteria"] == made.criteria
    assert read_workflows(text, "w.yaml", Workflow)[0] == made


def test_nothing_secret_is_shown() -> None:
    """A URI's query, headers' values and a callback's arguments are not shown."""
    uris = [
        f"https://x.example/h?token={SECRET}",
        f"https://{{{{ '{SECRET}' }}}}/h",
        f"{{# {SECRET} #}}https://y",
    ]
    made = workflow(
        webhooks=[{"name": f"n{n}", "uri": uri, "headers": {"X-Key": SECRET}} for n, uri in enumerate(uris)],
        on_failure={"callback": "a.b", "arguments": {"key": {"in": SECRET}}},
    )
    for text in (workflow_yaml(made), description_markdown(made), description_text(made)):
        assert SECRET not in text
        assert "x.example/h" in text
    assert "X-Key: '***'" in workflow_yaml(made)
    assert SECRET in workflow_yaml(made, masked=False)


# --- in words ----------------------------------------------------------------------------------------------


def test_a_workflow_in_words() -> None:
    """Record type, evaluate, criteria, webhooks and schedule are described."""
    made = workflow(
        evaluate="until_triggered",
        active=False,
        criteria={
            "all": [
                {"field": "TAGS", "operator": "contains", "value": "VIP", "case_sensitive": True},
                {"any": [{"field": "A__c", "operator": "between", "value": [1, 2]}, None]},
                {
                    "conditions": [
                        {"field": "FIRST_NAME", "operator": "in", "value": [f"n{n}" for n in range(12)]},
                        {"field": "B__c", "operator": "equals", "value": True},
                    ],
                    "logic": "1  AND NOT 2",
                },
            ]
        },
        webhooks=[
            WEBHOOK,
            Webhook(
                name="Later", uri="https://x.example/h?q", fields=["FIRST_NAME"], after="36h", recheck=True
            ),
            Webhook(name="Before", conn_id="c", before="7d", field="DATE_OF_BIRTH", ordered=True),
            Webhook(
                name="At",
                conn_id="c d",
                field="DATE_OF_BIRTH",
                on_undelivered="report",
                retries=0,
                pool="one slot",
            ),
        ],
        pool="crm",
        mode="one_task",
        retries=4,
        schedule={"cron": "5 * * * *", "timezone": "Europe/Paris"},
        on_failure="alerts.tell",
    )
    names = ", ".join(f'"n{n}"' for n in range(10))
    assert (
        description_text(made)
        == f"""\
Watches Contacts: a record that is created or edited, until it has triggered once.
It is not active: changes are ignored.
One task does everything, batch by batch.
Its tasks are in the pool crm.
The record triggers if:
  all of these hold:
    TAGS contains "VIP" (upper and lower case as written)
    at least one of these holds:
      A__c is between 1 and 2
      always
    "1 AND NOT 2" holds, of these:
      (1) FIRST_NAME is one of {names} or 2 more
      (2) B__c equals true
For each record that triggers, it sends:
  "Billing": the whole record, to the connection billing_webhook, at once
    in up to 5 attempts
  "Later": FIRST_NAME, to "https://x.example/h?***", 36h after the trigger, if it still meets the criteria
    in up to 5 attempts
  "Before": the whole record, to the connection c, 1w before the date in DATE_OF_BIRTH
    the changes of one record one after another
    in up to 5 attempts
  "At": the whole record, to the connection "c d", at the date in DATE_OF_BIRTH
    in one attempt
    by tasks in the pool "one slot"
    if a payload stays undelivered, the report says so, and the task succeeds
It runs at "5 * * * *" (Europe/Paris).
When a run fails, alerts.tell is called."""
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, "It runs by hand only."),
        ("on_change", "It runs when there are changes."),
        ("0 8 * * *", 'It runs at "0 8 * * *" (UTC).'),
        (Schedule(watch="30s"), "It runs when there are changes, and asks Insightly every 30s."),
        (
            Schedule(on_change="push"),
            "It runs when Insightly's webhook announces a change, and also asks Insightly every 15m.",
        ),
        (
            Schedule(on_change="push", watch="1h"),
            "It runs when Insightly's webhook announces a change, and also asks Insightly every 1h.",
        ),
        (Schedule(every="15m", data_interval=True), "It runs every 15m, each time for the interval before."),
    ],
)
def test_when_it_runs(schedule: Any, expected: str) -> None:
    """Each kind of schedule is described."""
    assert expected in description_text(workflow(schedule=schedule, start_date="2026-01-01")).splitlines()


def test_each_operator_and_mode_has_words() -> None:
    """Every operator and mode has a description."""
    assert OPERATORS.keys() == CRITERIA_OPERATORS.keys()
    assert EVENTS.keys() == set(get_args(Evaluate))


@given(
    storable_text.filter(str.strip),
    st.sampled_from(["`", "``` \n", "<img src=x>", "](javascript:x)", "\n# x\n"]),
)
def test_names_are_neither_markdown_nor_html(text: str, markup: str) -> None:
    """Each name is in a code span of one line, or in the code block."""
    name = f"{markup}{text}{markup}"
    made = workflow(
        name=f"n {name}"[:200],
        webhooks=[{"name": f"n {name}"[:200], "conn_id": name[:200], "fields": [f"{name[:100]}__c"]}],
        criteria={"field": f"{text}{markup}__c".replace(".", ""), "operator": "equals", "value": name},
    )
    words, fence, block = re.split(r"\n\n(?=(`{3,})yaml\n)", description_markdown(made), maxsplit=1)
    assert all(re.match(r" *- ", line) for line in words.split("\n"))
    outside = re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", words)
    assert not re.search(r"[<>`\[\]#]", outside)
    assert block.startswith(fence)
    assert block.endswith(f"\n{fence}")
    assert fence not in block[len(fence) : -len(fence)]


def test_much_is_cut() -> None:
    """Airflow stores the text with the DAG, so a long one is cut."""
    conditions = [{"field": "TITLE", "operator": "equals", "value": "x" * 500}] * 5_000
    for criteria in ({"any": conditions}, {"any": conditions[:100]}):
        text = description_markdown(workflow(criteria=criteria))
        assert f"# The YAML has more than {LONGEST_YAML:,} characters." in text
        assert len(text) < 100_000
