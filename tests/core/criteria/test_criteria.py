"""Criteria: when each operator holds, how groups combine, and which criteria don't compile."""

from __future__ import annotations

import copy
import json
import re
import time
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_insightly_hooks.core.criteria import (
    MAX_DEPTH,
    OPERATORS,
    ConditionOutcome,
    Criteria,
    Incomparable,
    check_criteria,
    compile_criteria,
    compile_explanation,
)
from airflow_insightly_hooks.core.errors import InvalidCriteria
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.core.records import RECORD_TYPES
from tests.strategies import (
    CRITERIA_NOW,
    NEGATIVES,
    NO_TIMES,
    conditions,
    criteria,
    criteria_fields,
    criteria_records,
    logic_lines,
    multi_selects,
    records,
    scalars,
)

UTC = timezone.utc
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)

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
    "CODES": "AB;CD",
    "FLOAT": 0.1,
    "HUGE": 10**20 + 1,
    "BIG_FLOAT": float(2**53),
    "HUGE_FLOAT": 1e23,  # which is not 10**23 in binary
    "DUE": "2024-06-01 12:00:00",
    "DAY": "2024-06-01",
    "YESTERDAY": "2024-05-31 23:59:59",
    "NOT_A_DAY": "2024-02-30 00:00:00",
    "SOON": "soon",
    "MIDNIGHT": "2024-06-01 24:00:00",
    "FOLDED": "2024-06-01_12:00:00",
    "LOWER": "2024-06-01t12:00:00z",
    "UPPER": "2024-06-01T12:00:00Z",
    "ZERO": 0,
    "MINUS": -(2**53),
    "MINUS_FLOAT": -float(2**53),
    "INFINITE": float("inf"),
    "MINUS_INFINITE": float("-inf"),
    "LONG": 10**400,
    "MIXED": [None, "", ["", [None, "deep"]], 5],
    "CUSTOMFIELDS": [
        {"FIELD_NAME": "Region__c", "FIELD_VALUE": "North"},
        {"FIELD_NAME": "Hobbies__c", "FIELD_VALUE": "Music;Sports;Travel"},
        {"FIELD_NAME": "Vip__c", "FIELD_VALUE": True},
        {"FIELD_NAME": "Empty__c", "FIELD_VALUE": None},
        {"FIELD_NAME": "Languages__c", "FIELD_VALUE": "German ; French;;"},
        {"FIELD_NAME": "Signed__c", "FIELD_VALUE": "2024-05-30 08:00:00"},
        {"FIELD_NAME": "Nested__c", "FIELD_VALUE": [{"ID": 7}]},
    ],
    "TAGS": [{"TAG_NAME": "Lead"}, {"TAG_NAME": "hot"}],
    "LINKS": [
        {"ROLE": "Buyer", "OBJECT": {"ID": 5, "NAMES": ["Ann", "Bob"]}},
        {"ROLE": None, "OBJECT": {"ID": 6, "NAMES": []}},
    ],
}


