"""Reads and writes JSON so that numbers stay as they are written.

Python reads ``1234567890123456.78`` as a float that it writes as ``1234567890123456.8``, and ``1E2`` as a
float that it writes as ``100.0``. Here, a number that Python would write differently keeps its text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from airflow_insightly_hooks.core.errors import InvalidPayload

__all__ = ["MAX_NESTING", "ExactNumber", "Literal", "check_json", "dumps", "has_text", "kind_of", "loads"]

MAX_NESTING = 100
"""How deep a record's values may nest. The API's answers nest three or four levels deep."""

SHORT_INTEGER = 4_000
"""Integers with fewer digits are read by Python. By default, it refuses more than 4,300 digits."""

_PLAIN = frozenset({str, int, bool, type(None)})
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
_NAME = re.compile(r"\w{1,64}", re.ASCII)


class ExactNumber(float):
    """A number that Python would write differently. Its value is the nearest float, or an infinity.

    :ivar text: the number as it is written in JSON.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactNumber:  # noqa: D102 — see the class's docstring
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return ExactNumber, (self.text,)


class Literal(str):
    """JSON text that is written unchanged."""

    __slots__ = ()


def loads(text: str | bytes, *, exact: bool = True, parse_constant: Callable[[str], Any] = float) -> Any:
    """Return the value of a JSON text.

    If it nests too deep for Python to read, the innermost values are left out. The result still nests deeper
    than ``MAX_NESTING``.

    :param exact: whether a number that Python would write differently becomes an ``ExactNumber``. Otherwise
        it becomes one of Python's own numbers.
    :param parse_constant: returns the value for ``NaN`` and ``Infinity``, which are not JSON.
    :raises ValueError: if the text is not JSON.
    """
    parse_float, parse_int = (_float, _integer) if exact else (float, _plain_integer)
    read = partial(json.loads, parse_float=parse_float, parse_int=parse_int, parse_constant=parse_constant)
    try:
        return read(text)
    except RecursionError:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return read("".join(_cut(text)))


def _float(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else ExactNumber(text)


def _integer(text: str) -> int | float:
    return int(text) if len(text) < SHORT_INTEGER and text != "-0" else ExactNumber(text)


def _plain_integer(text: str) -> int | float:
    return int(text) if len(text) < SHORT_INTEGER else float(text)


def _cut(text: str) -> Iterator[str]:
    """Yield the text without the values that nest some levels deeper than ``MAX_NESTING``."""
    depth = start = 0
    deepest = MAX_NESTING + 10  # values are also inside of a list and a record
    for token in _TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == deepest:
                yield text[start : token.start()]
                start = len(text)
        elif token[0] in ("]", "}"):
            if depth == deepest:
                yield "[]"
                start = token.end()
            depth -= 1
    yield text[start:]


def dumps(value: Any, *, ensure_ascii: bool = True) -> str:
    """Return a value as JSON text without white space, with its numbers as they were written.

    :param value: a value that has passed ``check_json``.
    :param ensure_ascii: whether to escape characters outside of ASCII.
    :raises InvalidPayload: if an integer has more digits than Python writes.
    """
    try:
        if has_text(value):
            return _encode(value, ensure_ascii=ensure_ascii)
        return json.dumps(value, ensure_ascii=ensure_ascii, separators=(",", ":"))
    except ValueError:
        raise InvalidPayload("record", "an integer has too many digits to be written") from None


def has_text(value: Any) -> bool:
    """Return whether Python's encoder would write something in the value differently."""
    if isinstance(value, dict):
        items: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        return isinstance(value, ExactNumber | Literal | Mapping)
    for item in items:  # noqa: SIM110 — half the time
        if type(item) not in _PLAIN and has_text(item):
            return True
    return False


def _encode(value: Any, *, ensure_ascii: bool) -> str:
    if isinstance(value, Literal):
        return value
    if isinstance(value, ExactNumber):
        return value.text
    if isinstance(value, Mapping):
        items = [
            f"{json.dumps(str(key), ensure_ascii=ensure_ascii)}:{_encode(item, ensure_ascii=ensure_ascii)}"
            for key, item in value.items()
        ]
        return f"{{{','.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([_encode(item, ensure_ascii=ensure_ascii) for item in value])}]"
    return json.dumps(value, ensure_ascii=ensure_ascii)


def check_json(value: Any, where: str = "value", depth: int = 0) -> None:
    """Check that JSON can hold a value.

    :param where: its name in an error.
    :param depth: in how many lists and objects it is.
    :raises InvalidPayload: if not. It names the field (a custom field by its own name) and never a value.
    """
    if depth >= MAX_NESTING and isinstance(value, Mapping | list | tuple):
        raise InvalidPayload(where, f"its values nest deeper than {MAX_NESTING} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if type(item) not in _PLAIN:
                check_json(item, _name_of(key, value, where), depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _PLAIN:
                check_json(item, where, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value) and not isinstance(value, ExactNumber):
            raise InvalidPayload(where, "a number that is not finite cannot be sent as JSON")
    elif value is not None and not isinstance(value, str | int):
        raise InvalidPayload(where, f"a {type(value).__name__} cannot be sent as JSON")


def _name_of(key: object, fields: Mapping[str, Any], where: str) -> str:
    """Return the name of a field as users know it, also of custom fields; ``where`` if there is no name."""
    name = fields.get("FIELD_NAME") if key == "FIELD_VALUE" else key
    return name if isinstance(name, str) and _NAME.fullmatch(name) else where


def kind_of(value: object) -> str:
    """Return JSON's name of a value's type: ``null``, ``boolean``, ``number``, ``text``, ``list``, …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list | tuple) else "object"
