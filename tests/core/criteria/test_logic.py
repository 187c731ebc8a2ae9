"""Logic lines: how they combine numbered conditions, and in which column a mistake is reported."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_insightly_hooks.core.criteria.logic import MAX_PARENTHESES, Operation, parse_logic
from airflow_insightly_hooks.core.errors import InvalidCriteria
from tests.strategies import logic_lines


def both(*members):
    return Operation("all", members)


def either(*members):
    return Operation("any", members)


def negated(member):
    return Operation("none", (member,))


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("1", 1),
        ("((1))", 1),
        ("1 AND 2", both(1, 2)),
        ("2 and 1 And 2", both(2, 1, 2)),
        ("1 OR 2", either(1, 2)),
        ("1 OR 2 AND 3", either(1, both(2, 3))),
        ("1 AND 2 OR 3", either(both(1, 2), 3)),
        ("1 AND (2 OR NOT 3)", both(1, either(2, negated(3)))),
        ("NOT 1 AND 2", both(negated(1), 2)),
        ("NOT (1 AND 2)", negated(both(1, 2))),
        ("not(1)or(2)", either(negated(1), 2)),
        ("NOT NOT 1", 1),
        ("NOT NOT NOT 1", negated(1)),
        ("NOT (NOT (1))", negated(negated(1))),
        ("\t1\n  OR  2 ", either(1, 2)),
        ("01 OR 002", either(1, 2)),
        (f"{'(' * MAX_PARENTHESES}1{')' * MAX_PARENTHESES}", 1),
    ],
)
def test_a_line(line, expression):
    """NOT binds closest, then AND, then OR. Case, spaces and extra parentheses don't matter."""
    count = 3 if "3" in line else 2 if "2" in line else 1
    assert parse_logic(line, count) == expression


def test_numbers_can_be_shifted():
    """If conditions get higher numbers, the numbers in the line rise with them."""
    assert parse_logic("1 OR 2", 2, offset=5) == either(6, 7)


OPERAND = "a number, NOT or '(' is needed, not"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", f"column 1: {OPERAND} the end of the line"),
        ("  ", f"column 3: {OPERAND} the end of the line"),
        ("1 AND", f"column 6: {OPERAND} the end of the line"),
        ("1 AND OR 2", f"column 7: {OPERAND} 'OR'"),
        ("AND 1", f"column 1: {OPERAND} 'AND'"),
        ("1 AND ()", f"column 8: {OPERAND} ')'"),
        ("1 AND x", f"column 7: {OPERAND} 'x'"),
        ("1 AND -2", f"column 7: {OPERAND} '-'"),
        ("1 AND \u0662", f"column 7: {OPERAND} '\u0662'"),
        ("1 AND \u00b2", f"column 7: {OPERAND} '\u00b2'"),
        ("1 AND 2nd", f"column 7: {OPERAND} '2nd'"),
        (f"1 AND {'x' * 99}", f"column 7: {OPERAND} '{'x' * 20}…'"),
        ("1 2", "column 3: AND, OR or the end of the line is needed, not '2'"),
        ("1 NOT 2", "column 3: AND, OR or the end of the line is needed, not 'NOT'"),
        ("1 & 2", "column 3: AND, OR or the end of the line is needed, not '&'"),
        ("1, 2", "column 2: AND, OR or the end of the line is needed, not ','"),
        ("1 AND 2)", "column 8: AND, OR or the end of the line is needed, not ')'"),
        ("(1 (2))", "column 4: AND, OR or ')' is needed, not '('"),
        ("(1 XOR 2)", "column 4: AND, OR or ')' is needed, not 'XOR'"),
        ("1 OR (2 AND (1)", "column 16: a ')' is needed for the '(' in column 6"),
        ("1 OR (2 AND (1", "column 15: a ')' is needed for the '(' in column 13"),
        (f"1 AND {'x' * 20}", f"column 7: {OPERAND} '{'x' * 20}'"),
        ("1 AND 3", "column 7: a number from 1 to 2 is needed, not '3'"),
        ("0 AND 1", "column 1: a number from 1 to 2 is needed, not '0'"),
        ("1 OR 1", "column 7: condition 2 is not used: add it to the line, or remove it"),
        ("2 OR 2", "column 7: condition 1 is not used: add it to the line, or remove it"),
    ],
)
def test_a_mistake_is_shown_with_its_column(line, reason):
    """InvalidCriteria names the column, counted from 1, and what is needed there."""
    with pytest.raises(InvalidCriteria) as caught:
        parse_logic(line, 2)
    assert (caught.value.path, caught.value.reason) == ("criteria.logic", reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("(" * 100_000, "column 101: parentheses nest deeper than 100 levels"),
        ("NOT (" * 100_000, "column 505: parentheses nest deeper than 100 levels"),
        ("NOT " * 100_000, f"column 400001: {OPERAND} the end of the line"),
        ("1 AND " * 100_000, f"column 600001: {OPERAND} the end of the line"),
        ("9" * 100_000, f"column 1: a number from 1 to 1 is needed, not '{'9' * 20}…'"),
        ("0" * 100_000, f"column 1: a number from 1 to 1 is needed, not '{'0' * 20}…'"),
        (")" * 100_000, f"column 1: {OPERAND} ')'"),
    ],
    ids=lambda text: text[:12],
)
def test_hostile_lines_are_refused(line, reason):
    """However long a line is, it is refused in the same way, and the stack isn't exhausted."""
    with pytest.raises(InvalidCriteria) as caught:
        parse_logic(line, 1)
    assert (caught.value.path, caught.value.reason) == ("criteria.logic", reason)


def test_a_line_names_conditions_so_often():
    """Twenty thousand times, and no more."""
    parse_logic(" AND ".join(["1"] * 20_000), 1)
    with pytest.raises(InvalidCriteria, match="the line names conditions more than 20000 times"):
        parse_logic(" AND ".join(["1"] * 20_001), 1)


@pytest.mark.parametrize("line", [None, 1, ["1"], b"1"])
def test_a_line_is_a_text(line):
    """Anything but a text is refused, with the path that was given."""
    with pytest.raises(InvalidCriteria) as caught:
        parse_logic(line, 1, path="criteria.all[0].logic")
    assert caught.value.path == "criteria.all[0].logic"
    assert caught.value.reason == f"a text is needed, not {type(line).__name__}"


def value_of(expression, held):
    if isinstance(expression, int):
        return held[expression - 1]
    values = [value_of(member, held) for member in expression.members]
    return {"all": all(values), "any": any(values), "none": not any(values)}[expression.kind]


def value_of_tree(tree, held):
    if isinstance(tree, int):
        return held[tree - 1]
    values = [value_of_tree(member, held) for member in tree[1]]
    return {"and": min, "or": max, "not": lambda one: not one[0]}[tree[0]](values)


@given(logic_lines())
def test_a_line_says_what_it_was_written_from(written):
    """For any tree of AND, OR and NOT, however it is written, the line is true whenever the tree is."""
    line, tree, count = written
    expression = parse_logic(line, count)
    for held in product([False, True], repeat=count):
        assert value_of(expression, held) is value_of_tree(tree, held)


@given(
    st.text() | st.lists(st.sampled_from(["1", "2", "AND", "or", "Not", "(", ")", " ", "x"])).map(" ".join)
)
def test_any_text_is_a_line_or_refused(line):
    """No text raises anything but InvalidCriteria. The column of the mistake lies within the text."""
    try:
        parse_logic(line, 2)
    except InvalidCriteria as error:
        column = error.reason.removeprefix("column ").split(":")[0]
        assert 1 <= int(column) <= len(line) + 1
