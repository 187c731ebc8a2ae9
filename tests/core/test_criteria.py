"""Criteria: what each operator holds for, how groups combine, and what is refused when they are compiled."""

from __future__ import annotations

import copy
import re
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.criteria import OPERATORS, compile_criteria
from airflow_insightly_hooks.core.errors import InvalidCriteria
from tests.strategies import (
    NEGATIVES,
    conditions,
    criteria,
    criteria_fields,
    criteria_records,
    records,
    scalars,
)

RECORD = {
    "TITLE": "New Lead Task",
    "DETAILS": "",
    "STATUS": "NOT STARTED",
    "PRIORITY": 2,
    "ONE": 1,
    "AMOUNT": "25000.50",
    "BIG": 9007199254740993,
    "COMPLETED": False,
    "STARRED": True,
    "NOTHING": None,
    "NONE_OF_THEM": [],
    "CITY": "Straße",
    "CUSTOMFIELDS": [
        {"FIELD_NAME": "Region__c", "FIELD_VALUE": "North"},
        {"FIELD_NAME": "Hobbies__c", "FIELD_VALUE": "Music;Sports;Travel"},
        {"FIELD_NAME": "Vip__c", "FIELD_VALUE": True},
        {"FIELD_NAME": "Empty__c", "FIELD_VALUE": None},
    ],
    "TAGS": [{"TAG_NAME": "Lead"}, {"TAG_NAME": "hot"}],
    "LINKS": [
        {"ROLE": "Buyer", "OBJECT": {"ID": 5, "NAMES": ["Ann", "Bob"]}},
        {"ROLE": None, "OBJECT": {"ID": 6, "NAMES": []}},
    ],
}


