"""Hypothesis strategies: records as Insightly's API delivers them, and what users write about them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from airflow_insightly_hooks.core.changes import EVENTS, ChangeWindow, RecordChange
from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.records import RECORD_TYPES, Field

UTC = timezone.utc

RECORD_TYPE_NAMES = (*RECORD_TYPES, "Invoice__c")

# Any code point, lone surrogates included: JSON's escapes can bring them.
any_text = st.text(st.characters(exclude_categories=()), max_size=12)
names = st.text(st.characters(codec="ascii", categories=("Lu", "Ll", "Nd")), min_size=1, max_size=8)
custom_names = names.map(lambda name: f"F{name}__c")

# --- times -------------------------------------------------------------------------------------------------

instants = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC))  # noqa: DTZ001 — Hypothesis takes naive bounds
recent = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 — the same
milliseconds = recent.map(lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000))


def api_text(instant: datetime) -> str:
    """Return a time as the API writes it: milliseconds only where there are some."""
    text = instant.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{instant.microsecond // 1000:03}" if instant.microsecond else text


api_times = (milliseconds | recent.map(lambda instant: instant.replace(microsecond=0))).map(api_text)


@st.composite
def windows(draw: st.DrawFn) -> ChangeWindow:
    start = draw(recent)
    length = draw(st.timedeltas(timedelta(0), timedelta(days=400)))
    return ChangeWindow(start, start + length)


@st.composite
def adjoining_windows(draw: st.DrawFn) -> list[ChangeWindow]:
    """One to six windows, each starting where the one before ends; some may be empty."""
    bounds = sorted(draw(st.lists(recent, min_size=2, max_size=7)))
    return [ChangeWindow(start, end) for start, end in pairwise(bounds)]


# --- records -----------------------------------------------------------------------------------------------

integers = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
ids = st.integers(1, 2**63 - 1)

custom_values = (
    st.none() | any_text | st.booleans() | numbers | api_times | st.sampled_from(["Music;Sports;Travel"])
)
custom_fields = st.lists(
    st.builds(
        lambda name, value: {"FIELD_NAME": name, "FIELD_VALUE": value, "CUSTOM_FIELD_ID": name},
        custom_names,
        custom_values,
    ),
    max_size=4,
    unique_by=lambda custom: custom["FIELD_NAME"],
)
tags = st.lists(st.fixed_dictionaries({"TAG_NAME": any_text}), max_size=3)
links = st.lists(
    st.fixed_dictionaries(
        {
            "LINK_ID": ids,
            "OBJECT_NAME": st.sampled_from(["Contact", "Organisation", "Opportunity"]),
            "OBJECT_ID": ids,
            "LINK_OBJECT_NAME": st.sampled_from(["Contact", "Project"]),
            "LINK_OBJECT_ID": ids,
            "ROLE": st.none() | any_text,
            "DETAILS": st.none() | any_text,
            "RELATIONSHIP_ID": st.none() | ids,
            "IS_FORWARD": st.none() | st.booleans(),
        }
    ),
    max_size=2,
)
occasions = st.lists(
    st.fixed_dictionaries(
        {
            "DATE_ID": ids,
            "OCCASION_NAME": any_text,
            "OCCASION_DATE": api_times,
            "REPEAT_YEARLY": st.booleans(),
            "CREATE_TASK_YEARLY": st.booleans(),
        }
    ),
    max_size=2,
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int32": st.none() | st.integers(-(2**31), 2**31 - 1),
    "int64": st.none() | integers,
    "number": st.none() | numbers,
    "text": st.none() | any_text,
    "boolean": st.none() | st.booleans(),
    "datetime": st.none() | api_times,
    "custom_fields": custom_fields | st.none(),
    "tags": tags,
    "links": links,
    "dates": occasions,
    "email_domains": st.lists(st.fixed_dictionaries({"EMAIL_DOMAIN": any_text}), max_size=2),
}
"""What the API delivers in a field, by the field's kind."""


@st.composite
def records(
    draw: st.DrawFn,
    record_type: str | None = None,
    times: st.SearchStrategy[datetime] = milliseconds,
) -> dict[str, Any]:
    """A record with a few of its type's fields filled, the others null, all in the API's order.

    :param record_type: a name; ``None`` draws one.
    :param times: the instants of creation and update.
    """
    fields = RECORD_TYPES[record_type or draw(st.sampled_from(RECORD_TYPE_NAMES))].fields
    filled = set(draw(st.lists(st.sampled_from(list(fields)), max_size=6)))
    record = {name: _value(draw, field, filled, times) for name, field in fields.items()}
    record[next(iter(fields))] = draw(ids)
    return record


def _value(draw: st.DrawFn, field: Field, filled: set[str], times: st.SearchStrategy[datetime]) -> Any:
    if field.name in ("DATE_CREATED_UTC", "DATE_UPDATED_UTC"):
        return api_text(draw(times))
    if field.name in filled or field.kind in ("custom_fields", "tags", "links", "dates"):
        return draw(VALUES[field.kind])
    return None


