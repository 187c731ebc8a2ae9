"""Workflow files: which YAML they may contain, and the line of each mistake."""

from __future__ import annotations

import json
import pickle
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import workflow_schema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks import Workflow
from airflow_insightly_hooks.core.errors import InvalidWorkflowFile
from airflow_insightly_hooks.core.workflow.yaml_file import read_workflows
from tests.strategies import scalars

CONTACTS = """\
# New contacts in France.
name: New French contacts
record_type: Contacts
evaluate: created
criteria:
  all:
    - {field: ADDRESS_MAIL_COUNTRY, operator: equals, value: France}
    - field: DATE_CREATED_UTC
      operator: on
      value: 2026-01-01
webhooks:
  - name: Billing
    conn_id: billing_webhook
    after: 3d
"""
ROOT = Path(__file__).parent.parent.parent.parent


def problems(text: str, file: str = "contacts.yaml") -> list[str]:
    with pytest.raises(InvalidWorkflowFile) as caught:
        read_workflows(text, file, Workflow)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 — our own
    return str(caught.value).splitlines()


def test_a_file_holds_a_workflow():
    """Unquoted dates stay text, and ``on`` is an operator, not a truth value."""
    (workflow,) = read_workflows(CONTACTS, "contacts.yaml", Workflow)
    assert workflow.name == "New French contacts"
    assert workflow.criteria["all"][1] == {
        "field": "DATE_CREATED_UTC",
        "operator": "on",
        "value": "2026-01-01",
    }


def test_a_file_may_hold_a_list():
    """The workflows' ids must differ."""
    listed = "".join(f"  {line}" for line in CONTACTS.splitlines(keepends=True)).replace("  #", "-\n  #", 1)
    text = f"{listed}{listed.replace('New French', 'New')}"
    assert [w.dag_id for w in read_workflows(text, "f", Workflow)] == ["new_french_contacts", "new_contacts"]
    assert problems(listed * 2)[0].startswith(
        "contacts.yaml:18: [1].dag_id: 'new_french_contacts' is the dag_id"
    )


def test_each_mistake_in_criteria_has_its_line():
    """The first 20 mistakes are shown, and all are counted."""
    text = CONTACTS.replace("operator: equals", "operator: equal").replace("operator: on", "operator: onn")
    assert [problem.split(": ")[1] for problem in problems(text)] == [
        "criteria.all[0].operator",
        "criteria.all[1].operator",
    ]
    many = "".join("\n  - {field: TITLE, operator: equal}" for _ in range(30))
    text = f"name: w\nrecord_type: Notes\nactiv: true\ncriteria:\n all:{many}\n"
    shown = problems(text)
    assert len(shown) == 21
    assert shown[-1] == "and 12 more"  # of 30, one key and a list of webhooks


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "operator: equals",
            "operator: equal",
            "7: criteria.all[0].operator: 'equal' is not an operator; did you mean 'equals'?",
        ),
        ("operator: on", "operator: in", "10: criteria.all[1].value: a list is needed, not str"),
        (
            "evaluate: created",
            "evalute: created",
            "4: evalute: not a key that is known here; did you mean 'evaluate'?",
        ),
        (
            "after: 3d",
            "after: 3 days",
            "14: webhooks[0].after: it is not a duration such as '45s', '30m', '2h', '3d' or '1w'",
        ),
        ("record_type: Contacts\n", "", "2: record_type: it is missing"),
        ("  - name: Billing\n    conn_id", "  - conn_id", "12: webhooks[0].name: it is missing"),
        ("    after: 3d", "    after: 3d\n    after: 4d", "15: the key 'after' is here twice: remove one"),
        (
            "after: 3d",
            "fields: [FIRST_NAME, LAST]",
            "14: webhooks[0].fields[1]: Contacts have no field 'LAST'; did you mean 'LAST_NAME'?",
        ),
    ],
)
def test_a_mistake_has_its_line(old, new, expected):
    """The error names file, line and path, and says what to do."""
    assert CONTACTS.replace(old, new, 1) != CONTACTS
    assert f"contacts.yaml:{expected}" in problems(CONTACTS.replace(old, new, 1))


