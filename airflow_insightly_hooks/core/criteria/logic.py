"""Logic lines, such as ``1 AND (2 OR NOT 3)``, which combine numbered conditions.

The numbers start at 1. NOT binds closer than AND, and AND closer than OR. They may be in small letters. A
line is read without recursion, and the nesting of parentheses is limited, so no text can exhaust the
interpreter's stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Union

from airflow_insightly_hooks.core.errors import InvalidCriteria

__all__ = ["MAX_PARENTHESES", "Expression", "Operation", "parse_logic"]

MAX_PARENTHESES = 100
"""How deep a line's parentheses may nest."""

MOST_OPERANDS = 20_000
"""How often a line may name conditions. Each mention is evaluated for each record."""

Expression = Union[int, "Operation"]
"""A condition's number, or an operation."""

_SYMBOL = re.compile(r"[()]|\w+|\S")
_SHOWN = 20
"""How many characters of a wrong word an error shows."""


class Operation(NamedTuple):
    """A group: ``all``, ``any`` or ``none`` of its members must hold.

    ``path`` is its place in the criteria; ``None`` for a part of a logic line.
    """

    kind: str
    members: tuple[Expression, ...]
    path: str | None = None


class _Level:
    """The part between two parentheses, as far as it has been read.

    :param column: the column of the opening parenthesis; 0 for the line itself.
    """

    def __init__(self, column: int) -> None:
        self.column = column
        self.alternatives: list[Expression] = []  # joined by OR
        self.terms: list[Expression] = []  # joined by AND, after the last OR
        self.negated = False

    def add(self, operand: Expression) -> None:
        self.terms.append(Operation("none", (operand,)) if self.negated else operand)
        self.negated = False

    def end_alternative(self) -> None:
        self.alternatives.append(_joined("all", self.terms))
        self.terms = []

    def expression(self) -> Expression:
        self.end_alternative()
        return _joined("any", self.alternatives)


def _joined(kind: str, members: list[Expression]) -> Expression:
    return members[0] if len(members) == 1 else Operation(kind, tuple(members))


def parse_logic(text: object, count: int, *, path: str = "criteria.logic", offset: int = 0) -> Expression:
    """Return the expression that a logic line means.

    :param count: how many conditions there are.
    :param path: the line's place in the criteria, for errors.
    :param offset: is added to the numbers in the result.
    :raises InvalidCriteria: if the text is not a logic line, or doesn't use every condition. The reason names
        the column.
    """
    if not isinstance(text, str):
        raise InvalidCriteria(path, f"a text is needed, not {type(text).__name__}")
    levels = [_Level(0)]
    used: set[int] = set()
    operands = 0
    operand_is_next = True
    for column, symbol in _symbols(text):
        level, word = levels[-1], symbol.upper()
        if operand_is_next:
            if symbol == "(":
                if len(levels) > MAX_PARENTHESES:
                    raise _mistake(path, column, f"parentheses nest deeper than {MAX_PARENTHESES} levels")
                levels.append(_Level(column))
            elif word == "NOT":
                level.negated = not level.negated
            elif symbol.isascii() and symbol.isdigit():
                number = _number(symbol, count, path, column)
                used.add(number)
                operands += 1
                level.add(number + offset)
                operand_is_next = False
            else:
                raise _mistake(path, column, f"a number, NOT or '(' is needed, not {_shown(symbol)}")
        elif word == "AND":
            operand_is_next = True
        elif word == "OR":
            level.end_alternative()
            operand_is_next = True
        elif symbol == ")" and len(levels) > 1:
            levels.pop()
            levels[-1].add(level.expression())
        else:
            ending = "')'" if len(levels) > 1 else "the end of the line"
            raise _mistake(path, column, f"AND, OR or {ending} is needed, not {_shown(symbol)}")

    end = len(text) + 1
    if operand_is_next:
        raise _mistake(path, end, "a number, NOT or '(' is needed, not the end of the line")
    if len(levels) > 1:
        raise _mistake(path, end, f"a ')' is needed for the '(' in column {levels[-1].column}")
    if operands > MOST_OPERANDS:
        raise InvalidCriteria(path, f"the line names conditions more than {MOST_OPERANDS} times")
    if len(used) < count:
        unused = next(number for number in range(1, count + 1) if number not in used)
        raise _mistake(path, end, f"condition {unused} is not used: add it to the line, or remove it")
    return levels[0].expression()


def _symbols(text: str) -> Iterator[tuple[int, str]]:
    """Yield parentheses, words and other characters, each with its column, from 1."""
    return ((match.start() + 1, match[0]) for match in _SYMBOL.finditer(text))


def _number(symbol: str, count: int, path: str, column: int) -> int:
    digits = symbol.lstrip("0")
    # Python refuses to read thousands of digits. Such a number is out of range anyway.
    number = int(digits) if 0 < len(digits) <= len(str(count)) else 0
    if not 1 <= number <= count:
        raise _mistake(path, column, f"a number from 1 to {count} is needed, not {_shown(symbol)}")
    return number


def _shown(symbol: str) -> str:
    return repr(symbol if len(symbol) <= _SHOWN else f"{symbol[:_SHOWN]}…")


def _mistake(path: str, column: int, reason: str) -> InvalidCriteria:
    return InvalidCriteria(path, f"column {column}: {reason}")