@st.composite
def changes(draw: st.DrawFn) -> RecordChange:
    """A change as it passes through XCom."""
    record_type = RECORD_TYPES[draw(st.sampled_from(RECORD_TYPE_NAMES))]
    record = draw(records(record_type.name))
    return {
        "record_type": record_type.name,
        "record_id": record[record_type.id_field],
        "event": draw(st.sampled_from(EVENTS)),
        "changed_at": iso_time(draw(milliseconds)),
        "record": record,
    }


# --- criteria ----------------------------------------------------------------------------------------------

# Few fields and values, so that conditions are met often enough.
WORDS = ["France", "FRANCE", "fra", "Straße", "STRASSE", "new lead", "5", "05", "1e3", "-2.50"]
AMOUNTS = [0, 5, 5.0, 1000, -2.5, 0.1, 10**20, 10**20 + 1, 2**53 + 1]
BLANKS = [None, ""]
TEXT_FIELDS = ["STATUS", "Region__c", "TAGS", "LINKS.ROLE"]
NUMBER_FIELDS = ["AMOUNT", "Score__c", "LINKS.OBJECT.ID"]
CHECKBOXES = ["ACTIVE", "Vip__c"]
CRITERIA_FIELDS = [*TEXT_FIELDS, *NUMBER_FIELDS, *CHECKBOXES, "LINKS", "MISSING"]

words, amounts = st.sampled_from(WORDS), st.sampled_from(AMOUNTS)
scalars = st.sampled_from([*WORDS, *AMOUNTS, True, False])
criteria_fields = st.sampled_from(CRITERIA_FIELDS)

_texts = st.sampled_from([*WORDS, *BLANKS])
_numbers = st.sampled_from([*AMOUNTS, *WORDS[-4:], *BLANKS])
_checkmarks = st.sampled_from([True, False, True, False, "France", *BLANKS])
_custom = st.fixed_dictionaries({"Region__c": _texts, "Score__c": _numbers, "Vip__c": _checkmarks})

criteria_records = st.fixed_dictionaries(
    {
        "STATUS": _texts,
        "AMOUNT": _numbers,
        "ACTIVE": _checkmarks,
        "CUSTOMFIELDS": _custom.map(
            lambda fields: [{"FIELD_NAME": name, "FIELD_VALUE": value} for name, value in fields.items()]
        ),
        "TAGS": st.lists(words.map(lambda name: {"TAG_NAME": name}), max_size=3),
        "LINKS": st.lists(
            st.builds(lambda role, number: {"ROLE": role, "OBJECT": {"ID": number}}, _texts, _numbers),
            max_size=3,
        ),
    }
)

TEXT_OPERATORS = ("contains", "not_contains", "starts_with", "ends_with")
NUMBER_OPERATORS = ("greater_than", "greater_or_equal", "less_than", "less_or_equal")
BARE_OPERATORS = ("is_blank", "is_not_blank", "is_checked", "is_not_checked")
NEGATIVES = {
    "equals": "not_equals",
    "in": "not_in",
    "contains": "not_contains",
    "is_not_blank": "is_blank",
    "is_checked": "is_not_checked",
}
"""Positive operators with their complements."""

_bounds = st.lists(st.sampled_from([0, 5, "1e3", -2.5, 10**20]), min_size=2, max_size=2).map(
    lambda pair: sorted(pair, key=float)
)


def _condition(
    operators: tuple[str, ...], operand: st.SearchStrategy[Any], fields: list[str]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "field": st.sampled_from([*fields * 3, *CRITERIA_FIELDS]),
            "operator": st.sampled_from(operators),
            "value": operand,
        },
        optional={"case_sensitive": st.booleans()},
    )


conditions: st.SearchStrategy[dict[str, Any]] = st.one_of(
    _condition(("equals", "not_equals"), scalars, TEXT_FIELDS),
    _condition(("in", "not_in"), st.lists(scalars, min_size=1, max_size=5), NUMBER_FIELDS),
    _condition(TEXT_OPERATORS, st.sampled_from(["fr", "ance", "ss", "5", 0, *WORDS]), TEXT_FIELDS),
    _condition(("matches",), st.sampled_from(["^fra", "ss", r"\d+$", "(?-i:F)", "."]), TEXT_FIELDS),
    _condition(NUMBER_OPERATORS, st.sampled_from([*AMOUNTS, "5", "1e3"]), NUMBER_FIELDS),
    _condition(("between",), _bounds, NUMBER_FIELDS),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from([*CHECKBOXES * 3, *CRITERIA_FIELDS]),
            "operator": st.sampled_from(BARE_OPERATORS),
        }
    ),
)


@st.composite
def criteria(draw: st.DrawFn, depth: int = 6) -> dict[str, Any] | None:
    """Criteria whose groups nest up to ``depth`` deep; most of them nest so deep somewhere."""
    kind = draw(st.sampled_from(["all", "any", "none", "condition"])) if depth else "condition"
    if kind == "condition":
        return draw(conditions | st.none())
    others = draw(st.lists(conditions | criteria(depth // 2), max_size=2))
    return {kind: draw(st.permutations([draw(criteria(depth - 1)), *others]))}