def meets(field: str, operator: str, *value: Any, **more: Any) -> bool:
    condition = {"field": field, "operator": operator, **({"value": value[0]} if value else {}), **more}
    return compile_criteria(condition, now=NOW)(RECORD)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # equals: text without regard to case, numbers as numbers, checkboxes as checkboxes
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
        # equals: exactly
        (("FLOAT", "equals", "0.1"), True),
        (("FLOAT", "equals", 0.1), True),
        (("FLOAT", "equals", 0.1 + 2**-56), False),
        (("HUGE", "equals", 10**20), False),
        (("HUGE", "equals", 1e20), False),
        (("HUGE", "equals", str(10**20 + 1)), True),
        (("BIG_FLOAT", "equals", 2**53), True),
        (("BIG_FLOAT", "equals", 2**53 + 1), False),
        (("HUGE_FLOAT", "equals", 10**23), True),
        (("HUGE_FLOAT", "equals", 10**23 + 1), False),
        (("PRIORITY", "equals", "1_0"), False),
        (("FLOAT", "equals", 0), False),
        (("ZERO", "equals", 0.0), True),
        (("ONE", "equals", 1.0), True),
        (("MINUS", "less_than", -(2**53) + 1), True),
        (("MINUS_FLOAT", "equals", -(2**53)), True),
        (("PRIORITY", "equals", "abc"), False),
        (("ZERO", "equals", "abc"), False),
        (("LOWER", "equals", "2024-06-01T12:00:00Z"), True),
        (("UPPER", "equals", "2024-06-01t12:00:00z"), True),
        (("INFINITE", "greater_than", 1), False),
        (("INFINITE", "less_than", 1), False),
        (("MINUS_INFINITE", "less_than", 1), False),
        (("INFINITE", "equals", "inf"), False),
        (("HUGE_FLOAT", "equals", float("1e23")), True),
        (("LONG", "equals", 10**400), True),
        (("LONG", "equals", f"{10**399}"), False),
        (("FLOAT", "less_than", "0.1000000000000000000001"), True),
        (("FLOAT", "greater_than", "0.1000000000000000000001"), False),
        (("PRIORITY", "not_equals", "0e999999999"), True),
        # equals: a wanted date means an instant
        (("DAY", "equals", "2024-06-01 00:00:00"), True),
        (("DUE", "equals", "2024-06-01T14:00:00+02:00"), True),
        (("DUE", "equals", "2024-06-01"), False),
        (("DUE", "equals", datetime(2024, 6, 1, 12)), True),  # noqa: DTZ001 — UTC is meant without a zone
        (("DUE", "equals", NOW.astimezone(timezone(timedelta(hours=9)))), True),
        (("DAY", "equals", date(2024, 6, 1)), True),
        (("DUE", "not_equals", "2024-06-01T12:00Z"), False),
        (("DUE", "in", ["x", "2024-06-01T12:00Z"]), True),
        (("DAY", "equals", "today"), False),  # a text like any other
        (("TITLE", "equals", "2024-06-01"), False),
        (("SOON", "equals", "2024-06-01"), False),
        (("SOON", "in", ["2024-06-01", date(2024, 6, 1)]), False),
        (("DAY", "in", [date(2024, 6, 1)]), True),
        (("DUE", "in", [date(2024, 6, 1)]), False),
        (("PRIORITY", "in", [date(2024, 6, 1)]), False),
        (("AMOUNT", "in", ["25000.5"]), False),  # both are text
        (("AMOUNT", "in", [25000.5]), True),
        (("MIDNIGHT", "equals", "2024-06-02"), False),
        (("FOLDED", "equals", "2024-06-01 12:00:00"), False),
        (("NOT_A_DAY", "equals", "2024-02-30 00:00:00"), True),
        (("PRIORITY", "equals", "2024-06-01"), False),
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
        # multi-selects: an option as a whole
        (("Hobbies__c", "contains", "Sport"), False),
        (("Hobbies__c", "not_contains", "Sport"), True),
        (("Hobbies__c", "contains", " Travel "), True),
        (("Hobbies__c", "contains", "Music;Sports"), False),
        (("Languages__c", "contains", "german"), True),
        (("Languages__c", "contains", "French"), True),
        (("Languages__c", "contains", " "), False),  # nothing between two semicolons is no option
        (("Hobbies__c", "starts_with", "mus"), True),
        (("Region__c", "contains", "ort"), True),
        (("CODES", "contains", "B;C"), True),  # a standard field is never a multi-select
        # tags: one as a whole
        (("TAGS", "contains", "lead"), True),
        (("TAGS", "contains", " HOT "), True),
        (("TAGS", "contains", "ho"), False),
        (("TAGS", "contains", " "), False),
        (("TAGS", "not_contains", "hot"), False),
        (("TAGS", "not_contains", "ho"), True),
        (("TAGS.TAG_NAME", "contains", "ot"), False),
        (("TAGS.TAG_NAME", "contains", "hot"), True),
        (("TAGS", "starts_with", "ho"), True),
        (("TAGS", "ends_with", "OT"), True),
        (("TAGS", "matches", "^h"), True),
        (("LINKS.ROLE", "contains", "uye"), True),
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
        (("HUGE", "greater_than", 10**20), True),
        (("HUGE", "greater_than", 1e20), True),
        (("BIG", "greater_than", float(2**53)), True),
        (("BIG_FLOAT", "less_than", 2**53 + 1), True),
        (("PRIORITY", "less_than", "1e999999999"), True),
        (("PRIORITY", "greater_than", "1e-999999999"), True),
        (("PRIORITY", "greater_than", "-1e999999999"), True),
        # dates
        (("DUE", "after", "2024-06-01 11:59:59.999"), True),
        (("DUE", "after", "2024-06-01 12:00:00"), False),
        (("DUE", "before", "2024-06-01T13:00:00Z"), True),
        (("DUE", "before", "now"), False),
        (("DUE", "before", "now+1s"), True),
        (("DUE", "after", "today"), True),
        (("DAY", "before", date(2024, 6, 2)), True),
        (("DAY", "after", datetime(2024, 5, 31)), True),  # noqa: DTZ001 — UTC is meant without a zone
        (("YESTERDAY", "on", "2024-05-31"), True),
        (("YESTERDAY", "on", "today"), False),
        (("YESTERDAY", "on", "today-1d"), True),
        (("YESTERDAY", "on", "2024-06-01T01:00:00+02:00"), True),
        (("DAY", "on", "now"), True),
        (("DUE", "on", "9999-12-31"), False),
        (("DUE", "within_last", "0s"), True),
        (("DUE", "within_next", "0s"), True),
        (("YESTERDAY", "within_last", "12h"), False),
        (("YESTERDAY", "within_last", timedelta(hours=12, seconds=1)), True),
        (("YESTERDAY", "within_next", "1w"), False),
        (("Signed__c", "within_last", "3d"), True),
        (("Signed__c", "within_last", "2d"), False),
        (("TITLE", "within_last", "3d"), False),
        (("PRIORITY", "before", "now"), False),
        (("STARRED", "on", "now"), False),
        (("NOT_A_DAY", "before", "now"), False),
        (("MISSING", "after", "2000-01-01"), False),
        (("DUE", "greater_than", "2024-06-01"), True),
        (("DUE", "greater_or_equal", "now"), True),
        (("DUE", "less_than", "now"), False),
        (("DUE", "less_or_equal", NOW), True),
        (("DUE", "between", ["2024-06-01", "now"]), True),
        (("DUE", "between", ["now+1s", "2024-06-02"]), False),
        (("DUE", "between", ["now", "2024-05-01"]), False),  # which comes first can't be known
        (("DUE", "between", ["now", "today"]), False),
        (("DUE", "between", ["2024-06-01 12:00:00", "2024-06-01T12:00Z"]), True),
        (("DAY", "between", ["today", "today"]), True),
        (("PRIORITY", "greater_than", "2024-06-01"), False),
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
        (("MIXED", "equals", "deep"), True),
        (("MIXED.DEEPER", "is_blank"), True),
        (("Nested__c.ID", "equals", 7), True),
        (("Nested__c.ID", "is_not_blank"), True),
        (("LINKS.NONE.ID", "is_blank"), True),
        (("LINKS.ROLE.DEEPER", "is_blank"), True),
        (("TITLE.DEEPER", "is_blank"), True),
        (("CUSTOMFIELDS.FIELD_NAME", "equals", "vip__c"), True),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_condition(condition, expected):
    """Each operator holds for the values that it is meant for, and for no others."""
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


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_almost_a_time_is_none(text):
    """Only a text that core.dates reads is a time, even if Python would read others as times."""
    for operator in ("before", "after", "less_or_equal", "greater_than", "on"):
        assert not compile_criteria({"field": "X", "operator": operator, "value": "2024-06-01"})({"X": text})


@pytest.mark.parametrize(
    ("multi_select", "value", "expected"),
    [
        (None, "Sport", False),
        ((), "Sport", True),
        (["Region__c"], "Sport", True),
        ({"Hobbies__c"}, "Sport", False),
        ({"Hobbies__c"}, "SPORTS", True),
    ],
)
def test_known_multi_selects(multi_select, value, expected):
    """If the multi-select fields are known, they decide whether a value has options; a ';' does not."""
    for operator, held in (("contains", expected), ("not_contains", not expected)):
        spec = {"field": "Hobbies__c", "operator": operator, "value": value}
        assert compile_criteria(spec, multi_select=multi_select)(RECORD) is held


def test_a_known_multi_select_may_have_one_option():
    """The one option of a known multi-select is compared as a whole. In other fields it is ordinary text."""
    spec = {"field": "Region__c", "operator": "contains", "value": "Nor"}
    assert compile_criteria(spec)(RECORD)
    assert not compile_criteria(spec, multi_select=["Region__c"])(RECORD)
    assert compile_criteria({**spec, "value": "north"}, multi_select=["Region__c"])(RECORD)


def test_tags_are_asked_for_as_a_whole():
    """`vi` is no tag of a record tagged VIP and Services.

    Case counts if the condition says so; ';' is a letter.
    """
    record = {"TAGS": [{"TAG_NAME": "VIP"}, {"TAG_NAME": "Services"}, {"TAG_NAME": "a;b"}, {"TAG_NAME": " "}]}
    for value, expected in {
        "vi": False,
        "vip": True,
        "ser": False,
        "services": True,
        "a": False,
        "A;B": True,
    }.items():
        spec = {"field": "TAGS", "operator": "contains", "value": value}
        for multi_select in (None, (), ("TAGS",)):
            assert compile_criteria(spec, multi_select=multi_select)(record) is expected
        assert compile_criteria({**spec, "operator": "not_contains"})(record) is not expected
    sensitive = {"field": "TAGS", "operator": "contains", "value": "vip", "case_sensitive": True}
    assert not compile_criteria(sensitive)(record)
    assert compile_criteria({**sensitive, "value": "VIP"})(record)


