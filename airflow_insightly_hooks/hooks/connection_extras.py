"""The values of a connection's extra fields, read as they are declared and checked one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.core.errors import InvalidConnection, did_you_mean
from airflow_insightly_hooks.hooks.connection_fields import ConnectionField

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["ConnectionExtras"]

LARGEST = 1e12
"""More than any field can mean: seconds, bytes, requests a second."""


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
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise InvalidConnection(self._conn_id, "extra", "a JSON object is needed")
        self._given: dict[str, Any] = {k: v for k, v in given.items() if v is not None and v != ""}
        for name in self._given:
            if name not in self._fields:
                raise self.invalid(name, f"there is no such field{did_you_mean(name, self._fields)}")

    def _value(self, name: str) -> Any:
        return self._given.get(name, self._fields[name].default)

    def invalid(self, name: str, reason: str) -> InvalidConnection:
        """Return the error that says what is wrong with the field ``name``."""
        return InvalidConnection(self._conn_id, f"extra.{name}", reason)

    def text(self, name: str) -> str:
        """Return a field's text; an empty one without a value.

        :raises InvalidConnection: if it is no text.
        """
        value = self._value(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.invalid(name, "a text is needed")
        return value.strip()

    def is_blank(self, name: str) -> bool:
        """Return whether a field is a text of white space alone, which is neither a value nor none."""
        value = self._given.get(name)
        return isinstance(value, str) and value != "" and not value.strip()

    def number(self, name: str) -> float:
        """Return a field's number.

        :raises InvalidConnection: if it is no number, less than the field's ``at_least``, or beyond all use.
        """
        value, at_least = self._value(name), self._fields[name].at_least
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not at_least <= number <= LARGEST:  # false for what is not a number
            raise self.invalid(name, f"a number from {at_least:g} on is needed")
        return number

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
            return value.strip()
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
            except ValueError:
                value = None
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise self.invalid(name, "a JSON object of texts is needed")
        return dict(value)
