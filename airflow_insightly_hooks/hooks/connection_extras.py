"""The values of a connection's extra fields, read as they are declared and checked one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.core.suggestions import did_you_mean
from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS, ConnectionField

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from airflow.sdk.types import Logger

__all__ = ["NOT_WRITABLE", "ConnectionExtras", "check_type", "connection_text", "is_writable"]

NOT_WRITABLE = "it holds half of a character (a lone surrogate), which can't be written in UTF-8"

OwnField = Literal["host", "login", "password", "schema"]


def connection_text(connection: Connection, name: OwnField) -> str:
    """Return one of a connection's own fields; an empty text where it has no value.

    :raises InvalidConnection: if it is no text, or one that can't be written in UTF-8.
    """
    value: object = getattr(connection, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidConnection(connection.conn_id, name, "a text is needed")
    if not is_writable(value):
        raise InvalidConnection(connection.conn_id, name, NOT_WRITABLE)
    return value


def check_type(connection: Connection, expected: str, log: Logger) -> None:
    """Warn of a connection of another type: its fields are read all the same, as those of this type.

    :raises InvalidConnection: if it is of another one of this package's types: an API key would be sent to a
        receiver, or a receiver's password to the API.
    """
    if connection.conn_type in CONNECTION_FIELDS and connection.conn_type != expected:
        raise InvalidConnection(
            connection.conn_id, "type", f"it is {connection.conn_type!r}, and {expected!r} is needed"
        )
    if connection.conn_type and connection.conn_type != expected:
        log.warning(
            "Connection %r is of type %r, and is used as one of type %r: is it the right one?",
            connection.conn_id,
            connection.conn_type,
            expected,
        )


def is_writable(text: str) -> bool:
    """Return whether a text can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class ConnectionExtras:
    """The extra fields of an Airflow connection.

    They come typed from JSON, and as text from a URI or a form; both mean the same. An empty text is a
    field left empty, and an empty field has the default that is declared for it.

    :param fields: the fields that the connection type has. The methods take the name of one of them.
    :raises InvalidConnection: if there is another one, or they are no JSON object. No message holds a value.
    """

    def __init__(self, connection: Connection, fields: tuple[ConnectionField, ...]) -> None:
        self._fields = {field.name: field for field in fields}
        self._conn_id = connection.conn_id
        try:
            given = json.loads(connection.extra) if connection.extra else {}
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise InvalidConnection(self._conn_id, "extra", "a JSON object is needed")
        self._given: dict[str, Any] = {k: v for k, v in given.items() if v is not None and v != ""}
        for name in self._given:
            if name not in self._fields:
                name = name.encode(errors="backslashreplace").decode()  # it goes into logs
                raise self.invalid(name, f"there is no such field{did_you_mean(name, self._fields)}")

    def _value(self, name: str) -> Any:
        return self._given.get(name, self._fields[name].default)

    def invalid(self, name: str, reason: str) -> InvalidConnection:
        """Return the error that says what is wrong with the field ``name``."""
        return InvalidConnection(self._conn_id, f"extra.{name}", reason)

    def text(self, name: str) -> str:
        """Return a field's text; an empty one without a value.

        :raises InvalidConnection: if it is no text, or holds what can't be written or named.
        """
        value = self._value(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.invalid(name, "a text is needed")
        return self._checked(name, value).strip()

    def _checked(self, name: str, text: str) -> str:
        if "\0" in text:
            raise self.invalid(name, "it holds the character NUL")
        if not is_writable(text):
            raise self.invalid(name, NOT_WRITABLE)
        return text

    def is_blank(self, name: str) -> bool:
        """Return whether a field is a text of white space alone, which is neither a value nor none."""
        value = self._given.get(name)
        return isinstance(value, str) and value != "" and not value.strip()

    def number(self, name: str) -> float:
        """Return a field's number.

        :raises InvalidConnection: if it is no number, beyond the field's bounds, or not whole.
        """
        value, field = self._value(name), self._fields[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        is_within = field.at_least <= number <= field.at_most  # false for what is not a number
        if not (is_within or (field.may_be_zero and number == 0)):
            raise self.invalid(name, f"{_wanted(field)} is needed")
        if field.kind == "integer" and not number.is_integer():
            raise self.invalid(name, f"{_wanted(field)} is needed")
        return number

    def whole_number(self, name: str) -> int:
        """Return a field's whole number.

        :raises InvalidConnection: if it is none, or beyond the field's bounds.
        """
        return int(self.number(name))

    def flag(self, name: str) -> bool:
        """Return whether a field is set.

        :raises InvalidConnection: if it is neither true nor false.
        """
        value = self._value(name)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.strip().lower(), value)
        if not isinstance(value, bool):
            raise self.invalid(name, "true or false is needed")
        return value

    def flag_or_text(self, name: str) -> bool | str:
        """Return whether a field is set, or its text where that is neither true nor false."""
        value = self._value(name)
        if isinstance(value, str) and value.strip().lower() not in ("true", "false"):
            return self._checked(name, value).strip()
        return self.flag(name)

    def texts(self, name: str) -> dict[str, str]:
        """Return a field that maps texts to texts, as an object or as its JSON text; none without a value.

        :raises InvalidConnection: if it is no such thing.
        """
        value = self._value(name)
        if value is None:
            return {}
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise self.invalid(name, "a JSON object of texts is needed")
        return dict(value)


def _wanted(field: ConnectionField) -> str:
    number = "a whole number" if field.kind == "integer" else "a number"
    zero = ", or 0 for no limit," if field.may_be_zero else ""
    return f"{number} from {field.at_least:.12g} to {field.at_most:.12g}{zero}"