def test_options_can_count_case():
    """An option is compared with regard to case if the condition says case_sensitive."""
    spec = {"field": "Hobbies__c", "operator": "contains", "value": "sports"}
    assert compile_criteria(spec)(RECORD)
    assert not compile_criteria({**spec, "case_sensitive": True})(RECORD)


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
    """Groups hold if all, any or none of their members hold. Without criteria, every record meets them."""
    assert compile_criteria(spec)(RECORD) is expected


@pytest.mark.parametrize(
    ("conditions", "logic", "expected"),
    [
        ([YES, YES], None, True),
        ([YES, NO], None, False),
        ([NO, YES], None, False),
        ([YES, NO], "1 AND 2", False),
        ([NO, YES], "1 or 2", True),
        ([YES, NO, NO], "1 OR 2 AND 3", True),
        ([YES, NO, NO], "(1 OR 2) AND 3", False),
        ([YES, NO, NO], "1 AND (2 OR NOT 3)", True),
        ([YES, NO], "NOT 1 OR 2", False),
        ((YES,), "NOT (NOT 1)", True),
    ],
)
def test_numbered_conditions(conditions, logic, expected):
    """A logic line says how conditions combine; without one all must hold.

    Groups may contain numbered conditions.
    """
    spec = {"conditions": conditions, **({"logic": logic} if logic else {})}
    assert compile_criteria(spec)(RECORD) is expected
    assert compile_criteria({"none": [NO, {"all": [YES, spec]}]})(RECORD) is not expected


def nested(depth: int, inner: Any, kind: str = "none") -> Any:
    for _ in range(depth):
        inner = {kind: [inner]}
    return inner


def test_groups_nest_a_hundred_levels_deep():
    """Up to a hundred levels compile, even with a logic line in the innermost. A further level is refused."""
    line = "NOT (1 OR 2 AND " * 100 + "1" + ")" * 100
    spec = nested(MAX_DEPTH, {"conditions": [NO, YES], "logic": line})
    assert compile_criteria(spec)(RECORD) is compile_criteria(spec["none"][0]["none"][0])(RECORD)
    assert len(compile_explanation(spec)(RECORD)) == 2
    for depth in (MAX_DEPTH + 1, 10_000):
        spec = nested(depth, YES, "all")
        for function in (compile_criteria, check_criteria, compile_explanation, Criteria):
            with pytest.raises(InvalidCriteria) as caught:
                function(spec)
            assert caught.value.path == "criteria" + ".all[0]" * MAX_DEPTH
            assert caught.value.reason == "groups nest deeper than 100 levels"


# --- what is large -----------------------------------------------------------------------------------------


def test_a_long_list_takes_no_longer_than_a_short_one():
    """However many values ``in`` has, evaluating a record takes no time worth mentioning."""
    spec = {"field": "X", "operator": "in", "value": [*range(50_000), *(f"text {n}" for n in range(50_000))]}
    meets = compile_criteria(spec)
    started = time.process_time()
    for _ in range(1_000):
        assert meets({"X": "TEXT 49999"})
        assert meets({"X": "49999"})
        assert not meets({"X": "50000"})
    assert time.process_time() - started < 1


def many(depth: int, members: int, inner: Any) -> Any:
    """Return a few nested lists that amount to very many conditions."""
    for _ in range(depth):
        inner = {"all": [inner] * members}
    return inner


@pytest.mark.parametrize(
    ("spec", "path", "reason"),
    [
        (
            {"field": "X", "operator": "in", "value": ["x"] * 100_001},
            "criteria.value",
            "the list holds more than 100,000 values: use fewer",
        ),
        (
            {"all": [YES] * 10_001},
            "criteria.all[9999]",
            "there are more than 10,000 conditions and groups: use fewer",
        ),
        (
            {"all": [None] * 10_001},
            "criteria.all[9999]",
            "there are more than 10,000 conditions and groups: use fewer",
        ),
        (
            {"conditions": [YES] * 10_001},
            "criteria.conditions",
            "there are more than 10,000 conditions and groups: use fewer",
        ),
        (
            {"conditions": [YES], "logic": "1 OR " * 20_000 + "1"},
            "criteria.logic",
            "the line names conditions more than 20000 times",
        ),
    ],
    ids=["values", "conditions", "nothing", "numbered", "line"],
)
def test_what_is_too_large_is_refused(spec, path, reason):
    """They are refused at once, however many conditions they amount to."""
    started = time.process_time()
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria(spec)
    assert time.process_time() - started < 5
    assert caught.value.path == path
    assert caught.value.reason == reason


@pytest.mark.parametrize("inner", [YES, None])
def test_a_few_lists_cannot_stand_for_billions(inner):
    """A list that is used many times counts each time."""
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria(many(90, 10, inner))
    assert caught.value.reason == "there are more than 10,000 conditions and groups: use fewer"


def test_thousands_of_conditions_are_fine():
    """A group may have them, and so may a logic line that names each of them."""
    line = " OR ".join(str(number) for number in range(1, 9_001))
    started = time.process_time()
    for spec in ({"any": [NO] * 9_000}, {"conditions": [NO] * 9_000, "logic": line}):
        check_criteria(spec, RECORD_TYPES["Tasks"])
        assert not compile_criteria(spec)(RECORD)
        assert len(compile_explanation(spec)(RECORD)) == 9_000
    assert time.process_time() - started < 10


# --- what is refused ---------------------------------------------------------------------------------------


