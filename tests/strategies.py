"""Hypothesis strategies: records as Insightly's API delivers them, and criteria and workflows of users."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.detection.changes import EVENTS, ChangeWindow, RecordChange
from airflow_insightly_hooks.core.exact_json import loads
from airflow_insightly_hooks.core.records import RECORD_TYPES, Field

UTC = timezone.utc

RECORD_TYPE_NAMES = (*RECORD_TYPES, "Invoice__c")

# Any code point, lone surrogates included: JSON's escapes can bring them.
any_text = st.text(st.characters(exclude_categories=()), max_size=12)
names = st.text(st.characters(codec="ascii", categories=("Lu", "Ll", "Nd")), min_size=1, max_size=8)
custom_names = names.map(lambda name: f"F{name}__c")

# Numbers as JSON writes them, and values as core.exact_json reads them.
number_texts = (
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.integers().map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
exact_numbers = number_texts.map(loads)
exact_values = st.recursive(
    st.none() | st.booleans() | exact_numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)

# --- times -------------------------------------------------------------------------------------------------

instants = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC))  # noqa: DTZ001 — Hypothesis takes naive bounds
recent = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 — the same
milliseconds = recent.map(lambda instant: instant.replace(microsecond=instant.microsecond // 1000 * 1000))


def api_text(instant: datetime) -> str:
    """Return a time as the API writes it, with milliseconds only if it has some."""
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

CRITERIA_NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
"""What relative dates in the criteria below are measured from."""

# Few fields and values, so that conditions are met often enough.
WORDS = ["France", "FRANCE", "fra", "Straße", "STRASSE", "new lead", "5", "05", "1e3", "-2.50"]
AMOUNTS = [0, 5, 5.0, 1000, -2.5, 0.1, 10**20, 10**20 + 1, 1e20, 2**53, float(2**53), 2**53 + 1, 1e23, 10**23]
TIMES = [
    "2024-06-01 12:00:00",
    "2024-06-01 12:00:01",
    "2024-06-01 00:00:00",
    "2024-06-01",
    "2024-06-01T02:00:00+02:00",
    "2024-05-31 23:59:59",
    "2024-06-01 11:59:59.500",
    "2024-06-02 00:00:00",
    "2024-05-25 12:00:00",
]
NO_TIMES = [
    "2024-02-30 00:00:00",
    "2024-06-01 24:00:00",
    "2024-06-01 23:60:00",
    "2024-06-01x12:00:00",
    "2024-W22-6 12:00:00",
    "2024-06-01 12+01:00",
    "20240601T120000.000",
    "2024-06-01 ab:cd:ef",
]
OPTIONS = ["Music;Sports;Travel", "music; SPORTS ;", "Sports", "Sport;France", ";", "5;6"]
BLANKS = [None, ""]
TEXT_FIELDS = ["STATUS", "Region__c", "TAGS", "LINKS.ROLE", "Hobbies__c"]
NUMBER_FIELDS = ["AMOUNT", "Score__c", "LINKS.OBJECT.ID"]
DATE_FIELDS = ["CREATED", "Due__c", "UPDATED"]
CHECKBOXES = ["ACTIVE", "Vip__c"]
CRITERIA_FIELDS = [*TEXT_FIELDS, *NUMBER_FIELDS, *DATE_FIELDS, *CHECKBOXES, "LINKS", "MISSING"]

words, amounts = st.sampled_from(WORDS), st.sampled_from(AMOUNTS)
scalars = st.sampled_from([*WORDS, *AMOUNTS, *TIMES, True, False])
criteria_fields = st.sampled_from(CRITERIA_FIELDS)
multi_selects = st.sampled_from([None, (), ("Hobbies__c",), ("Region__c", "Hobbies__c", "LINKS")])

_texts = st.sampled_from([*WORDS, *BLANKS])
_numbers = st.sampled_from([*AMOUNTS, *WORDS[-4:], *BLANKS])
_times = st.sampled_from([*TIMES, *TIMES, *NO_TIMES, "France", 5, *BLANKS])
_checkmarks = st.sampled_from([True, False, True, False, "France", *BLANKS])
_custom = st.fixed_dictionaries(
    {
        "Region__c": _texts,
        "Hobbies__c": st.sampled_from([*OPTIONS, *OPTIONS, 5, True, None]),
        "Score__c": _numbers,
        "Due__c": _times,
        "Vip__c": _checkmarks,
        "UPDATED": _times,  # as custom objects have it
    }
)

criteria_records = st.fixed_dictionaries(
    {
        "STATUS": _texts | st.sampled_from(OPTIONS),
        "AMOUNT": _numbers,
        "CREATED": _times,
        "ACTIVE": _checkmarks,
        "CUSTOMFIELDS": _custom.map(
            lambda fields: [{"FIELD_NAME": name, "FIELD_VALUE": value} for name, value in fields.items()]
        ),
        "TAGS": st.lists(words.map(lambda name: {"TAG_NAME": name}), max_size=3),
        "LINKS": st.lists(
            st.builds(lambda role, number: {"ROLE": role, "OBJECT": {"ID": number}}, _texts, _numbers),
            max_size=3,
        ),
    },
    optional={"UPDATED": st.none()},
)

TEXT_OPERATORS = ("contains", "not_contains", "starts_with", "ends_with")
ORDER_OPERATORS = ("greater_than", "greater_or_equal", "less_than", "less_or_equal")
DATE_OPERATORS = ("before", "after", "on")
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
_dates = st.sampled_from(
    [
        *TIMES,
        "now",
        "today",
        "now-12h",
        "today+1d",
        "now-1w",
        date(2024, 6, 1),
        datetime(2024, 6, 1, 12),  # noqa: DTZ001 — UTC is meant without a zone
        datetime(2024, 6, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    ]
)
_date_bounds = st.tuples(st.sampled_from(TIMES), st.sampled_from(["now", "now-12h", "2024-06-03"]))
_durations = st.sampled_from(["0s", "1s", "30m", "12h", "1d", "1w", timedelta(days=7), timedelta(0)])


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
    _condition(("equals", "not_equals"), scalars, [*TEXT_FIELDS, *DATE_FIELDS]),
    _condition(("in", "not_in"), st.lists(scalars, min_size=1, max_size=5), NUMBER_FIELDS),
    _condition(TEXT_OPERATORS, st.sampled_from(["fr", "ance", "ss", "5", 0, *WORDS]), TEXT_FIELDS),
    _condition(
        ("contains", "not_contains"),
        st.sampled_from(["Sport", "sports", " Music ", ";", " "]),
        ["Hobbies__c"],
    ),
    _condition(("matches",), st.sampled_from(["^fra", "ss", r"\d+$", "(?-i:F)", "."]), TEXT_FIELDS),
    _condition(ORDER_OPERATORS, st.sampled_from([*AMOUNTS, "5", "1e3"]), NUMBER_FIELDS),
    _condition(ORDER_OPERATORS, _dates, DATE_FIELDS),
    _condition(DATE_OPERATORS, _dates, DATE_FIELDS),
    _condition(("within_last", "within_next"), _durations, DATE_FIELDS),
    _condition(("between",), _bounds, NUMBER_FIELDS),
    _condition(("between",), _date_bounds, DATE_FIELDS),
    st.fixed_dictionaries(
        {
            "field": st.sampled_from([*CHECKBOXES * 3, *CRITERIA_FIELDS]),
            "operator": st.sampled_from(BARE_OPERATORS),
        }
    ),
)

LogicTree = int | tuple[str, list[Any]]
"""A condition's number, or ``and``, ``or`` or ``not`` with what it combines."""


