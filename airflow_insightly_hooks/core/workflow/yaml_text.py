"""Writes the YAML file of a workflow, from which an equal workflow can be read.

YAML that is shown to users has no values that may be secret: a URI's query, and the values of headers and of
a failure callback's arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import yaml
from pydantic import BaseModel

from airflow_insightly_hooks.core.dates import UNITS, iso_time
from airflow_insightly_hooks.core.templates import shown_uri
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import FailureCallback, UndeliveredAsset, Webhook
from airflow_insightly_hooks.core.workflow.yaml_file import RESOLVERS

__all__ = ["LONGEST_STORED", "MASK", "duration_text", "is_masked", "stored_yaml", "too_long", "workflow_yaml"]

MASK = "***"
"""What stands for a value that may be secret."""
LONGEST_STORED = 100_000
"""How many characters the YAML may have that Airflow stores with a task."""

SECONDS = ("settle", "lookback")

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]  # its base is chosen at run time
    """Quotes texts that a workflow file, or other YAML, would read as another type."""

    yaml_implicit_resolvers = {  # noqa: RUF012 — PyYAML's name
        first: [*RESOLVERS.get(first, ()), *_Base.yaml_implicit_resolvers.get(first, ())]
        for first in {*RESOLVERS, *_Base.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 — PyYAML's signature
        """Write a value again if it occurs a second time."""
        return True


def workflow_yaml(workflow: WorkflowDefinition, *, masked: bool = True) -> str:
    """Return the text of a file that holds the workflow, without values that are the default.

    :param masked: mask values that may be secret. Then the text may not make an equal workflow.
    """
    values = _values(workflow, masked=masked)
    if workflow.dag_id == workflow.slug:
        values.pop("dag_id", None)
    return str(
        yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, encoding=None)
    )


def stored_yaml(workflow: WorkflowDefinition) -> str:
    """Return the masked text of a workflow, which Airflow stores; if it is too long, a comment instead."""
    if _count(workflow.criteria) > LONGEST_STORED // 4:  # don't write a text that will be too long
        return too_long(LONGEST_STORED)
    text = workflow_yaml(workflow)
    return text if len(text) <= LONGEST_STORED else too_long(LONGEST_STORED)


def too_long(limit: int) -> str:
    """Return the comment that replaces a YAML text with more characters than the limit."""
    return f"# The YAML has more than {limit:,} characters.\n"


def is_masked(webhook: Webhook) -> bool:
    """Return whether a webhook was read from a masked text and lacks a part of its URI, or a header."""
    return MASK in (webhook.uri or "") or MASK in webhook.headers.values()


def _values(model: BaseModel, *, masked: bool) -> dict[str, Any]:
    """Return a model's values in a form that YAML can hold."""
    values = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if not field.is_required() and value == field.get_default(call_default_factory=False):
            continue
        if field.default_factory is not None and not value:
            continue
        if name in SECONDS and value.is_integer():
            value = int(value)
        values[name] = _plain(_masked(model, name, value) if masked else value, masked=masked)
    return values


def _masked(model: BaseModel, name: str, value: Any) -> Any:
    if isinstance(model, Webhook) and name == "uri":
        shown = shown_uri(value)  # for a template, this doesn't show that a query was left out
        return shown if shown == value or MASK in shown else f"{shown}?{MASK}"
    if (isinstance(model, Webhook) and name == "headers") or (
        isinstance(model, FailureCallback) and name == "arguments"
    ):
        return dict.fromkeys(value, MASK)
    return value


def _plain(value: Any, *, masked: bool) -> Any:
    if isinstance(value, UndeliveredAsset) and value.uri is None:
        return value.name
    if isinstance(value, FailureCallback) and not value.arguments:
        return value.callback
    if isinstance(value, BaseModel):
        return _values(value, masked=masked)
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, datetime):
        return iso_time(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, masked=masked) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, masked=masked) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)  # such as a date that Python code gives


def duration_text(duration: timedelta) -> str | float:
    """Return the text of a duration; if it has fractions of a second, its seconds."""
    for unit in reversed(UNITS):
        number, rest = divmod(duration, UNITS[unit])
        if not rest and (number or unit == "s"):
            return f"{number}{unit}"
    return duration.total_seconds()


def _count(value: Any) -> int:
    """Return how many values a value holds, including itself. It stops counting after ``LONGEST_STORED``."""
    count, pending = 0, [value]
    while pending and count <= LONGEST_STORED:
        value = pending.pop()
        count += 1
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return count