A_DATE = "a date is needed, such as '2017-03-10', '2017-03-10 08:00:00', 'today' or 'now-7d'"
A_DURATION = "a duration such as '30m', '2h', '7d' or '1w' is needed"
OUT_OF_RANGE = "a date of the years 1 to 9999 is needed"


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
        (
            {"all": [YES], "any": [YES]},
            "criteria",
            "a group has one key, which is one of all, any, none; this group has all, any",
        ),
        (
            {"all": [YES], "field": "X"},
            "criteria",
            "a group has one key, which is one of all, any, none; this group has all, field",
        ),
        ({"all": YES}, "criteria.all", "a list is needed, not dict"),
        ({"any": "TITLE"}, "criteria.any", "a list is needed, not str"),
        ({"none": None}, "criteria.none", "a list is needed, not NoneType"),
        ({"all": []}, "criteria.all", "a group needs at least one member"),
        ({"any": []}, "criteria.any", "a group needs at least one member"),
        (
            {"conditions": [YES], "logic": "1 AND"},
            "criteria.logic",
            "column 6: a number, NOT or '(' is needed, not the end of the line",
        ),
        (
            {"all": [None, {"conditions": [YES, NO], "logic": "1"}]},
            "criteria.all[1].logic",
            "column 2: condition 2 is not used: add it to the line, or remove it",
        ),
        ({"conditions": [YES], "logic": 1}, "criteria.logic", "a text is needed, not int"),
        ({"logic": "1"}, "criteria.conditions", "a list is needed, not NoneType"),
        ({"conditions": []}, "criteria.conditions", "at least one condition is needed"),
        ({"conditions": "1"}, "criteria.conditions", "a list is needed, not str"),
        ({"conditions": [YES, None]}, "criteria.conditions[1]", "a condition is needed, not NoneType"),
        ({"conditions": ["x"]}, "criteria.conditions[0]", "a condition is needed, not str"),
        ({"conditions": [{"all": [YES]}]}, "criteria.conditions[0]", "a condition is needed, not a group"),
        (
            {"conditions": [{"conditions": [YES]}]},
            "criteria.conditions[0]",
            "a condition is needed, not a group",
        ),
        ({"conditions": [condition(operator=5)]}, "criteria.conditions[0].operator", "a text is needed"),
        (
            {"conditions": [YES], "all": [YES]},
            "criteria",
            "numbered conditions have the keys conditions and logic; here there are conditions, all",
        ),
        (condition(feild="X"), "criteria.feild", "not a key of a condition; did you mean 'field'?"),
        (
            condition(**{"?": 1}),
            "criteria.?",
            "not a key of a condition; a group has one key, which is one of all, any, none",
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
            f"'resembles!' is not an operator; the operators are {', '.join(OPERATORS)}",
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
        (
            condition(operator="not_in", value=[]),
            "criteria.value",
            "the list is empty: at least one value is needed",
        ),
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
            "every text contains an empty text: give a text, or use is_blank",
        ),
        (condition(operator="matches", value=5), "criteria.value", "a regular expression is needed, not int"),
        (condition(operator="between", value=5), "criteria.value", "a list is needed, not int"),
        (
            condition(operator="between", value=[1]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[2, 1]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[1, 2, 3]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=[1, "2017-03-10"]),
            "criteria.value[1]",
            "a number is needed, because the lower bound is a number",
        ),
        (condition(operator="between", value=["2017-03-10", 1]), "criteria.value[1]", A_DATE),
        (condition(operator="between", value=["x", 1]), "criteria.value[0]", A_DATE),
        (
            condition(operator="between", value=["2017-03-10", "2017-03-09"]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=["2020-01-01", "2019-01-01"]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=["now", "now-1d"]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (
            condition(operator="between", value=["today", "today-1d"]),
            "criteria.value",
            "two numbers or two dates are needed, the lower one first",
        ),
        (condition(operator="contains", value=NOW), "criteria.value", "a text is needed, not datetime"),
        (condition(operator="before", value=5), "criteria.value", A_DATE),
        (condition(operator="after", value="soon"), "criteria.value", A_DATE),
        (condition(operator="on", value="2017-02-29"), "criteria.value", A_DATE),
        (condition(operator="on", value=None), "criteria.value", A_DATE),
        (condition(operator="within_last", value="7"), "criteria.value", A_DURATION),
        (condition(operator="within_last", value=7), "criteria.value", A_DURATION),
        (condition(operator="within_next", value="2017-03-10"), "criteria.value", A_DURATION),
        (condition(operator="within_next", value=timedelta(-1)), "criteria.value", A_DURATION),
        (condition(operator="within_last", value="999999w"), "criteria.value", OUT_OF_RANGE),
        (condition(operator="within_next", value=timedelta.max), "criteria.value", OUT_OF_RANGE),
        (condition(operator="before", value="now-999999w"), "criteria.value", OUT_OF_RANGE),
        (condition(operator="between", value=["now", "today+999999w"]), "criteria.value[1]", OUT_OF_RANGE),
        (
            condition(value=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))),
            "criteria.value",
            OUT_OF_RANGE,
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_criteria_that_cannot_be_compiled_are_refused(spec, path, reason):
    """InvalidCriteria says where the mistake is in the criteria, and what is wrong."""
    for function in (lambda spec: compile_criteria(spec, now=NOW), check_criteria):
        with pytest.raises(InvalidCriteria) as caught:
            function(spec)
        assert (caught.value.path, caught.value.reason) == (path, reason)


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        (
            {"any": [{"field": "TITLE", "operator": "equal"}, {"all": [{"feld": "x"}]}, {"some": []}]},
            ["any[0].operator", "any[1].all[0].feld", "any[2].some"],
        ),
        (
            {"conditions": [{"field": "TITLE"}, {"field": ""}], "logic": "1 AND 3"},
            ["conditions[0].operator", "conditions[1].field", "logic"],
        ),
        (
            {
                "all": [
                    {"field": "TITLE", "operator": "in", "value": "x"},
                    {"field": "TITEL", "operator": "is_blank"},
                    {"field": "TITLE", "operator": "is_blank"},
                    {"field": "COMPLETED", "operator": "contains", "value": "x"},
                ]
            },
            ["all[0].value", "all[1].field", "all[3].operator"],
        ),
    ],
)
def test_mistakes_of_several_conditions_are_told_together(spec, paths):
    """Mistakes of form are reported up to the first group that can't be read.

    Mistakes of fields and values follow.
    """
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria(spec, RECORD_TYPES["Tasks"])
    assert [path for path, _ in caught.value.problems] == [f"criteria.{path}" for path in paths]
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
        f"criteria.{path}" for path in paths
    ]


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"operator": "before", "value": "now"}, "criteria.all[0].value"),
        ({"operator": "on", "value": "today+1d"}, "criteria.all[0].value"),
        ({"operator": "greater_than", "value": "now-7d"}, "criteria.all[0].value"),
        ({"operator": "between", "value": ["2024-01-01", "now"]}, "criteria.all[0].value[1]"),
        ({"operator": "within_last", "value": "7d"}, "criteria.all[0].value"),
        ({"operator": "within_next", "value": timedelta(7)}, "criteria.all[0].value"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_relative_dates_need_a_time_to_be_measured_from(keys, path):
    """Without ``now`` they are refused when compiled, not when checked; has_relative_dates is true."""
    spec = {"all": [condition(**keys)]}
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(spec)
    assert caught.value.path == path
    assert caught.value.reason == (
        "a relative date is measured from a time, but no time was given: give `now`"
    )
    check_criteria(spec)
    assert Criteria(spec).has_relative_dates
    compile_criteria(spec, now=NOW)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        YES,
        {"any": [condition(operator="before", value="2024-01-01"), condition(value="today")]},
        {"conditions": [condition(operator="in", value=["now", "now-7d"])]},
    ],
)
def test_other_criteria_are_not_relative(spec):
    """Fixed dates need no time to measure from, and neither do texts that only look like relative dates."""
    assert Criteria(spec).has_relative_dates is False
    compile_criteria(spec)


