"""Operator arguments whose contents Airflow must not show.

Airflow stores and shows what a template field was rendered to. Changes and payloads are customers'
personal data, so a ``RedactedField`` wraps what is assigned to it, and the wrapper shows a count and record
ids. It is a descriptor, not a change to rendering, since a mapped task is rendered by another way than an
ordinary one, and both end in an assignment. What is wrapped is not rendered again either: ``{{ … }}`` in a
record stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin  # XComArg and its kin: no public base

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.core.templates import is_template
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint

__all__ = [
    "Redacted",
    "RedactedField",
    "RedactedUri",
    "RedactedUriField",
    "check_uri",
    "unredacted",
]

IDS_SHOWN = 20


class Redacted:
    """A value of which only a count and record ids are shown."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow shows of it: how many there are, and the first ids by record type."""
        items = self.value if isinstance(self.value, Sequence) and not isinstance(self.value, str) else ()
        ids: dict[str, list[Any]] = {}
        for item in items[:IDS_SHOWN]:
            if isinstance(item, Mapping):
                ids.setdefault(str(item.get("record_type")), []).append(item.get("record_id"))
        return {"count": len(items), "first_record_ids": ids}

    def __repr__(self) -> str:
        return f"<{self.serialize()}>"


class RedactedField:
    """An operator's attribute that redacts what is assigned to it, unless it is still to be rendered."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_redacted_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        # What is assigned over a template is what that was rendered to.
        is_first = instance.__dict__.get(self._name) in (None, value)
        to_be_rendered = isinstance(value, ResolveMixin | Redacted) or (
            isinstance(value, str) and is_template(value) and is_first
        )
        instance.__dict__[self._name] = value if value is None or to_be_rendered else Redacted(value)


class RedactedUri:
    """A URI, or the template of one, that is shown without user information and query."""

    template_fields = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def serialize(self) -> str:
        """Return what Airflow shows of it: nothing of what can't be read as a URI, and might be a secret."""
        if is_template(self.value):
            return "***" if "@" in self.value else self.value
        try:
            return str(Endpoint.from_uri(self.value))
        except InvalidConnection:
            return "***"

    def __repr__(self) -> str:
        return f"<{self.serialize()}>"


class RedactedUriField(RedactedField):
    """An operator's attribute that holds a URI; templates in it are rendered all the same."""

    def __set__(self, instance: Any, value: Any) -> None:
        uri = unredacted(value)  # rendering changes the wrapper: each task gets its own
        instance.__dict__[self._name] = RedactedUri(uri) if isinstance(uri, str) else uri


def unredacted(value: Any) -> Any:
    """Return what was assigned to a redacted field."""
    return value.value if isinstance(value, Redacted | RedactedUri) else value


def check_uri(uri: object) -> None:
    """Refuse what can be seen to be no URI, and a template that holds a password in clear.

    Airflow logs a template that it can't render, so what is secret must come from inside of the braces.
    """
    if not isinstance(uri, str):
        return
    if not is_template(uri):
        Endpoint.from_uri(uri)
        return
    literal = re.search(r"://([^/]*)@", re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", uri))
    if literal and literal[1].strip(":"):
        raise InvalidConnection("uri", "URI", "user information in a template must be templates, too")