@st.composite
def logic_trees(draw: st.DrawFn) -> tuple[LogicTree, int]:
    """The tree of a logic line, and its number of conditions. The tree has each condition."""
    tree = draw(
        st.recursive(
            st.integers(1, 5),
            lambda inner: (
                st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
                | st.tuples(st.just("not"), st.lists(inner, min_size=1, max_size=1))
            ),
            max_leaves=8,
        )
    )
    places: dict[int, int] = {}

    def renumbered(tree: LogicTree) -> LogicTree:
        if isinstance(tree, int):
            return places.setdefault(tree, len(places) + 1)
        return tree[0], [renumbered(member) for member in tree[1]]

    return renumbered(tree), len(places)


def logic_line(draw: st.DrawFn, tree: LogicTree, binding: int = 0) -> str:
    """Write a tree as a line, with random spaces, cases and needless parentheses."""
    space = draw(st.sampled_from([" ", " ", "  ", "\t"]))
    if isinstance(tree, int):
        text, own = str(tree), 3
    else:
        kind, members = tree
        own = {"or": 0, "and": 1, "not": 2}[kind]
        word = draw(st.sampled_from([kind, kind.upper(), kind.capitalize()]))
        parts = [logic_line(draw, member, own) for member in members]
        text = f"{word}{space}{parts[0]}" if kind == "not" else f"{space}{word}{space}".join(parts)
    if own < binding or draw(st.integers(0, 3)) == 0:
        return f"({text})" if draw(st.booleans()) else f"({space}{text}{space})"
    return text


