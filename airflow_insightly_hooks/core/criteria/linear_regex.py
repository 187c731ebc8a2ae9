"""Regular expressions that are searched for in linear time, whatever the pattern and the text.

Python's own ``re`` backtracks: for sixty letters, a pattern such as ``^(\\w+\\s?)*$`` can take years. Rust's
engine never backtracks. pydantic includes it, so no further package is needed.

A pattern keeps Python's syntax and meaning: Python's parser reads it, and the result is written in Rust's
syntax. (The two differ in ``$`` before a last line break, ``[[]``, ``\\<`` and ``{x}``. Without the
translation, a text would silently not match any more.) Parts that need backtracking are refused:
look-arounds, back references, atomic groups.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

__all__ = ["InvalidPattern", "compile_pattern"]

LONGEST_PATTERN = 10_000
"""How many characters a pattern may have."""
MOST_REPETITIONS = 1_000
"""How often counts such as ``(a{10}){100}`` may repeat a part of a pattern. The time grows with it."""

# Python has no public name for its parser. Hypothesis and other packages use it, too.
_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SPLIT_UP = "use several conditions instead, in a group (all, any, none)"
_NEGATIVE_LOOK_AROUND = f"look-arounds, such as (?!…) and (?<!…), are not supported: {_SPLIT_UP}"
_REFUSED = {
    "ASSERT": f"look-arounds, such as (?=…) and (?<=…), are not supported: {_SPLIT_UP}",
    "ASSERT_NOT": _NEGATIVE_LOOK_AROUND,
    "FAILURE": _NEGATIVE_LOOK_AROUND,  # (?!) since Python 3.13
    "GROUPREF": f"back references, such as \\1, are not supported: {_SPLIT_UP}",
    "GROUPREF_EXISTS": f"conditional groups, (?(1)…), are not supported: {_SPLIT_UP}",
    "ATOMIC_GROUP": "atomic groups, (?>…), are not supported: (?:…) takes no longer here",
    "POSSESSIVE_REPEAT": "possessive quantifiers, such as a++, are not supported: a+ takes no longer here",
}
# As in Python: \w are letters, numbers and '_', and \s includes four more control characters.
_CATEGORIES = {
    "CATEGORY_DIGIT": (r"\p{Nd}", "0-9"),
    "CATEGORY_SPACE": (r"\s\x1c-\x1f", r"\t-\r\x20"),
    "CATEGORY_WORD": (r"\p{L}\p{N}_", "0-9A-Za-z_"),
}


class InvalidPattern(ValueError):
    """A text is not a regular expression that can be searched for in linear time.

    Cause: Raised when the pattern has a syntax error, is too large, or needs backtracking.

    Remedy: Do what the message says. Often several conditions in a group can replace the pattern.
    """


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, *, case_sensitive: bool) -> Callable[[str], bool]:
    """Return a function that returns whether a text holds a match, in time that is linear in the text.

    :param pattern: a pattern in the syntax of Python's ``re``.
    :raises InvalidPattern: if it is not a regular expression, or needs backtracking.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise InvalidPattern(f"not a regular expression: it is longer than {LONGEST_PATTERN} characters")
    try:
        parsed = _parser.parse(pattern, 0 if case_sensitive else re.IGNORECASE)
        flags = parsed.state.flags
        translated = _sequence(parsed, flags, 1)
        if flags & re.IGNORECASE:
            translated = f"(?i:{translated})"
        schema = core_schema.str_schema(pattern=translated, regex_engine="rust-regex", strict=True)
        found = SchemaValidator(schema).isinstance_python
    except SchemaError as error:  # its text quotes the translated pattern
        reason = "it nests too deeply, or holds half a character"
        if "size limit" in str(error):
            reason = r"it is too large: a count such as \w{300} may be \w*, or [0-9A-Za-z_]{300}"
        raise InvalidPattern(f"not a regular expression: {reason}") from None
    except RecursionError:
        raise InvalidPattern("not a regular expression: it nests too deeply") from None
    except InvalidPattern:
        raise
    except (re.error, OverflowError, ValueError) as error:
        raise InvalidPattern(f"not a regular expression: {error}") from None

    def holds(text: str) -> bool:
        # The engine reads UTF-8, which has no lone surrogates. JSON's escapes can make them.
        return found(text) or (
            _LONE_SURROGATE.search(text) is not None and found(_LONE_SURROGATE.sub("\ufffd", text))
        )

    return holds


def _sequence(items: Iterable[Any], flags: int, repeated: int) -> str:
    """Return parts that follow one another, in Rust's syntax.

    :param flags: the flags of ``re`` that apply here.
    :param repeated: how often the counts around these parts repeat them.
    """
    return "".join([_written(op.name, argument, flags, repeated) for op, argument in items])


def _written(op: str, argument: Any, flags: int, repeated: int) -> str:
    if op in _REFUSED:
        raise InvalidPattern(_REFUSED[op])
    if op == "LITERAL":
        return _character(argument)
    if op == "NOT_LITERAL":
        return f"[^{_character(argument)}]"
    if op == "ANY":
        return "(?s:.)" if flags & re.DOTALL else r"[^\n]"
    if op == "IN":
        return _class(argument, flags)
    if op == "AT":
        return _position(argument.name, flags)
    if op == "BRANCH":
        return f"(?:{'|'.join([_sequence(branch, flags, repeated) for branch in argument[1]])})"
    if op == "SUBPATTERN":
        _, added, removed, items = argument
        within = (flags | added) & ~removed
        case = "i" if within & re.IGNORECASE else "-i"
        return f"(?{case}:{_sequence(items, within, repeated)})"
    if op in ("MAX_REPEAT", "MIN_REPEAT"):  # greedy or not makes no difference here
        least, most, items = argument
        has_end = most is not _parser.MAXREPEAT
        repeated *= max(int(most) if has_end else int(least), 1)
        if repeated > MOST_REPETITIONS:
            raise InvalidPattern(f"not a regular expression: it repeats more than {MOST_REPETITIONS} times")
        return f"(?:{_sequence(items, flags, repeated)}){{{int(least)},{int(most) if has_end else ''}}}"
    raise InvalidPattern(f"not a regular expression that is supported: {op.lower()}")


def _character(code: int) -> str:
    return f"\\x{{{code:x}}}"


def _class(items: Iterable[Any], flags: int) -> str:
    text = ""
    negated = False
    for op, argument in items:
        if op.name == "NEGATE":
            negated = True
        elif op.name == "LITERAL":
            text += _character(argument)
        elif op.name == "RANGE":
            text += f"{_character(argument[0])}-{_character(argument[1])}"
        else:
            name = argument.name
            members = _CATEGORIES[name.replace("_NOT_", "_")][bool(flags & re.ASCII)]
            text += f"[^{members}]" if "_NOT_" in name else members
    return f"[{'^' if negated else ''}{text}]"


def _position(name: str, flags: int) -> str:
    if name == "AT_BEGINNING":
        return "(?m:^)" if flags & re.MULTILINE else r"\A"
    if name == "AT_END":
        # Python's $ matches before a last line break, too.
        return "(?m:$)" if flags & re.MULTILINE else r"(?:\n?\z)"
    if name in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
        boundary = r"\b" if name == "AT_BOUNDARY" else r"\B"
        return f"(?-u:{boundary})" if flags & re.ASCII else boundary
    return {"AT_BEGINNING_STRING": r"\A", "AT_END_STRING": r"\z"}[name]