def test_all_mistakes_of_a_file_are_told():
    """One error has all mistakes with their lines, in the order of the lines."""
    text = CONTACTS.replace("equals", "equal").replace("3d", "3x").replace("created", "made")
    assert [line.split(":")[1] for line in problems(f"enabled: true\n{text}")] == ["1", "5", "8", "15"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1: the file is empty"),
        ("# nothing\n", "f:1: the file is empty"),
        ("[]", "f:1: the list holds no workflow"),
        ("- 3", "f:1: [0]: a workflow is needed: a mapping with name, record_type and webhooks"),
        ("just text", "f:1: a workflow is needed: a mapping with name, record_type and webhooks"),
        ("a: [", "f:2: not YAML: did not find expected node content"),
        ("a: 1\n---\nb: 2", "f:2: not YAML: but found another document"),
        ("a: &x [*x]", "f:1: it contains itself through an alias"),
        ("[1]: x", "f:1: a key must be text"),
        ("!!python/object:os.system x", "f:1: tags such as !!python or !include are not supported"),
        ("a: !!int x", "f:1: it is not a number, but has the tag !!int"),
        ("a: \x00", "f:1: not YAML: control characters are not allowed"),
    ],
)
def test_what_is_no_workflow_file_is_refused(text, expected):
    """Whatever the file contains, the error says what is wrong and where."""
    assert problems(text, "f")[0] == expected


def test_a_few_lines_cannot_stand_for_billions():
    """An alias counts as many times as it is used."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than 100,000 values" in problems("\n".join(lines))[0]


def test_deep_nesting_is_an_error():
    """It doesn't crash."""
    for text in ("[" * 5_000 + "]" * 5_000, "name: " + "[" * 100_000, "- " * 100_000 + "x"):
        assert problems(text)[0] == "contacts.yaml:1: it nests more than 250 levels deep: use fewer levels"


KEYS = "".join(f"key_{number}: 1\n" for number in range(60_000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "first", "more"),
    [
        (CONTACTS + KEYS, "contacts.yaml:15: key_0: not a key that is known here", 59_980),
        (
            CONTACTS + "".join(f"    key_{number}: 1\n" for number in range(60_000)),
            "contacts.yaml:15: webhooks[0].key_0: not a key that is known here",
            59_980,
        ),
        (
            f"{{{','.join(f'k{number}' for number in range(90_000))}}}",
            "contacts.yaml:1: name: it is missing",
            None,
        ),
        ("- 3\n" * 90_000, "contacts.yaml:1: [0]: a workflow is needed: a mapping", 89_980),
        (
            "- {name: n, record_type: Notes, webhooks: [{name: w, conn_id: c}]}\n" * 8_000,
            "contacts.yaml:2: [1].dag_id: 'n' is the dag_id of an earlier workflow",
            7_979,
        ),
        ("a: 1\n" * 60_000, "contacts.yaml:2: the key 'a' is here twice", 0),
    ],
    ids=["keys", "a webhook's keys", "flow", "list", "ids", "twice"],
)
def test_many_mistakes_are_counted_in_linear_time(text: str, first: str, more: int | None):
    """The first twenty are shown with their lines; the others are counted."""
    started = time.process_time()
    found = problems(text)
    assert time.process_time() - started < 20  # seconds; it used to take minutes
    assert found[0].startswith(first)
    assert len(found) <= 21
    if more:
        assert found[-1] == f"and {more} more"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a\\0": 1', "f:1: it holds U+0000 or half of a surrogate pair, which can't be stored"),
        ('name: "a\\0"', "f:1: it holds U+0000 or half of a surrogate pair, which can't be stored"),
        ("a: 1e400", "f:1: the number is too large: write it in quotes"),
        (f"a: {'9' * 5000}", "f:1: it is not a number, but has the tag !!int"),
    ],
)
def test_what_airflow_cannot_store_is_refused(text: str, expected: str):
    """It would stop all DAGs of the folder, because Airflow stores them together."""
    assert problems(text, "f") == [expected]