@st.composite
def logic_lines(draw: st.DrawFn) -> tuple[str, LogicTree, int]:
    """A logic line, its tree, and its number of conditions."""
    tree, count = draw(logic_trees())
    return logic_line(draw, tree), tree, count


@st.composite
def numbered_conditions(draw: st.DrawFn) -> dict[str, Any]:
    """Conditions with a logic line, or without one."""
    line, _, count = draw(logic_lines())
    spec = {"conditions": draw(st.lists(conditions, min_size=count, max_size=count))}
    return spec if draw(st.integers(0, 4)) == 0 else {**spec, "logic": line}


@st.composite
def criteria(draw: st.DrawFn, depth: int = 6) -> dict[str, Any] | None:
    """Criteria whose groups nest up to ``depth`` deep. Most of them reach this depth somewhere."""
    kind = draw(st.sampled_from(["all", "any", "none", "condition"])) if depth else "condition"
    if kind == "condition":
        return draw(conditions | numbered_conditions() | st.none())
    others = draw(st.lists(conditions | criteria(depth // 2), max_size=2))
    return {kind: draw(st.permutations([draw(criteria(depth - 1)), *others]))}


# --- workflows ---------------------------------------------------------------------------------------------

storable_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_looking_otherwise = st.sampled_from(
    [
        "on",
        "no",
        "null",
        "~",
        "1e5",
        "007",
        "1:30",
        "2026-01-31",
        "0x1F",
        ".5",
        "- a",
        "a: b",
        "# c",
        "<<",
        "*x",
    ]
)
file_texts = (storable_text | _looking_otherwise).filter(str.strip)
"""Texts that a workflow file can hold, some of which YAML reads as something else."""
file_names = (storable_text | _looking_otherwise).map(lambda text: f"N {text}".strip())
file_durations = st.builds(
    lambda number, unit: f"{number}{unit}", st.integers(1, 999), st.sampled_from("smhd")
)
_file_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_file_values = file_texts | _file_numbers
_file_conditions = st.one_of(
    st.fixed_dictionaries(
        {
            "field": st.sampled_from(["FIRST_NAME", "TAGS", "Region__c"]),
            "operator": st.sampled_from(["equals", "not_equals", "contains"]),
            "value": file_texts,
        },
        optional={"case_sensitive": st.booleans()},
    ),
    st.fixed_dictionaries(
        {
            "field": st.just("Amount__c"),
            "operator": st.just("in"),
            "value": st.lists(file_texts | _file_numbers, min_size=1),
        }
    ),
    st.fixed_dictionaries(
        {"field": st.just("Amount__c"), "operator": st.just("greater_than"), "value": _file_numbers}
    ),
    st.fixed_dictionaries({"field": st.just("LAST_NAME"), "operator": st.just("is_not_blank")}),
    st.fixed_dictionaries(
        {"field": st.just("DATE_OF_BIRTH"), "operator": st.just("within_last"), "value": file_durations}
    ),
)
file_criteria = st.recursive(
    st.none() | _file_conditions,
    lambda inner: st.builds(
        lambda kind, members: {kind: members},
        st.sampled_from(["all", "any", "none"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
) | st.lists(_file_conditions, min_size=1, max_size=3).map(
    lambda listed: {"conditions": listed, "logic": " OR ".join(str(n + 1) for n in range(len(listed)))}
)
_delivery_keys: dict[str, st.SearchStrategy[Any]] = {
    "ordered": st.booleans(),
    "retries": st.integers(0, 9),
    "retry_delay": file_durations | st.integers(0, 900),
    "give_up_after": st.integers(0, 99),
}


@st.composite
def file_webhooks(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A webhook as in a workflow file. Its name is unique to its number."""
    receiver = draw(st.sampled_from([{"conn_id": "c"}, {"uri": "https://x.example/h?a={{ b }}#c"}]))
    return receiver | draw(
        st.fixed_dictionaries(
            {"name": file_names.map(lambda name: f"{number}{name}")},
            optional={
                **_delivery_keys,
                "fields": st.just(["FIRST_NAME", "Region__c"]),
                "date_format": st.sampled_from(["microsoft", "iso8601"]),
                "timezone": st.sampled_from(["UTC", "Europe/Paris"]),
                "envelope": storable_text,
                "headers": st.dictionaries(storable_text, storable_text, max_size=2),
                "concurrency": st.integers(1, 1000),
                "pool": file_names,
                "after": file_durations,
            },
        )
    )


@st.composite
def workflow_files(draw: st.DrawFn) -> dict[str, Any]:
    """The keys and values of a workflow file for Contacts."""
    webhooks = [draw(file_webhooks(number)) for number in range(draw(st.integers(1, 3)))]
    schedules = st.sampled_from(
        [
            *(None, "on_change", "0 8 * * *", "@daily"),
            *({"every": "15m"}, {"watch": "30s"}, {"on_change": "push"}),
            {"on_change": "push", "watch": "30m"},
        ]
    ) | st.builds(
        lambda data_interval: {
            "cron": "5 * * * *",
            "timezone": "Europe/Paris",
            "data_interval": data_interval,
        },
        st.booleans(),
    )
    keys = draw(
        st.fixed_dictionaries(
            {
                "name": file_names,
                "record_type": st.just("Contacts"),
                "start_date": st.just("2026-01-31T08:00:00.5+02:00"),
                "webhooks": st.just(webhooks),
            },
            optional={
                **_delivery_keys,
                "dag_id": st.just("an_id"),
                "description": storable_text,
                "active": st.booleans(),
                "dry_run": st.booleans(),
                "evaluate": st.sampled_from(["created", "created_and_edited", "until_triggered"]),
                "criteria": file_criteria,
                "schedule": schedules,
                "mode": st.sampled_from(["tasks", "one_task"]),
                "settle": st.integers(0, 900) | st.floats(0, 900) | st.just("1m"),
                "cursor": st.just("old/detect"),
                "tags": st.lists(file_names, max_size=2),
                "max_active_runs": st.integers(1, 99),
                "owner": file_names,
                "pool": file_names,
                "on_failure": st.sampled_from(["a.b", {"callback": "a.b", "arguments": {"x": [1, "2"]}}]),
                "on_undelivered": st.just("fail"),
            },
        )
    )
    if keys.get("mode") == "one_task":
        keys.pop("max_active_runs", None)  # runs that would read the same are refused
        for webhook in webhooks:  # and so are several pools of what one task sends
            webhook.pop("pool", None)
    return keys
