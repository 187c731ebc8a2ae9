"""The block of the operators of criteria: what each of them compares, when it holds, and an example.

``tests/test_reference.py`` evaluates the examples.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria import OPERATORS
from blocks.markdown import table

NOW = "2026-01-31T12:00:00Z"
"""The end of the window in the examples."""


class Example(NamedTuple):
    """The meaning of an operator.

    :param holds: when it holds.
    :param field: the field of the example.
    :param value: the value of the condition; unused if the operator takes no value.
    :param met: a value of the record for which the condition holds.
    :param not_met: a value for which it does not hold. ``None`` is blank.
    """

    holds: str
    field: str
    value: Any
    met: Any
    not_met: Any


COMPARES = {
    "anything": "text, numbers, checkboxes, dates",
    "text": "text, and numbers as text",
    "number or date": "numbers, dates",
    "date": "dates",
    "checkbox": "checkboxes",
    "presence": "everything",
}
EXAMPLES = {
    "equals": Example("the value is the same", "OPPORTUNITY_STATE", "Won", "WON", "Lost"),
    "not_equals": Example("`equals` does not hold", "OPPORTUNITY_STATE", "Won", None, "Won"),
    "in": Example("the value is in the list", "ADDRESS_MAIL_COUNTRY", ["France", "Spain"], "spain", "Italy"),
    "not_in": Example("`in` does not hold", "ADDRESS_MAIL_COUNTRY", ["France", "Spain"], "Italy", "Spain"),
    "contains": Example(
        "the text is in it; of a multi-select or tags, the whole option", "TITLE", "renew", "To renew", "New"
    ),
    "not_contains": Example("`contains` does not hold", "TITLE", "renew", "New", "To renew"),
    "starts_with": Example("it begins with the text", "TITLE", "Re:", "re: offer", "Offer"),
    "ends_with": Example(
        "it ends with the text", "EMAIL_ADDRESS", "@example.com", "a@EXAMPLE.com", "a@example.org"
    ),
    "matches": Example(
        "the regular expression is found in it", "TITLE", "^RFP-[0-9]+", "RFP-12 Paris", "Offer RFP-12"
    ),
    "is_blank": Example("there is no value", "TITLE", None, None, "Call"),
    "is_not_blank": Example("there is a value", "TITLE", None, "Call", None),
    "is_checked": Example("the box is checked", "COMPLETED", None, True, False),
    "is_not_checked": Example("the box is not checked, or blank", "COMPLETED", None, False, True),
    "greater_than": Example("it is greater, or later", "OPPORTUNITY_VALUE", 25000, 25000.01, 25000),
    "greater_or_equal": Example("it is equal or greater", "OPPORTUNITY_VALUE", 25000, 25000, 24999),
    "less_than": Example("it is less, or earlier", "OPPORTUNITY_VALUE", 25000, 24999, 25000),
    "less_or_equal": Example("it is equal or less", "OPPORTUNITY_VALUE", 25000, 25000, 25001),
    "between": Example(
        "it is between the two, or one of them", "OPPORTUNITY_VALUE", [1000, 5000], 5000, 5001
    ),
    "before": Example("it is earlier", "DUE_DATE", "today", "2026-01-30 08:00:00", "2026-01-31 08:00:00"),
    "after": Example("it is later", "DUE_DATE", "2026-01-31", "2026-01-31 08:00:00", "2026-01-30 08:00:00"),
    "on": Example(
        "it is on the same day (UTC)", "DUE_DATE", "2026-01-31", "2026-01-31 08:00:00", "2026-02-01 00:00:00"
    ),
    "within_last": Example(
        "it is at most that long ago", "DATE_UPDATED_UTC", "7d", "2026-01-25 00:00:00", "2026-01-20 00:00:00"
    ),
    "within_next": Example(
        "it is at most that far ahead", "DUE_DATE", "3d", "2026-02-02 08:00:00", "2026-02-04 08:00:00"
    ),
}


def condition(name: str) -> dict[str, Any]:
    """Return the condition of an operator's example."""
    value = {"value": EXAMPLES[name].value} if OPERATORS[name].takes_value else {}
    return {"field": EXAMPLES[name].field, "operator": name, **value}


def block(_about: str) -> str:
    """Return all operators.

    :raises ValueError: if an operator has no example.
    """
    if missing := OPERATORS.keys() - EXAMPLES:
        raise ValueError(f"no example for {', '.join(sorted(missing))}")
    rows = [
        (
            f"`{name}`",
            COMPARES[operator.compares],
            EXAMPLES[name].holds,
            f"`{_yaml(condition(name))}`",
            _shown(EXAMPLES[name].met),
            _shown(EXAMPLES[name].not_met),
        )
        for name, operator in OPERATORS.items()
    ]
    return table(("operator", "for", "holds if", "example", "met by", "not met by"), rows)


def _yaml(condition: dict[str, Any]) -> str:
    """Return a condition on one line, in the form of workflow files."""
    return "{" + ", ".join(f"{key}: {_value(value)}" for key, value in condition.items()) + "}"


def _value(value: Any) -> str:
    if isinstance(value, str) and all(letter.isalnum() or letter in "_-" for letter in value):
        return value
    return json.dumps(value)


def _shown(value: Any) -> str:
    return "blank" if value is None else f"`{json.dumps(value)}`"