def test_the_time_to_measure_from_is_aware():
    """A time without a zone is refused: it would mean another instant on another machine."""
    with pytest.raises(ValueError, match=r"^an aware time is needed to measure relative dates from$"):
        compile_criteria(None, now=datetime(2024, 6, 1))  # noqa: DTZ001 — what is tested


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{99999999999999999999}", "(" * 3000 + ")" * 3000])
def test_what_is_no_regular_expression_is_refused(pattern):
    """Whatever error Python's compiler raises becomes InvalidCriteria."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(condition(operator="matches", value=pattern))
    assert caught.value.path == "criteria.value"
    assert caught.value.reason.startswith("not a regular expression: ")


def test_what_takes_backtracking_is_refused():
    """It is refused when the DAG is parsed, with an alternative.

    Patterns that would keep Python busy for ever end at once.
    """
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria({"all": [condition(operator="matches", value="^(?!.*test)")]})
    assert caught.value.path == "criteria.all[0].value"
    assert caught.value.reason.endswith("use several conditions instead, in a group (all, any, none)")
    assert not compile_criteria(condition(operator="matches", value=r"^(\w+\s?)*$"))(
        {"TITLE": "a" * 60 + "!"}
    )


@pytest.mark.parametrize("operator", ["greater_than", "greater_or_equal", "less_than", "less_or_equal"])
@pytest.mark.parametrize(
    "value",
    [
        "many",
        "",
        "2017-02-29",
        "1_000",
        "\u0665",
        None,
        True,
        [1],
        float("nan"),
        float("inf"),
        "Infinity",
        "NaN",
    ],
)
def test_what_is_neither_number_nor_date_is_refused(operator, value):
    """These operators need a number, a date, or a text that can be read as one of them."""
    with pytest.raises(InvalidCriteria) as caught:
        compile_criteria(condition(operator=operator, value=value))
    assert caught.value.path == "criteria.value"
    assert caught.value.reason == "a number or a date is needed"


# --- what is asked of criteria -----------------------------------------------------------------------------

NUMBERED = {
    "any": [
        {"conditions": [condition(field="A__c", operator="contains"), YES], "logic": "1 OR NOT 2"},
        {"none": [condition(field="LINKS.ROLE", operator="not_contains")]},
        condition(field="B__c", operator="not_contains"),
        condition(field="C__c"),
        condition(field="TITLE", operator="contains"),
        condition(field="D__c.X", operator="contains"),
        None,
    ]
}


def test_fields():
    """``fields`` has the fields of all conditions, including numbered ones.

    Of a path, it has the first step.
    """
    assert Criteria(None).fields == frozenset()
    assert Criteria(NUMBERED).fields == {"A__c", "B__c", "C__c", "D__c", "LINKS", "STATUS", "TITLE"}


def test_option_fields():
    """``option_fields`` has the custom fields of which a condition asks for an option."""
    assert Criteria(None).option_fields == frozenset()
    assert Criteria(NUMBERED).option_fields == {"A__c", "B__c"}


def test_compile_explanation():
    """Each condition has its outcome, in the order of the criteria, whether or not it was needed."""
    spec = {
        "any": [
            YES,
            {"conditions": [NO, condition(operator="contains", value="lead")], "logic": "2 OR 1 AND 2"},
            condition(field="DUE", operator="within_last", value="1h"),
            condition(field="Hobbies__c", operator="not_contains", value="Sport"),
        ]
    }
    assert compile_explanation(None)(RECORD) == []
    assert compile_explanation(spec, now=NOW)(RECORD) == [
        ConditionOutcome("criteria.any[0]", "STATUS", "is_not_blank", True),
        ConditionOutcome("criteria.any[1].conditions[0]", "STATUS", "is_blank", False),
        ConditionOutcome("criteria.any[1].conditions[1]", "TITLE", "contains", True),
        ConditionOutcome("criteria.any[2]", "DUE", "within_last", True),
        ConditionOutcome("criteria.any[3]", "Hobbies__c", "not_contains", True),
    ]
    assert not compile_explanation(spec, now=NOW, multi_select=[])(RECORD)[4].held


@pytest.mark.parametrize(
    ("field", "operator", "value", "found"),
    [
        ("TITLE", "greater_than", 1, "text"),
        ("STARRED", "less_than", 1, "boolean"),
        ("LINKS", "between", [1, 2], "object"),
        ("LINKS.ROLE", "less_or_equal", 1, "text"),
        ("TITLE", "before", "now", "text"),
        ("NOT_A_DAY", "on", "now", "text"),
        ("PRIORITY", "within_last", "1d", "number"),
        ("COMPLETED", "after", "now", "boolean"),
        ("PRIORITY", "greater_than", "now", "number"),
        ("STARRED", "contains", "x", "boolean"),
        ("Vip__c", "not_contains", "x", "boolean"),
        ("LINKS", "starts_with", "x", "object"),
        ("COMPLETED", "matches", "x", "boolean"),
        ("PRIORITY", "is_checked", None, "number"),
        ("TITLE", "is_not_checked", None, "text"),
    ],
)
def test_what_cannot_be_compared_is_told_once(field, operator, value, found):
    """The value counts as not met.

    The callback gets its type once, however many records have a value of that type.
    """
    reported: list[Incomparable] = []
    spec = {"field": field, "operator": operator, **({} if value is None else {"value": value})}
    meets = compile_criteria({"all": [YES, spec]}, now=NOW, on_incomparable=reported.append)
    assert [meets(RECORD), meets(RECORD)] == [operator in NEGATIVES.values()] * 2
    assert reported == [Incomparable("criteria.all[1]", field, operator, found)]


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("STARRED", "equals", "x"),
        ("LINKS", "in", ["x"]),
        ("TITLE", "equals", 5),
        ("TITLE", "equals", "2024-01-01"),
        ("PRIORITY", "contains", "x"),
        ("DETAILS", "greater_than", 5),
        ("MISSING", "before", "now"),
        ("NONE_OF_THEM", "is_checked", None),
        ("AMOUNT", "greater_than", 5),
        ("LINKS", "is_blank", None),
    ],
)
def test_what_can_be_compared_is_not_told(field, operator, value):
    """The callback isn't called for blank values, numbers written as texts, or values that merely differ."""
    reported: list[Incomparable] = []
    spec = {"field": field, "operator": operator, **({} if value is None else {"value": value})}
    compile_criteria(spec, now=NOW, on_incomparable=reported.append)(RECORD)
    assert reported == []


