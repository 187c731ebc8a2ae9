"""Read the values of a connection's extra fields, and check them against their declarations."""

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
    """Return one of a connection's own fields; an empty text if it has no value.

    :raises InvalidConnection: if it is not a text, or can't be written in UTF-8.
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
    """Warn if a connection has another type. Its fields are read as if it had the expected type.

    :raises InvalidConnection: if it has another type of this package. An API key would be sent to a receiver,
        or a receiver's password to the API.
    """
    if connection.conn_type in CONNECTION_FIELDS and connection.conn_type != expected:
        raise InvalidConnection(
            connection.conn_id, "type", f"it is {connection.conn_type!r}, and {expected!r} is needed"
        )
    if connection.conn_type and connection.conn_type != expected:
        log.warning(
            "Connection %r is of type %r, but is used as one of type %r. Check that it is the right one",
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

    Values have their types in JSON, and are texts in a URI or a form; both mean the same. An empty text means
    that the field is empty. An empty field has its declared default.

    :param fields: the fields of the connection type. The methods take the name of one of them.
    :raises InvalidConnection: if there is an unknown field, or if the extra is not a JSON object. No message
        holds a value.
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
                name = name.encode(errors="backslashreplace").decode()  # logs need valid UTF-8
                raise self.invalid(name, f"there is no such field{did_you_mean(name, self._fields)}")

    def _value(self, name: str) -> Any:
        return self._given.get(name, self._fields[name].default)

    def invalid(self, name: str, reason: str) -> InvalidConnection:
        """Return the error that says what is wrong with the field ``name``."""
        return InvalidConnection(self._conn_id, f"extra.{name}", reason)

    def text(self, name: str) -> str:
        """Return a field's text; an empty text if it has no value.

        :raises InvalidConnection: if it is not a text, holds NUL, or can't be written in UTF-8.
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
        """Return whether a field is a text of white space only, which is neither a value nor empty."""
        value = self._given.get(name)
        return isinstance(value, str) and value != "" and not value.strip()

    def number(self, name: str) -> float:
        """Return a field's number.

        :raises InvalidConnection: if it is not a number, is outside of the field's bounds, or is not whole
            although the field needs a whole number.
        """
        value, field = self._value(name), self._fields[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        is_within = field.at_least <= number <= field.at_most  # false for NaN
        if not (is_within or (field.may_be_zero and number == 0)):
            raise self.invalid(name, f"{_wanted(field)} is needed")
        if field.kind == "integer" and not number.is_integer():
            raise self.invalid(name, f"{_wanted(field)} is needed")
        return number

    def whole_number(self, name: str) -> int:
        """Return a field's whole number.

        :raises InvalidConnection: if it is not a whole number within the field's bounds.
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
        """Return whether a field is set; its text if the text is neither true nor false."""
        value = self._value(name)
        if isinstance(value, str) and value.strip().lower() not in ("true", "false"):
            return self._checked(name, value).strip()
        return self.flag(name)

    def texts(self, name: str) -> dict[str, str]:
        """Return a field that maps texts to texts. Its value may be an object, or JSON text.

        :return: the mapping; an empty one if the field has no value.
        :raises InvalidConnection: if the value is not a mapping of texts to texts.
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
