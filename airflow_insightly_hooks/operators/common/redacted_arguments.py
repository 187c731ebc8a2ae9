"""Operator arguments whose contents Airflow must not show.

Airflow stores and shows the rendered value of a template field. Changes and payloads are customers' personal
data. So a ``RedactedField`` wraps the value that is assigned to it, and the wrapper shows a count and record
ids. It is a descriptor and doesn't change how Airflow renders: mapped tasks and ordinary tasks are rendered
in different ways, but both end in an assignment. Airflow does not render a wrapped value again: ``{{ … }}``
in a record stays text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin  # base of XComArg; there is no public one
from jinja2 import TemplateSyntaxError

from airflow_insightly_hooks.core.errors import InvalidConnection
from airflow_insightly_hooks.core.templates import has_literal_user_information, is_template, shown_template
from airflow_insightly_hooks.hooks.post.endpoint import Endpoint
from airflow_insightly_hooks.operators.common.payload_chunks import is_reference

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
        """Return what Airflow shows: the number of items, and the ids of the first ones by record type."""
        if is_reference(self.value):
            return dict(self.value)
        items = self.value if isinstance(self.value, Sequence) and not isinstance(self.value, str) else ()
        ids: dict[str, list[Any]] = {}
        for item in items[:IDS_SHOWN]:
            if isinstance(item, Mapping):
                ids.setdefault(str(item.get("record_type")), []).append(item.get("record_id"))
        return {"count": len(items), "first_record_ids": ids}

    def __repr__(self) -> str:
        return f"<{self.serialize()}>"


class RedactedField:
    """An operator's attribute that redacts its value, unless that is a template not rendered yet."""

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
        # A value that replaces a template is the rendered value.
        is_first = instance.__dict__.get(self._name) in (None, value)
        instance.__dict__[self._name] = self.wrapped(value, may_be_template=is_first)

    def wrapped(self, value: Any, *, may_be_template: bool = True) -> Any:
        """Return the object to keep for a value that is assigned."""
        if value is None or isinstance(value, ResolveMixin | Redacted):
            return value
        if may_be_template and isinstance(value, str) and is_template(value):
            return value
        return Redacted(value)

    @staticmethod
    def in_partial(operator: type, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of an operator's ``.partial()``, with those of redacted fields wrapped.

        Airflow stores these arguments, and creates the operator from them later.
        """
        redacted = dict(arguments)
        for name, value in arguments.items():
            field = inspect.getattr_static(operator, name, None)
            if isinstance(field, RedactedField):
                redacted[name] = field.wrapped(value)
        return redacted


class RedactedUri:
    """A URI, or the template of one, that is shown without user information and query."""

    def __init__(self, value: str, render: Callable[[str, Any], Any] | None = None) -> None:
        self.value = value
        self._render = render

    def resolve(self, context: Any) -> str:
        """Return the URI. Airflow calls this method to render the template.

        If Airflow rendered the text itself, it would log the text when rendering fails.

        :raises InvalidConnection: if it is not a valid template. The error shows nothing of it.
        """
        if self._render is None:
            return self.value
        try:
            return str(self._render(self.value, context))
        except TemplateSyntaxError as error:  # its text quotes the template
            reason = f"it is not a valid template: {type(error).__name__} in line {error.lineno}"
            raise InvalidConnection("uri", "URI", reason) from None

    def serialize(self) -> str:
        """Return what Airflow shows: ``***`` if the value is not a URI, since it may be a secret."""
        if is_template(self.value):
            return shown_template(self.value)
        try:
            return str(Endpoint.from_uri(self.value))
        except InvalidConnection:
            return "***"

    def __repr__(self) -> str:
        return f"<{self.serialize()}>"


class RedactedUriField(RedactedField):
    """An operator's attribute that holds a URI. Templates in it are rendered as usual."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        held = super().__get__(instance, owner)
        return RedactedUri(held.value, instance.render_template) if isinstance(held, RedactedUri) else held

    def wrapped(
        self,
        value: Any,
        *,
        may_be_template: bool = True,  # noqa: ARG002 — a rendered value may hold braces, too
    ) -> Any:
        """Return the object to keep for a value that is assigned."""
        return RedactedUri(value) if isinstance(value, str) else value


def unredacted(value: Any) -> Any:
    """Return the value that was assigned to a redacted field."""
    return value.value if isinstance(value, Redacted | RedactedUri) else value


def check_uri(uri: object) -> None:
    """Refuse a text that is not a URI, and a template that holds user information as plain text.

    Airflow logs a template that it can't render, so a secret must come from an expression in braces.

    :raises InvalidConnection: if it refuses the URI.
    """
    if not isinstance(uri, str):
        return
    if not is_template(uri):
        Endpoint.from_uri(uri)
        return
    if has_literal_user_information(uri):
        raise InvalidConnection("uri", "URI", "user name and password must be templates in a template, too")
