"""JSON whose numbers keep the text that they were written with."""

from __future__ import annotations

import copy
import json
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from airflow_insightly_hooks.core.errors import InvalidPayload
from airflow_insightly_hooks.core.exact_json import (
    MAX_NESTING,
    ExactNumber,
    Literal,
    check_json,
    dumps,
    kind_of,
    loads,
)
from tests.strategies import exact_values, number_texts

ODD_NUMBERS = [
    *("1234567890123456.78", "1.10", "1E2", "1e20", "1e400", "-1e400", "1e-400", "-0", "-0.0", "0.0"),
    *("18446744073709551616", "9" * 5_000, "-" + "9" * 5_000, "5e-324", "1e+05", "0.1", "2.50e0"),
]


def nested(levels: int, core: str = "1") -> str:
    return "[" * levels + core + "]" * levels


@pytest.mark.parametrize("text", ODD_NUMBERS)
def test_known_numbers(text):
    """A number's text is kept, as bytes and as text, after copies and pickles."""
    for read in (loads(f'{{"A":{text}}}'), loads(f'{{"A":{text}}}'.encode())):
        assert dumps(read) == f'{{"A":{text}}}'
        pickled = pickle.loads(pickle.dumps(read))  # noqa: S301 — what this test has pickled itself
        assert dumps(copy.deepcopy(read)) == dumps(pickled) == f'{{"A":{text}}}'
        check_json(read)


@given(number_texts)
def test_any_number(text):
    """Any JSON number keeps its text, and counts as the nearest float or as the integer."""
    number = loads(text)
    assert dumps(number) == text
    if isinstance(number, int):
        assert number == int(text)
    else:
        assert number == float(text)
    assert type(number) is not float or json.dumps(number) == text


@given(exact_values)
def test_any_value(value):
    """A value that was read is written with the same text again, whatever it holds."""
    text = dumps(value)
    assert dumps(loads(text)) == text
    assert dumps(loads(dumps(value, ensure_ascii=False)), ensure_ascii=False) == dumps(
        value, ensure_ascii=False
    )


def test_other_values_are_those_of_json():
    """Values without such numbers are read as Python's json reads them."""
    text = '{"A": [1, 2.5, "x\\u0000", true, null, {"B": {}}], "é": "\\ud83d"}'
    assert loads(text) == json.loads(text)
    assert type(loads("2.5")) is float
    assert type(loads("25")) is int
    assert dumps(loads(text)) == json.dumps(json.loads(text), separators=(",", ":"))


def test_literals_are_written_as_they_are():
    """Ready-made JSON text is written beside other values."""
    assert dumps({"A": Literal(r'"\/x\/"'), "B": ["é"]}, ensure_ascii=False) == r'{"A":"\/x\/","B":["é"]}'


@pytest.mark.parametrize("text", ["", "{", "[1,]", b"\xff", "01", "1.", nested(2_000)[:-1], "[" * 100_000])
def test_no_json(text):
    """Anything but JSON is a ValueError, however deeply it nests."""
    with pytest.raises(ValueError):  # noqa: PT011 — json's own errors
        loads(text)


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 500, 950, 3_000, 50_000])
def test_what_nests_deep_is_read_and_refused(levels):
    """However deeply one value nests, the values beside it are read. The check refuses only that one."""
    text = f'[{{"ID": 1, "A": "]"}}, {{"ID": 2, "A": {nested(levels)}, "B": "\\"["}}, {{"ID": 3}}]'
    for answer in (text, text.encode()):
        first, deep, last = loads(answer)
        assert (first, deep["ID"], deep["B"], last) == ({"ID": 1, "A": "]"}, 2, '"[', {"ID": 3})
        with pytest.raises(InvalidPayload, match=r"A: its values nest deeper than 100 levels"):
            check_json(deep, "record", -1)


def test_what_nests_as_deep_as_allowed():
    """A hundred levels are sent."""
    record = loads(f'{{"A": {nested(MAX_NESTING)}}}')
    check_json(record, "record", -1)
    assert dumps(record) == f'{{"A":{nested(MAX_NESTING)}}}'


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        ({"A": float("nan")}, "A", "a number that is not finite cannot be sent as JSON"),
        ({"A": [{"B": float("-inf")}]}, "B", "a number that is not finite cannot be sent as JSON"),
        ({"A": {"Zoë Dubois!": float("inf")}}, "A", "a number that is not finite cannot be sent as JSON"),
        ({"X": {"FIELD_NAME": {"a": 1}, "FIELD_VALUE": float("inf")}}, "X", "a number that is not finite"),
        ({"A": {1, 2}}, "A", "a set cannot be sent as JSON"),
    ],
)
def test_what_json_cannot_hold(value, where, reason):
    """The error names the field, if its name can be shown, and no value."""
    with pytest.raises(InvalidPayload) as caught:
        check_json(value)
    assert caught.value.where == where
    assert caught.value.reason.startswith(reason)


def test_an_integer_that_python_does_not_write():
    """The API's numbers keep their text. A number that a caller made raises one of our errors."""
    with pytest.raises(InvalidPayload, match="an integer has too many digits"):
        dumps({"A": 10**6_000})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_no_number_of_json(text):
    """Python's reader accepts these though JSON has no such numbers.

    The other values are read; the check refuses these.
    """
    with pytest.raises(InvalidPayload, match="not finite"):
        check_json(loads(f'{{"A": {text}}}'))


def test_an_exact_number_is_a_float():
    """Users who read records with the hook may calculate with it."""
    number = ExactNumber("1234567890123456.78")
    assert number + 1 == 1234567890123457.8
    assert Decimal(number.text) == Decimal("1234567890123456.78")
    assert ExactNumber("1e400") == float("inf")


def test_kinds():
    """Kinds have the names that JSON uses."""
    values: list[Any] = [None, True, 1, ExactNumber("1.10"), "x", [], {}]
    assert [kind_of(value) for value in values] == [
        *("null", "boolean", "number", "number", "text", "list", "object")
    ]