def test_a_tag_that_is_not_a_text():
    """A tag's name that is not a text can't be compared. The record's other tags are still compared."""
    reported: list[Incomparable] = []
    spec = {"field": "TAGS", "operator": "contains", "value": "lead"}
    meets = compile_criteria(spec, now=NOW, on_incomparable=reported.append)
    assert not meets({"TAGS": [{"TAG_NAME": True}]})
    assert meets({"TAGS": [{"TAG_NAME": True}, {"TAG_NAME": "Lead"}]})
    assert [one.found for one in reported] == ["boolean"]


# --- what can be known of a record type --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record_type", "field", "guess"),
    [
        ("Contacts", "FIRSTNAME", "; did you mean 'FIRST_NAME'?"),
        ("Contacts", "Tags", "; did you mean 'TAGS'?"),
        ("Contacts", "LINK.ROLE", "; did you mean 'LINKS'?"),
        ("Contacts", "OPPORTUNITY_VALUE", ""),
        ("Emails", "DATE_UPDATED_UTC", "; did you mean 'DATE_CREATED_UTC'?"),
        ("Invoice__c", "LINKS.ROLE", ""),
    ],
)
def test_a_field_that_records_cannot_have(record_type, field, guess):
    """A field that the record type doesn't have is refused with its path, and a similar name is suggested."""
    spec = {"conditions": [YES | {"field": field}]}
    check_criteria(spec)
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria(spec, RECORD_TYPES[record_type])
    assert caught.value.path == "criteria.conditions[0].field"
    assert caught.value.reason == f"{record_type} have no field {field.split('.')[0]!r}{guess}"


@pytest.mark.parametrize(
    ("record_type", "field", "operator", "value"),
    [
        ("Contacts", "FIRST_NAME", "contains", "x"),
        ("Contacts", "FIRST_NAME", "greater_than", 5),
        ("Contacts", "FIRST_NAME", "before", "now"),
        ("Contacts", "CONTACT_ID", "starts_with", "5"),
        ("Contacts", "CONTACT_ID", "between", [1, 5]),
        ("Contacts", "DATE_OF_BIRTH", "greater_than", "2000-01-01"),
        ("Contacts", "DATE_OF_BIRTH", "between", ["2000-01-01", "now"]),
        ("Contacts", "DATE_OF_BIRTH", "contains", "2000"),
        ("Contacts", "EMAIL_OPTED_OUT", "is_checked", None),
        ("Contacts", "EMAIL_OPTED_OUT", "equals", True),
        ("Contacts", "EMAIL_OPTED_OUT", "is_blank", None),
        ("Contacts", "LINKS", "is_not_blank", None),
        ("Contacts", "LINKS.ROLE", "contains", "x"),
        ("Contacts", "LINKS.IS_FORWARD", "is_checked", None),
        ("Contacts", "LINKS.SOMETHING", "is_checked", None),
        ("Contacts", "DATES.OCCASION_DATE", "within_next", "7d"),
        ("Contacts", "CUSTOMFIELDS.FIELD_VALUE", "is_checked", None),
        ("Contacts", "Anything__c", "before", "now"),
        ("Contacts", "Anything__c", "is_checked", None),
        ("Contacts", "TAGS", "contains", "x"),
        ("Users", "TAGS", "equals", "x"),
        ("Invoice__c", "DATE_UPDATED_UTC", "within_last", "7d"),
        ("Invoice__c", "DATE_CREATED_UTC", "before", "now"),
        ("Invoice__c", "RECORD_NAME", "equals", "x"),
    ],
)
def test_a_condition_that_records_can_meet(record_type, field, operator, value):
    """A condition is accepted if it depends on the account, or if its values can sometimes be compared."""
    check_criteria(
        {"field": field, "operator": operator, **({} if value is None else {"value": value})},
        RECORD_TYPES[record_type],
    )


@pytest.mark.parametrize(
    ("field", "operator", "value", "reason"),
    [
        ("EMAIL_OPTED_OUT", "on", "now", "boolean, which 'on' can't compare with a date"),
        ("EMAIL_OPTED_OUT", "less_than", "now", "boolean, which 'less_than' can't compare with a date"),
        ("EMAIL_OPTED_OUT", "less_than", 5, "boolean, which 'less_than' can't compare with a number"),
        ("EMAIL_OPTED_OUT", "between", [1, 2], "boolean, which 'between' can't compare with a number"),
        ("EMAIL_OPTED_OUT", "contains", "x", "boolean, which 'contains' can't compare"),
        ("EMAIL_OPTED_OUT", "not_contains", "x", "boolean, which 'not_contains' can't compare"),
        ("EMAIL_OPTED_OUT", "matches", "x", "boolean, which 'matches' can't compare"),
        ("CONTACT_ID", "within_last", "1d", "int64, which 'within_last' can't compare with a date"),
        ("OWNER_USER_ID", "before", "now", "int32, which 'before' can't compare with a date"),
        ("CONTACT_ID", "greater_than", "now", "int64, which 'greater_than' can't compare with a date"),
        ("CONTACT_ID", "is_checked", None, "int64, which 'is_checked' can't compare"),
        ("FIRST_NAME", "is_not_checked", None, "text, which 'is_not_checked' can't compare"),
        ("DATE_OF_BIRTH", "is_checked", None, "datetime, which 'is_checked' can't compare"),
        ("DATE_CREATED_UTC", "is_checked", None, "datetime, which 'is_checked' can't compare"),
        ("DATE_OF_BIRTH", "greater_than", 5, "datetime, which 'greater_than' can't compare with a number"),
        ("LINKS.IS_FORWARD", "contains", "x", "boolean, which 'contains' can't compare"),
        ("DATES.OCCASION_DATE", "between", [1, 2], "datetime, which 'between' can't compare with a number"),
        ("TAGS", "is_checked", None, "text, which 'is_checked' can't compare"),
        ("LINKS", "before", "now", "links, which 'before' can't compare with a date"),
        ("TAGS.TAG_NAME", "is_checked", None, "text, which 'is_checked' can't compare"),
        (
            "LINKS",
            "equals",
            "x",
            "links, which 'equals' can't compare; name a field of its items, or use is_blank or is_not_blank",
        ),
    ],
)
def test_a_condition_that_no_record_can_meet(field, operator, value, reason):
    """An operator that can compare none of a field's values is refused.

    The error names the field and its kind.
    """
    spec = {"field": field, "operator": operator, **({} if value is None else {"value": value})}
    check_criteria(spec)
    with pytest.raises(InvalidCriteria) as caught:
        check_criteria({"any": [None, spec]}, RECORD_TYPES["Contacts"])
    assert caught.value.path == "criteria.any[1].operator"
    assert caught.value.reason == f"{field} is of the kind {reason}"