def meets(field: str, operator: str, *value: Any, **more: Any) -> bool:
    condition = {"field": field, "operator": operator, **({"value": value[0]} if value else {}), **more}
    return compile_criteria(condition)(RECORD)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # equals: text without regard to case, numbers as numbers, checkboxes as such
        (("STATUS", "equals", "not started"), True),
        (("STATUS", "equals", "NOT"), False),
        (("CITY", "equals", "STRASSE"), True),
        (("PRIORITY", "equals", 2), True),
        (("PRIORITY", "equals", "2.0"), True),
        (("AMOUNT", "equals", 25000.5), True),
        (("AMOUNT", "equals", "25000.5"), False),  # both are text
        (("BIG", "equals", 9007199254740992), False),
        (("BIG", "equals", "9007199254740993"), True),
        (("COMPLETED", "equals", False), True),
        (("COMPLETED", "equals", 0), False),
        (("ONE", "equals", True), False),
        (("STARRED", "equals", True), True),
        (("STARRED", "equals", "true"), False),
        (("DETAILS", "equals", "x"), False),
        (("DETAILS", "not_equals", "x"), True),
        (("MISSING", "not_equals", "x"), True),
        # in
        (("STATUS", "in", ["COMPLETED", "not started"]), True),
        (("STATUS", "in", ["COMPLETED"]), False),
        (("STATUS", "not_in", ["COMPLETED"]), True),
        (("MISSING", "in", ["x"]), False),
        (("MISSING", "not_in", ["x"]), True),
        (("PRIORITY", "in", [1, "2"]), True),
        (("COMPLETED", "in", [True, False]), True),
        # text
        (("TITLE", "contains", "LEAD"), True),
        (("TITLE", "contains", "leads"), False),
        (("TITLE", "not_contains", "leads"), True),
        (("MISSING", "contains", "x"), False),
        (("MISSING", "not_contains", "x"), True),
        (("TITLE", "starts_with", "new"), True),
        (("TITLE", "starts_with", "lead"), False),
        (("TITLE", "ends_with", "TASK"), True),
        (("TITLE", "ends_with", "lead"), False),
        (("AMOUNT", "starts_with", 25), True),
        (("BIG", "ends_with", "993"), True),
        (("COMPLETED", "contains", "False"), False),
        (("Hobbies__c", "contains", "sports"), True),
        # regular expressions
        (("TITLE", "matches", r"^new\s+lead\b"), True),
        (("TITLE", "matches", r"^lead"), False),
        (("PRIORITY", "matches", r"^\d$"), True),
        (("STARRED", "matches", "True"), False),
        (("MISSING", "matches", ".*"), False),
        # blank
        (("DETAILS", "is_blank"), True),
        (("NOTHING", "is_blank"), True),
        (("NONE_OF_THEM", "is_blank"), True),
        (("MISSING", "is_blank"), True),
        (("Empty__c", "is_blank"), True),
        (("COMPLETED", "is_blank"), False),
        (("PRIORITY", "is_blank"), False),
        (("DETAILS", "is_not_blank"), False),
        (("LINKS", "is_not_blank"), True),
        # checkboxes
        (("STARRED", "is_checked"), True),
        (("COMPLETED", "is_checked"), False),
        (("COMPLETED", "is_not_checked"), True),
        (("Vip__c", "is_checked"), True),
        (("MISSING", "is_checked"), False),
        (("MISSING", "is_not_checked"), True),
        (("PRIORITY", "is_checked"), False),
        # numbers
        (("PRIORITY", "greater_than", 1), True),
        (("PRIORITY", "greater_than", 2), False),
        (("PRIORITY", "greater_or_equal", "2"), True),
        (("PRIORITY", "less_than", 2.5), True),
        (("PRIORITY", "less_or_equal", 1), False),
        (("AMOUNT", "greater_than", 25000), True),
        (("BIG", "greater_than", 9007199254740992), True),
        (("TITLE", "greater_than", 0), False),
        (("TITLE", "less_or_equal", 0), False),
        (("MISSING", "less_than", 1), False),
        (("STARRED", "greater_than", 0), False),
        (("AMOUNT", "between", [25000, 30000]), True),
        (("AMOUNT", "between", [25000.5, 25000.5]), True),
        (("AMOUNT", "between", ["1", "2"]), False),
        # custom fields, tags, paths
        (("Region__c", "equals", "north"), True),
        (("TAGS", "equals", "HOT"), True),
        (("TAGS", "not_equals", "hot"), False),
        (("TAGS", "in", ["cold", "lead"]), True),
        (("TAGS.TAG_NAME", "equals", "hot"), True),
        (("LINKS.ROLE", "equals", "buyer"), True),
        (("LINKS.ROLE", "is_blank"), False),
        (("LINKS.OBJECT.ID", "greater_than", 5), True),
        (("LINKS.OBJECT.NAMES", "equals", "bob"), True),
        (("LINKS.NONE.ID", "is_blank"), True),
        (("LINKS.ROLE.DEEPER", "is_blank"), True),
        (("TITLE.DEEPER", "is_blank"), True),
        (("CUSTOMFIELDS.FIELD_NAME", "equals", "vip__c"), True),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_condition(condition, expected):
    """Each operator holds for what it names, and for nothing else."""
    assert meets(*condition) is expected


@pytest.mark.parametrize(
    ("operator", "value", "other_case"),
    [
        ("equals", "New Lead Task", "new lead task"),
        ("in", ["New Lead Task"], ["NEW LEAD TASK"]),
        ("contains", "Lead", "lead"),
        ("starts_with", "New", "new"),
        ("ends_with", "Task", "TASK"),
        ("matches", "Lead", "lead"),
    ],
)
def test_case_counts_where_asked(operator, value, other_case):
    """Text is compared without regard to case unless the condition says case_sensitive."""
    assert meets("TITLE", operator, value)
    assert meets("TITLE", operator, other_case)
    assert meets("TITLE", operator, value, case_sensitive=True)
    assert not meets("TITLE", operator, other_case, case_sensitive=True)


