"""What an explanation shows: the values that were compared, and what became of each group."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from airflow_insightly_hooks.core.criteria import Criteria, compile_criteria
from airflow_insightly_hooks.core.criteria.explanation import Compared, GroupOutcome
from airflow_insightly_hooks.core.criteria.field_paths import custom_value
from airflow_insightly_hooks.core.exact_json import loads

RECORD = {
    "STATUS": "open",
    "PRIORITY": 0,
    "TAGS": [{"TAG_NAME": "hot"}, {"TAG_NAME": ""}],
    "LINKS": [{"ROLE": "Buyer"}, {"ROLE": None}],
    "CUSTOMFIELDS": [{"FIELD_NAME": "Region__c", "FIELD_VALUE": "North"}],
}


def condition(field: str, operator: str = "equals", value: Any = "x") -> dict[str, Any]:
    return {"field": field, "operator": operator, **({} if value is None else {"value": value})}


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("STATUS", "open"),
        ("PRIORITY", 0),
        ("MISSING", None),
        ("Region__c", "North"),
        ("Other__c", None),
        ("TAGS", ["hot"]),
        ("LINKS.ROLE", ["Buyer"]),
    ],
)
def test_what_a_condition_compares(field: str, found: Any) -> None:
    """Its own value, and the record's: a standard field's, or else the custom field's of that name."""
    spec = {"any": [condition(field), condition(field, "is_blank", None)]}
    assert Criteria(spec).compared(RECORD) == [
        Compared("criteria.any[0]", "x", found),
        Compared("criteria.any[1]", None, found),
    ]


@pytest.mark.parametrize(
    ("value", "plain", "text"),
    [
        ("x\x1b", "x\x1b", "'x\\x1b'"),
        (True, True, "true"),
        (False, False, "false"),
        (5, 5, "5"),
        (0.5, 0.5, "0.5"),
        (float("inf"), "inf", "'inf'"),
        (date(2026, 1, 31), "2026-01-31", "'2026-01-31'"),
        (Decimal("1.50"), "1.50", "'1.50'"),
        (loads("1.50"), "1.50", "'1.50'"),
        ({1: (2, None)}, {"1": [2, None]}, "{'1': [2, None]}"),
        ([date(2026, 1, 31)], ["2026-01-31"], "['2026-01-31']"),
    ],
    ids=str,
)
def test_how_values_are_shown(value: Any, plain: Any, text: str) -> None:
    """As JSON and YAML can hold them, and on one line of a terminal."""
    compared = Compared("criteria", value, value)
    assert compared.plain() == {"value": plain, "found": plain}
    assert (compared.value_text, compared.found_text) == (text, text)


def test_what_is_not_there_is_shown_as_such() -> None:
    """An operator without a value has none; a record's value may be blank."""
    for blank in (None, "", []):
        assert Compared("criteria", None, blank).found_text == "blank"
    compared = Compared("criteria", None, 0)
    assert (compared.value_text, compared.found_text) == ("", "0")
    assert compared.plain() == {"value": None, "found": 0}


def test_outcomes_of_groups() -> None:
    """A group before its members, each by its place; a line and a list of conditions are groups, too."""
    yes, no = condition("STATUS", "is_not_blank", None), condition("STATUS", "is_blank", None)
    spec = {
        "any": [
            {"all": [yes, no]},
            {"none": [no]},
            {"conditions": [yes, yes]},
            {"conditions": [yes, no], "logic": "1 AND 2"},
            {"conditions": [yes], "logic": "1"},
            None,
        ]
    }
    criteria = Criteria(spec)
    outcomes = criteria.compile_explanation()(RECORD)
    assert criteria.group_outcomes(outcomes) == [
        GroupOutcome("criteria.any", held=True),
        GroupOutcome("criteria.any[0].all", held=False),
        GroupOutcome("criteria.any[1].none", held=True),
        GroupOutcome("criteria.any[2].conditions", held=True),
        GroupOutcome("criteria.any[3].logic", held=False),
    ]
    assert criteria.culprits(outcomes) == []
    failed = Criteria({"all": [spec, {"any": [no, {"none": [yes]}]}]})
    outcomes = failed.compile_explanation()(RECORD)
    assert [one.path for one in failed.culprits(outcomes)] == [
        "criteria.all[1].any[0]",
        "criteria.all[1].any[1].none[0]",
    ]


@pytest.mark.parametrize("spec", [None, {"all": [None, condition("STATUS", "is_not_blank", None)]}])
def test_no_criteria_are_met(spec: Any) -> None:
    """They have no group of their own, and nothing that could fail."""
    criteria = Criteria(spec)
    outcomes = criteria.compile_explanation()({"STATUS": "open"})
    assert criteria.culprits(outcomes) == []
    assert [group.path for group in criteria.group_outcomes(outcomes)] == (["criteria.all"] if spec else [])
    assert compile_criteria(spec)({"STATUS": "open"})


@pytest.mark.parametrize(
    "damaged", [None, 5, "x", {}, {"FIELD_NAME": "A__c"}, {"FIELD_VALUE": 1}, ["FIELD_NAME"]]
)
def test_custom_fields_among_what_is_none(damaged: Any) -> None:
    """An item that is no custom field hides no other one."""
    fields = [damaged, {"FIELD_NAME": "B__c", "FIELD_VALUE": 2}]
    assert custom_value(fields, "B__c") == 2
    assert custom_value(fields, "A__c") is None
    assert custom_value(damaged, "B__c") is None