def test_the_dates_of_a_custom_object_have_a_known_kind():
    """So an operator that can't compare dates is found."""
    spec = {"field": "DATE_UPDATED_UTC", "operator": "is_checked"}
    with pytest.raises(InvalidCriteria, match="DATE_UPDATED_UTC is of the kind datetime, which"):
        check_criteria(spec, RECORD_TYPES["Invoice__c"])


# --- properties --------------------------------------------------------------------------------------------
#
# A second interpreter of criteria, simple and slow: without compilation, with fractions for decimals.


def present_values(record: Any, path: list[str]) -> list[Any]:
    if isinstance(record, list):
        return [value for item in record for value in present_values(item, path)]
    if not path:
        return [] if record is None or record == "" else [record]
    return present_values(record.get(path[0]), path[1:]) if isinstance(record, dict) else []


def values_of(record: dict[str, Any], field: str) -> list[Any]:
    own = {name: value for name, value in record.items() if value is not None}
    for custom in record.get("CUSTOMFIELDS") or []:
        own.setdefault(custom["FIELD_NAME"], custom["FIELD_VALUE"])
    return present_values(own, ["TAGS", "TAG_NAME"] if field == "TAGS" else field.split("."))


def number_of(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()  # a float is the decimal that it is written as
    return Fraction(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else None


TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S%z"]


def time_of(value: Any) -> datetime | None:
    for form in TIME_FORMATS if isinstance(value, str) else ():
        with suppress(ValueError):
            parsed = datetime.strptime(value, form)  # noqa: DTZ007 — UTC is meant without a zone
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return None


def wanted_time_of(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str) and value.startswith(("now", "today")):
        base = CRITERIA_NOW if value.startswith("now") else datetime(2024, 6, 1, tzinfo=UTC)
        offset = value.removeprefix("now").removeprefix("today")
        if not offset:
            return base
        return base + length_of(offset[1:]) if offset[0] == "+" else base - length_of(offset[1:])
    return time_of(value)


def length_of(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    seconds = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
    return timedelta(seconds=int(value[:-1]) * seconds[value[-1]])


def options_of(value: Any, field: str, in_custom: bool, multi_select: Any) -> list[str] | None:
    """The options of a multi-select; ``None`` if the field isn't one."""
    if "." in field or not is_plain(value):
        return None
    known = in_custom and ";" in str(value) if multi_select is None else field in multi_select
    return [option.strip() for option in str(value).split(";") if option.strip()] if known else None


def is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def same(value: Any, wanted: Any, sensitive: bool) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return isinstance(value, bool) and isinstance(wanted, bool) and value == wanted
    if isinstance(value, str) and isinstance(wanted, str):
        if time_of(value) and time_of(wanted):
            return time_of(value) == time_of(wanted)
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
    if operator in ("within_last", "within_next"):
        time, length = time_of(value), length_of(wanted)
        if time is None:
            return False
        ahead = time - CRITERIA_NOW
        return timedelta(0) <= (ahead if operator == "within_next" else -ahead) <= length
    dates = number_of(wanted[0] if operator == "between" else wanted) is None
    number = time_of(value) if dates else number_of(value)
    read = wanted_time_of if dates else number_of
    if number is None:
        return False
    if operator == "between":
        return read(wanted[0]) <= number <= read(wanted[1])
    limit = read(wanted)
    if operator == "on":
        return number.astimezone(UTC).date() == limit.astimezone(UTC).date()
    return {
        "before": number < limit,
        "after": number > limit,
        "greater_than": number > limit,
        "greater_or_equal": number >= limit,
        "less_than": number < limit,
        "less_or_equal": number <= limit,
    }[operator]


POSITIVES = {negative: positive for positive, negative in NEGATIVES.items()}


def interpret(spec: dict[str, Any] | None, record: dict[str, Any], multi_select: Any = None) -> bool:
    if spec is None:
        return True
    if "all" in spec:
        return all(interpret(member, record, multi_select) for member in spec["all"])
    if "any" in spec:
        return any(interpret(member, record, multi_select) for member in spec["any"])
    if "none" in spec:
        return not any(interpret(member, record, multi_select) for member in spec["none"])
    if "conditions" in spec:
        held = [interpret(member, record, multi_select) for member in spec["conditions"]]
        # Python's and, or and not bind as those of a logic line do.
        python = re.sub(r"\d+", lambda match: f" {held[int(match[0]) - 1]} ", spec.get("logic", "").lower())
        return bool(eval(f"({python})")) if "logic" in spec else all(held)  # noqa: S307 — of what is made here
    operator, field = spec["operator"], spec["field"]
    if operator in POSITIVES:
        return not interpret({**spec, "operator": POSITIVES[operator]}, record, multi_select)
    sensitive, wanted = spec.get("case_sensitive", False), spec.get("value")
    for value in values_of(record, field):
        options = options_of(value, field, record.get(field) is None, multi_select)
        if field == "TAGS":
            options = [value.strip()]
        if operator == "contains" and options is not None:
            if any(same(option, str(wanted).strip(), sensitive) for option in options):
                return True
        elif holds(value, operator, wanted, sensitive):
            return True
    return False


@settings(max_examples=200)
@given(conditions, criteria_records, multi_selects)
def test_a_condition_means_what_the_plain_interpreter_says(spec, record, multi_select):
    """For any condition and record, compiled criteria decide as a naive reading of them does."""
    meets = compile_criteria(spec, now=CRITERIA_NOW, multi_select=multi_select)
    assert meets(record) is interpret(spec, record, multi_select)


@given(criteria(depth=6), st.lists(criteria_records, min_size=1, max_size=3), multi_selects)
def test_criteria_mean_what_the_plain_interpreter_says(spec, delivered, multi_select):
    """For any criteria, nested up to six deep, compiled criteria decide as a naive reading of them does."""
    meets = compile_criteria(spec, now=CRITERIA_NOW, multi_select=multi_select)
    for record in delivered:
        assert meets(record) is interpret(spec, record, multi_select)


@given(logic_lines(), st.data())
def test_a_logic_line_means_what_groups_say(written, data):
    """A logic line and nested groups of the same meaning decide the same."""
    line, tree, count = written
    numbered = data.draw(st.lists(conditions, min_size=count, max_size=count))
    record = data.draw(criteria_records)

    def groups(tree):
        if isinstance(tree, int):
            return numbered[tree - 1]
        return {{"and": "all", "or": "any", "not": "none"}[tree[0]]: [groups(member) for member in tree[1]]}

    by_line = compile_criteria({"conditions": numbered, "logic": line}, now=CRITERIA_NOW)
    by_groups = compile_criteria(groups(tree), now=CRITERIA_NOW)
    assert by_line(record) is by_groups(record)


def decided(spec: Any, held: list[bool]) -> bool:
    """Combine the outcomes of conditions by groups and logic lines.

    Each condition takes the next outcome in the list.
    """
    if spec is None:
        return True
    if "field" in spec:
        return held.pop(0)
    if "conditions" in spec:
        own = [held.pop(0) for _ in spec["conditions"]]
        return interpret({**spec, "conditions": [YES if one else NO for one in own]}, RECORD)
    ((kind, members),) = spec.items()
    values = [decided(member, held) for member in members]
    return {"all": all(values), "any": any(values), "none": not any(values)}[kind]


@given(criteria(depth=4), criteria_records, multi_selects)
def test_explanations_agree_with_the_decision(spec, record, multi_select):
    """The conditions' outcomes, combined, agree with the compiled criteria."""
    outcomes = compile_explanation(spec, now=CRITERIA_NOW, multi_select=multi_select)(record)
    held = [outcome.held for outcome in outcomes]
    meets = compile_criteria(spec, now=CRITERIA_NOW, multi_select=multi_select)
    assert decided(spec, held) is meets(record)
    assert held == []


@given(criteria(depth=4), criteria_records)
def test_without_the_culprits_outcomes_the_criteria_are_met(spec, record):
    """If each culprit had the opposite outcome, the record would meet the criteria.

    A record that meets them has none.
    """
    parsed = Criteria(spec)
    outcomes = parsed.compile_explanation(now=CRITERIA_NOW)(record)
    culprits = parsed.culprits(outcomes)
    met = parsed.compile(now=CRITERIA_NOW)(record)
    assert all(outcome in outcomes for outcome in culprits)
    assert not (met and culprits)
    otherwise = [outcome.held is not (outcome in culprits) for outcome in outcomes]
    # There is no culprit if only ``null`` is left, and all are culprits if a line says "1 AND NOT 1".
    if culprits and "'logic'" not in repr(spec) and "None" not in repr(spec):
        assert decided(spec, otherwise)
    groups = parsed.group_outcomes(outcomes)
    if groups and groups[0].path in ("criteria.all", "criteria.any", "criteria.none", "criteria.logic"):
        assert groups[0].held is met


@given(criteria(depth=2), st.lists(records() | criteria_records, max_size=4))
def test_evaluating_changes_nothing(spec, delivered):
    """Criteria and records stay unchanged, and evaluating again gives the same answers."""
    before = copy.deepcopy((spec, delivered))
    meets = compile_criteria(spec, now=CRITERIA_NOW)
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
    values |= dict.fromkeys(["before", "after", "on"], "now")
    values |= dict.fromkeys(["within_last", "within_next"], "1d")
    spec = {"field": "X", "operator": name}
    if OPERATORS[name].takes_value:
        spec["value"] = values.get(name, "1")
    negative = name in NEGATIVES.values()
    for record in ({}, {"X": None}, {"X": ""}, {"X": []}, {"CUSTOMFIELDS": None}):
        assert compile_criteria(spec, now=NOW)(record) is negative


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        [
            *OPERATORS,
            "TAGS",
            "A.B",
            "A__c",
            "now-7d",
            "7d",
            "2024-06-01",
            "1 AND 2",
            "NOT 1",
            "5",
            "1e999999999",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["all", "any", "none", "conditions", "logic", "field", "operator", "value"])
            | st.sampled_from(["CUSTOMFIELDS", "FIELD_NAME", "FIELD_VALUE", "TAGS", "TAG_NAME", "A", "A__c"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100)
@given(any_json | st.lists(any_json, max_size=3).map(lambda members: {"all": members}), any_json)
def test_anything_else_is_refused_in_one_way(spec, value):
    """Any JSON value is compiled as criteria, or refused with InvalidCriteria."""
    for function in (compile_criteria, check_criteria, compile_explanation):
        with suppress(InvalidCriteria):
            function(spec)
    with suppress(InvalidCriteria):
        parsed = Criteria(spec)
        assert parsed.option_fields <= parsed.fields
        assert parsed.has_relative_dates in (True, False)
    with suppress(InvalidCriteria):
        assert compile_criteria(spec, now=NOW)(RECORD) in (True, False)
    for operator in OPERATORS:
        with suppress(InvalidCriteria):
            spec = {"field": "TITLE", "operator": operator, "value": value}
            assert compile_criteria(spec, now=NOW)(RECORD) in (True, False)


CONDITIONS_OF_EACH_OPERATOR = [
    {"field": field, "operator": name, **({"value": value} if OPERATORS[name].takes_value else {})}
    for field in ("A", "A__c", "TAGS", "A.B", "CUSTOMFIELDS.FIELD_VALUE")
    for name, value in {
        **dict.fromkeys(OPERATORS, "5"),
        "in": [5, "x", True, "2024-06-01"],
        "not_in": [5, "x"],
        **dict.fromkeys(["before", "after", "on"], "now"),
        **dict.fromkeys(["within_last", "within_next"], "1d"),
        "between": [0, 2.5],
    }.items()
]


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["A", "A__c", "TAGS", "CUSTOMFIELDS"]), any_json, max_size=4)
    | st.builds(
        lambda items, value: {"CUSTOMFIELDS": [*items, {"FIELD_NAME": "A__c", "FIELD_VALUE": value}]},
        st.lists(any_json, max_size=2),
        any_json,
    )
)
def test_any_record_is_decided_on(record):
    """For any JSON in a record, each operator holds or doesn't.

    A condition reports a value that it can't compare once.
    """
    reported: list[Incomparable] = []
    for spec in CONDITIONS_OF_EACH_OPERATOR:
        meets = compile_criteria(spec, now=NOW, on_incomparable=reported.append)
        assert meets(record) is meets(record)
    assert len(reported) <= len(CONDITIONS_OF_EACH_OPERATOR)
    json.dumps(reported)


@pytest.mark.parametrize(
    "value",
    [
        *(10**5000, -(10**5000), "9" * 100_000, float("inf"), float("nan"), "sNaN"),
        *map(loads, ("1e400", "1E-999999", "9" * 100_000, "1e99999999999999999999")),
    ],
    ids=type,
)
def test_monstrous_numbers_are_decided_on(value):
    """Numbers that Python refuses to write, infinities and NaN are compared, or count as not met."""
    for spec in CONDITIONS_OF_EACH_OPERATOR:
        assert compile_criteria(spec, now=NOW)({"A": value}) in (True, False)
    for name in ("equals", "contains", "greater_than"):
        with suppress(InvalidCriteria):
            compile_criteria({"field": "A", "operator": name, "value": value})({"A": 1, "B": value})