YES = {"field": "STATUS", "operator": "is_not_blank"}
NO = {"field": "STATUS", "operator": "is_blank"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, True),
        (YES, True),
        ({"all": [YES, YES]}, True),
        ({"all": [YES, NO]}, False),
        ({"any": [NO, YES]}, True),
        ({"any": [NO, NO]}, False),
        ({"none": [NO, NO]}, True),
        ({"none": [NO, YES]}, False),
        ({"all": [None, {"any": [NO, {"none": [NO]}]}]}, True),
        ({"none": [{"none": [{"none": [{"none": [{"none": [{"none": [YES]}]}]}]}]}]}, True),
    ],
)
def test_groups(spec, expected):
    """All, any and none of a group's members; no criteria at all are met."""
    assert compile_criteria(spec)(RECORD) is expected


# --- what is refused ---------------------------------------------------------------------------------------


def condition(**keys: Any) -> dict[str, Any]:
    return {"field": "TITLE", "operator": "equals", "value": "x", **keys}


@pytest.mark.parametrize(
    ("spec", "path", "reason"),
    [
        ("TITLE = x", "criteria", "a group or a condition is needed, not str"),
        ([condition()], "criteria", "a group or a condition is needed, not list"),
        ({"all": [None, 5]}, "criteria.all[1]", "a group or a condition is needed, not int"),
        (
            {"any": [{"none": [YES, []]}]},
            "criteria.any[0].none[1]",
            "a group or a condition is needed, not list",
        ),
        ({"all": [YES], "any": [YES]}, "criteria", "a group has one key, all, any, none; this has all, any"),
        (
            {"all": [YES], "field": "X"},
            "criteria",
            "a group has one key, all, any, none; this has all, field",
        ),
        ({"all": YES}, "criteria.all", "a list is needed, not dict"),
        ({"any": "TITLE"}, "criteria.any", "a list is needed, not str"),
        ({"none": None}, "criteria.none", "a list is needed, not NoneType"),
        ({"all": []}, "criteria.all", "a group needs at least one member"),
        ({"any": []}, "criteria.any", "a group needs at least one member"),
        (
            {"conditions": [YES], "logic": "1"},
            "criteria",
            "numbered conditions with a logic line are not supported by this version",
        ),
        (condition(feild="X"), "criteria.feild", "not a key of a condition; did you mean 'field'?"),
        (
            condition(**{"?": 1}),
            "criteria.?",
            "not a key of a condition; a group has one key: all, any, none",
        ),
        ({}, "criteria.field", "a text is needed"),
        (condition(field=""), "criteria.field", "a text is needed"),
        (condition(field=["A"]), "criteria.field", "a text is needed"),
        (condition(operator=None), "criteria.operator", "a text is needed"),
        (
            {"all": [condition(operator="equal")]},
            "criteria.all[0].operator",
            "'equal' is not an operator; did you mean 'equals'?",
        ),
        (
            condition(operator="resembles!"),
            "criteria.operator",
            f"'resembles!' is not an operator; there are {', '.join(OPERATORS)}",
        ),
        ({"field": "A", "operator": "equals"}, "criteria.value", "'equals' needs a value"),
        (
            {"field": "A", "operator": "is_blank", "value": None},
            "criteria.value",
            "'is_blank' takes no value",
        ),
        (condition(case_sensitive="yes"), "criteria.case_sensitive", "true or false is needed"),
        (condition(case_sensitive=None), "criteria.case_sensitive", "true or false is needed"),
        (condition(value=None), "criteria.value", "a text is needed, not NoneType"),
        (condition(value=["x"]), "criteria.value", "a text is needed, not list"),
        (condition(operator="in", value="x"), "criteria.value", "a list is needed, not str"),
        (condition(operator="in", value={"x": 1}), "criteria.value", "a list is needed, not dict"),
        (condition(operator="not_in", value=[]), "criteria.value", "the list is empty"),
        (condition(operator="in", value=["x", None]), "criteria.value[1]", "a text is needed, not NoneType"),
        (condition(operator="contains", value=True), "criteria.value", "a text is needed, not bool"),
        (
            condition(operator="equals", value=""),
            "criteria.value",
            "an empty text equals nothing: use is_blank or is_not_blank",
        ),
        (
            condition(operator="not_in", value=["x", ""]),
            "criteria.value[1]",
            "an empty text equals nothing: use is_blank or is_not_blank",
        ),
        (
            condition(operator="not_contains", value=""),
            "criteria.value",
            "an empty text is in every text: give one, or use is_blank",
        ),
        (condition(operator="matches", value=5), "criteria.value", "a regular expression is needed, not int"),
        (condition(operator="between", value=5), "criteria.value", "a list is needed, not int"),
        (
            condition(operator="between", value=[1]),
            "criteria.value",
            "two numbers are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[2, 1]),
            "criteria.value",
            "two numbers are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[1, 2, 3]),
            "criteria.value",
            "two numbers are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[1, "2017-03-10"]),
            "criteria.value[1]",
            "a number is needed (dates are not compared by this version)",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_criteria_that_cannot_be_compiled_are_refused(spec, path, reason):
    """InvalidCriteria says where in the criteria, and what is wrong there."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(spec)
    assert (caught.value.path, caught.value.reason) == (path, reason)


@pytest.mark.parametrize("operator", ["before", "after", "on", "within_last", "within_next"])
def test_date_operators_are_refused_by_this_version(operator):
    """An operator that is designed but not made yet is said to be so."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(condition(operator=operator), now=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert caught.value.path == "criteria.operator"
    assert caught.value.reason == f"{operator!r} is not supported by this version, which compares no dates"


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{99999999999999999999}", "(" * 3000 + ")" * 3000])
def test_what_is_no_regular_expression_is_refused(pattern):
    """Whatever Python's compiler raises, it is InvalidCriteria here."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(condition(operator="matches", value=pattern))
    assert caught.value.path == "criteria.value"
    assert caught.value.reason.startswith("not a regular expression: ")


@pytest.mark.parametrize("operator", ["greater_than", "greater_or_equal", "less_than", "less_or_equal"])
@pytest.mark.parametrize(
    "value", ["many", "", "2017-03-10", None, True, [1], float("nan"), float("inf"), "Infinity", "NaN"]
)
def test_what_is_no_number_is_refused(operator, value):
    """A number, or a text that reads as one, is needed to compare with."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(condition(operator=operator, value=value))
    assert caught.value.path == "criteria.value"
    assert caught.value.reason == "a number is needed (dates are not compared by this version)"


# --- properties --------------------------------------------------------------------------------------------
#
# A second, plain interpreter of criteria: slow, without compilation, with fractions for decimals.


def present_values(record: Any, path: list[str]) -> list[Any]:
    if isinstance(record, list):
        return [value for item in record for value in present_values(item, path)]
    if not path:
        return [] if record is None or record == "" else [record]
    return present_values(record.get(path[0]), path[1:]) if isinstance(record, dict) else []


def values_of(record: dict[str, Any], field: str) -> list[Any]:
    own = dict(record)
    for custom in record.get("CUSTOMFIELDS") or []:
        own.setdefault(custom["FIELD_NAME"], custom["FIELD_VALUE"])
    return present_values(own, ["TAGS", "TAG_NAME"] if field == "TAGS" else field.split("."))


def number_of(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    return Fraction(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else None


def is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def same(value: Any, wanted: Any, sensitive: bool) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return isinstance(value, bool) and isinstance(wanted, bool) and value == wanted
    if isinstance(value, str) and isinstance(wanted, str):
        return value == wanted if sensitive else value.casefold() == wanted.casefold()
    left, right = number_of(value), number_of(wanted)
    return left is not None and right is not None and left == right


def holds(value: Any, operator: str, wanted: Any, sensitive: bool) -> bool:
    if operator == "equals":
        return same(value, wanted, sensitive)
    if operator == "in":
        return any(same(value, one, sensitive) for one in wanted)
    if operator in ("contains", "starts_with", "ends_with"):
        text, part = str(value), str(wanted)
        if not sensitive:
            text, part = text.casefold(), part.casefold()
        found = {
            "contains": part in text,
            "starts_with": text.startswith(part),
            "ends_with": text.endswith(part),
        }
        return is_plain(value) and found[operator]
    if operator == "matches":
        return is_plain(value) and bool(re.findall(wanted, str(value), 0 if sensitive else re.IGNORECASE))
    if operator == "is_checked":
        return value is True
    if operator == "is_not_blank":
        return True
    number = number_of(value)
    if number is None:
        return False
    if operator == "between":
        return number_of(wanted[0]) <= number <= number_of(wanted[1])
    limit = number_of(wanted)
    return {
        "greater_than": number > limit,
        "greater_or_equal": number >= limit,
        "less_than": number < limit,
        "less_or_equal": number <= limit,
    }[operator]


POSITIVES = {negative: positive for positive, negative in NEGATIVES.items()}


def interpret(spec: dict[str, Any] | None, record: dict[str, Any]) -> bool:
    if spec is None:
        return True
    if "all" in spec:
        return all(interpret(member, record) for member in spec["all"])
    if "any" in spec:
        return any(interpret(member, record) for member in spec["any"])
    if "none" in spec:
        return not any(interpret(member, record) for member in spec["none"])
    operator = spec["operator"]
    if operator in POSITIVES:
        return not interpret({**spec, "operator": POSITIVES[operator]}, record)
    return any(
        holds(value, operator, spec.get("value"), spec.get("case_sensitive", False))
        for value in values_of(record, spec["field"])
    )


@settings(max_examples=600)
@given(conditions, criteria_records)
def test_a_condition_means_what_the_plain_interpreter_says(spec, record):
    """For any condition and record, compiled criteria decide as a naive reading of them does."""
    assert compile_criteria(spec)(record) is interpret(spec, record)


@given(criteria(depth=6), st.lists(criteria_records, min_size=1, max_size=4))
def test_criteria_mean_what_the_plain_interpreter_says(spec, delivered):
    """For any criteria, nested up to six deep, compiled criteria decide as a naive reading of them does."""
    meets = compile_criteria(spec)
    for record in delivered:
        assert meets(record) is interpret(spec, record)


@given(criteria(depth=2), st.lists(records() | criteria_records, max_size=4))
def test_evaluating_changes_nothing(spec, delivered):
    """Criteria and records are as before, and asking again gives the same answers."""
    before = copy.deepcopy((spec, delivered))
    meets = compile_criteria(spec)
    first = [meets(record) for record in delivered]
    assert [meets(record) for record in delivered] == first
    assert (spec, delivered) == before


@pytest.mark.parametrize("positive", NEGATIVES)
@given(data=st.data())
def test_negative_operators_are_complements(positive, data):
    """For any record, exactly one of an operator and its negative holds."""
    spec = {"field": data.draw(criteria_fields), "operator": positive}
    if OPERATORS[positive].takes_value:
        spec["value"] = data.draw(st.lists(scalars, min_size=1) if positive == "in" else scalars)
        if positive == "contains":
            spec["value"] = str(spec["value"])
    record = data.draw(criteria_records)
    negative = {**spec, "operator": NEGATIVES[positive]}
    assert compile_criteria(spec)(record) is not compile_criteria(negative)(record)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_missing_field_is_blank(name):
    """For a record without the field, negative operators hold and positive ones don't."""
    values = {"in": ["x"], "not_in": ["x"], "between": [1, 2]}
    spec = {"field": "X", "operator": name}
    if OPERATORS[name].takes_value:
        spec["value"] = values.get(name, "1")
    negative = name in NEGATIVES.values()
    for record in ({}, {"X": None}, {"X": ""}, {"X": []}, {"CUSTOMFIELDS": None}):
        assert compile_criteria(spec)(record) is negative


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["all", "any", "none", "field", "operator", "value", "logic"])
                | st.text(max_size=3),
                inner,
                max_size=3,
            )
        ),
    )
)
def test_anything_else_is_refused_in_one_way(spec):
    """Whatever JSON is given for criteria, it is compiled or refused with InvalidCriteria."""
    try:
        meets = compile_criteria(spec)
    except InvalidCriteria:
        return
    assert meets(RECORD) in (True, False)