def test_long_and_strange_names_are_shown_as_a_log_can_hold_them():
    """They are cut, and put on one line."""
    (line,) = problems(f'{CONTACTS}? "a\\tb\\x7f{"x" * 50_000}"\n: 1\n')[-1:]
    assert line.startswith("contacts.yaml:15: a\\tb\\x7fxxx")
    assert len(line) < 2_200
    assert len(str(problems(CONTACTS.replace("operator: equals", f"operator: {'e' * 50_000}")))) < 2_200


def test_an_error_shows_no_value_of_the_file():
    """A URI in the file may contain a password."""
    text = CONTACTS.replace("conn_id: billing_webhook", "uri: 'https://u:s3cret@h/\n    x: s3cret")
    assert "s3cret" not in "".join(problems(text))


@given(st.text(max_size=60) | st.text(st.sampled_from("ab:- \n[]{}&*!'\"#|>?%@`,\t1"), max_size=60))
@settings(max_examples=150)
def test_any_text_is_read_or_refused(text):
    """Any text gives workflows, or the one error."""
    with suppress(InvalidWorkflowFile):
        read_workflows(text, "f", Workflow)


@given(st.lists(scalars, min_size=1, max_size=4))
def test_json_is_yaml(found):
    """JSON is read with the same values and types."""
    written = {
        "name": "n",
        "record_type": "Contacts",
        "webhooks": [{"name": "w", "conn_id": "c"}],
        "criteria": {"field": "Any__c", "operator": "in", "value": found},
    }
    (workflow,) = read_workflows(json.dumps(written), "f", Workflow)
    assert workflow.criteria == written["criteria"]


# --- the JSON Schema ---------------------------------------------------------------------------------------

SCHEMA = json.loads(workflow_schema.text())


def test_the_published_schema_is_fresh():
    """``make schema`` makes it."""
    assert workflow_schema.SCHEMA.read_text(encoding="utf-8") == workflow_schema.text()


def test_the_schema_is_one():
    """It is valid by JSON Schema's own schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def value_of(text: str) -> Any:
    """Return a file's contents as editors read it: dates and ``on`` are text."""
    quoted = re.sub(r"(operator|recheck|value): (on|\d{4}-\d\d-\d\d)\b", r"\1: '\2'", text)
    return yaml.safe_load(quoted)


@pytest.mark.parametrize("path", sorted((ROOT / "dags" / "workflows").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_schema_takes_the_examples(path):
    """Editors accept what the loader accepts."""
    jsonschema.validate(value_of(path.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("record_type: Contacts", "record_type: Contact"),
        ("operator: equals", "operator: equal"),
        ("evaluate: created", "evaluate: edited"),
        ("after: 3d", "after: 3 days"),
        ("after: 3d", "afterwards: 3d"),
        ("conn_id: billing_webhook", "timezone: UTC"),
        ("after: 3d", "recheck: on"),
        ("after: 3d", "concurrency: '8'"),
        ("operator: equals, value: France", "operator: is_blank, value: France"),
        ("operator: equals, value: France", "operator: equals"),
        ("name: New French contacts\n", ""),
    ],
)
def test_the_schema_finds_what_the_loader_finds(old, new):
    """Most mistakes are therefore shown while a user types them."""
    assert problems(CONTACTS.replace(old, new, 1))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value_of(CONTACTS.replace(old, new, 1)), SCHEMA)


def test_the_schema_takes_a_workflow_and_a_list_of_them():
    """A file may have one workflow or several."""
    value = value_of(CONTACTS)
    jsonschema.validate(value, SCHEMA)
    jsonschema.validate([value, value], SCHEMA)
