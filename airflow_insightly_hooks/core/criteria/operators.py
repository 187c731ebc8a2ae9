"""The operators of criteria: the test that each applies to one value at a time.

A test returns ``None`` if it can't compare a value, for example a number with a text that is not a number.
Texts are compared without regard to case, unless the condition is case-sensitive. Numbers are compared as
numbers, also if they are written as text. Dates are compared as instants. If the condition's text is a date,
texts are equal if they mean the same instant. Otherwise they are equal if they are the same text. In a
multi-select (``Music;Sports``), ``contains`` looks for a whole option, and in tags for a whole tag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from operator import eq, ge, gt, le, lt
from typing import Any, NamedTuple

from airflow_insightly_hooks.core.criteria.linear_regex import InvalidPattern, compile_pattern
from airflow_insightly_hooks.core.criteria.operands import Operand, instant_of, number_of, text_of, utc
from airflow_insightly_hooks.core.dates import relative_time
from airflow_insightly_hooks.core.errors import InvalidCriteria

__all__ = ["OPERATORS", "Operator", "Test", "among_options", "compared_kind", "whole_option"]

Test = Callable[[Any], "bool | None"]
"""A condition's test of one value that is not blank; it returns ``None`` if it can't compare the value."""

INFINITY = float("inf")
SAFE = 2**53
"""Up to this number, every whole number is exactly a float, so comparing the two directly is exact."""


# --- equality --------------------------------------------------------------------------------------------


def _equals(operand: Operand) -> Test:
    wanted = operand.value
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, date):
        instant = operand.instant()
        return lambda value: instant_of(value) == instant
    text = _equal_text(operand)
    number = operand.number()
    same_number = (lambda _value: None) if number is None else _number_test(eq, number)
    if not isinstance(wanted, str):
        return lambda value: same_number(value) is True
    instant, fold = instant_of(wanted), operand.fold

    def same_text(value: Any) -> bool:
        if isinstance(value, str):
            return value == wanted or fold(value) == text
        return same_number(value) is True

    def same_time(value: Any) -> bool:
        found = instant_of(value)
        return same_text(value) if found is None else found == instant

    return same_text if instant is None else same_time


def _equal_text(operand: Operand) -> str:
    text = operand.text()
    if not text:
        raise InvalidCriteria(operand.path, "an empty text equals nothing: use is_blank or is_not_blank")
    return text


def _in(operand: Operand) -> Test:
    """Return the test whether a value equals one of many; it takes no longer than for a few."""
    checks: set[bool] = set()
    instants: set[datetime | None] = set()
    texts: set[str] = set()
    numbers: set[Decimal | None] = set()  # given as numbers: texts that are numbers equal them, too
    of_texts: set[Decimal | None] = set()  # given as texts: only numbers equal them
    for member in operand.each():
        wanted = member.value
        if isinstance(wanted, bool):
            checks.add(wanted)
        elif isinstance(wanted, date):
            instants.add(member.instant())
        else:
            text = _equal_text(member)
            if isinstance(wanted, str):
                texts.add(text)
                instants.add(instant_of(wanted))
            (of_texts if isinstance(wanted, str) else numbers).add(member.number())
    for found in (instants, numbers, of_texts):
        found.discard(None)
    all_numbers, fold = numbers | of_texts, operand.fold

    def any_equal(value: Any) -> bool:
        if isinstance(value, str):
            return (
                fold(value) in texts
                or (bool(instants) and instant_of(value) in instants)
                or (bool(numbers) and number_of(value) in numbers)
            )
        if isinstance(value, bool):
            return value in checks
        return number_of(value) in all_numbers

    return any_equal


# --- text ------------------------------------------------------------------------------------------------


def _contains(operand: Operand) -> Test:
    return _text_test(operand, str.__contains__)


def _starts_with(operand: Operand) -> Test:
    return _text_test(operand, str.startswith)


def _ends_with(operand: Operand) -> Test:
    return _text_test(operand, str.endswith)


def _text_test(operand: Operand, compare: Callable[[str, str], bool]) -> Test:
    wanted, fold = operand.text(), operand.fold
    if not wanted:
        raise InvalidCriteria(operand.path, "every text contains an empty text: give a text, or use is_blank")

    def test(value: Any) -> bool | None:
        text = text_of(value)
        return None if text is None else compare(fold(text), wanted)

    return test


def among_options(operand: Operand, *, known: bool) -> Test:
    """Return the test of ``contains`` for a custom field, which may be a multi-select.

    :param known: whether the field is known to be a multi-select. If not, a text that holds a ``;`` counts as
        the options of one.
    """
    in_text = _contains(operand)
    wanted, fold = operand.text().strip(), operand.fold

    def test(value: Any) -> bool | None:
        text = text_of(value)
        if text is None or not (known or ";" in text):
            return in_text(value)
        return wanted != "" and wanted in [fold(option.strip()) for option in text.split(";")]

    return test


def whole_option(operand: Operand) -> Test:
    """Return the test of ``contains`` for a value that is one whole option or tag."""
    _contains(operand)  # raises InvalidCriteria if the operand can't be used
    wanted, fold = operand.text().strip(), operand.fold

    def test(value: Any) -> bool | None:
        text = text_of(value)
        return None if text is None else wanted != "" and fold(text.strip()) == wanted

    return test


def _matches(operand: Operand) -> Test:
    if not isinstance(operand.value, str):
        raise InvalidCriteria(
            operand.path, f"a regular expression is needed, not {type(operand.value).__name__}"
        )
    try:
        is_in = compile_pattern(operand.value, case_sensitive=operand.case_sensitive)
    except InvalidPattern as error:
        raise InvalidCriteria(operand.path, str(error)) from None

    def test(value: Any) -> bool | None:
        text = text_of(value)
        return None if text is None else is_in(text)

    return test


# --- numbers and dates -------------------------------------------------------------------------------------


def _number_test(compare: Callable[[Any, Any], bool], wanted: Decimal) -> Test:
    def exact(value: Any) -> bool | None:
        number = number_of(value)
        return None if number is None else compare(number, wanted)

    limit = _native(wanted)
    if limit is None:
        return exact
    floats = isinstance(limit, float) or -SAFE <= limit <= SAFE

    # Comparing Python's numbers directly is exact for two integers, for two floats, and for a float with an
    # integer that is exactly a float. A limit that is a float has a fraction, so large integers are far away.
    def test(value: Any) -> bool | None:
        kind = type(value)
        if kind is int or (floats and kind is float and -INFINITY < value < INFINITY):
            return compare(value, limit)
        return exact(value)

    return test


def _native(number: Decimal) -> int | float | None:
    """Return a number as an integer, or as the float that is written the same; ``None`` if neither exists."""
    if not number:
        return 0
    if number.adjusted() < 400:  # the integer of 1E+999999999 would fill the memory
        integer = int(number)
        if number == integer:
            return integer
    nearest = float(number)
    return nearest if Decimal(repr(nearest)) == number else None


def _date_test(compare: Callable[[datetime, datetime], bool], wanted: datetime) -> Test:
    def test(value: Any) -> bool | None:
        instant = instant_of(value)
        return None if instant is None else compare(instant, wanted)

    return test


def _date_between(low: datetime, high: datetime) -> Test:
    def test(value: Any) -> bool | None:
        instant = instant_of(value)
        return None if instant is None else low <= instant <= high

    return test


def _date(operand: Operand) -> datetime:
    instant = operand.instant()
    if instant is None:
        raise InvalidCriteria(
            operand.path, "a date is needed, such as '2017-03-10', '2017-03-10 08:00:00', 'today' or 'now-7d'"
        )
    return instant


def _ordered(compare: Callable[[Any, Any], bool], operand: Operand) -> Test:
    number = operand.number()
    if number is not None:
        return _number_test(compare, number)
    instant = operand.instant()
    if instant is None:
        raise InvalidCriteria(operand.path, "a number or a date is needed")
    return _date_test(compare, instant)


def _between(operand: Operand) -> Test:
    bounds = operand.each()
    needed = "two numbers or two dates are needed, the lower one first"
    if len(bounds) != 2:
        raise InvalidCriteria(operand.path, needed)
    low, high = (bound.number() for bound in bounds)
    if low is None:
        start, end = map(_date, bounds)
        # If only one of the dates is relative, which comes first depends on the time of the test.
        if start > end and _base(bounds[0]) == _base(bounds[1]):
            raise InvalidCriteria(operand.path, needed)
        return _date_between(start, end)
    if high is None:
        raise InvalidCriteria(bounds[1].path, "a number is needed, because the lower bound is a number")
    if low > high:
        raise InvalidCriteria(operand.path, needed)
    above, below = _number_test(ge, low), _number_test(le, high)
    return lambda value: above(value) and below(value)


def _base(operand: Operand) -> str:
    """Return ``now``, ``tod`` for today, or an empty text for a date that is not relative."""
    return str(operand.value)[:3] if relative_time(operand.value) is not None else ""


def _before(operand: Operand) -> Test:
    return _date_test(lt, _date(operand))


def _after(operand: Operand) -> Test:
    return _date_test(gt, _date(operand))


def _on(operand: Operand) -> Test:
    day = _date(operand).date()

    def test(value: Any) -> bool | None:
        instant = instant_of(value)
        return None if instant is None else instant.date() == day

    return test


def _within(direction: int, operand: Operand) -> Test:
    duration = operand.duration()
    start = operand.reference.measure(operand.path)
    try:
        bounds = sorted((utc(start), utc(start + direction * duration)))
    except OverflowError:
        raise InvalidCriteria(operand.path, "a date of the years 1 to 9999 is needed") from None
    return _date_between(*bounds)


# --- the rest --------------------------------------------------------------------------------------------


def _is_checked(_operand: Operand) -> Test:
    return lambda value: value if isinstance(value, bool) else None


def _is_not_blank(_operand: Operand) -> Test:
    return lambda _value: True


class Operator(NamedTuple):
    """How an operator tests values. A negative operator holds if the test holds for no value.

    :param compares: ``anything``, ``text``, ``number or date``, ``date``, ``checkbox`` or ``presence``.
    """

    build: Callable[[Operand], Test]
    compares: str
    negative: bool = False
    takes_value: bool = True


OPERATORS: Mapping[str, Operator] = {
    "equals": Operator(_equals, "anything"),
    "not_equals": Operator(_equals, "anything", negative=True),
    "in": Operator(_in, "anything"),
    "not_in": Operator(_in, "anything", negative=True),
    "contains": Operator(_contains, "text"),
    "not_contains": Operator(_contains, "text", negative=True),
    "starts_with": Operator(_starts_with, "text"),
    "ends_with": Operator(_ends_with, "text"),
    "matches": Operator(_matches, "text"),
    "is_blank": Operator(_is_not_blank, "presence", negative=True, takes_value=False),
    "is_not_blank": Operator(_is_not_blank, "presence", takes_value=False),
    "is_checked": Operator(_is_checked, "checkbox", takes_value=False),
    "is_not_checked": Operator(_is_checked, "checkbox", negative=True, takes_value=False),
    "greater_than": Operator(partial(_ordered, gt), "number or date"),
    "greater_or_equal": Operator(partial(_ordered, ge), "number or date"),
    "less_than": Operator(partial(_ordered, lt), "number or date"),
    "less_or_equal": Operator(partial(_ordered, le), "number or date"),
    "between": Operator(_between, "number or date"),
    "before": Operator(_before, "date"),
    "after": Operator(_after, "date"),
    "on": Operator(_on, "date"),
    "within_last": Operator(partial(_within, -1), "date"),
    "within_next": Operator(partial(_within, 1), "date"),
}


def compared_kind(operator: Operator, value: Any) -> str:
    """Return what the operator compares. For ``number or date``, the condition's value decides which."""
    if operator.compares != "number or date":
        return operator.compares
    first = value[0] if operator.build is _between else value
    return "date" if number_of(first) is None else "number"
