"""The blocks of the keys of workflow files: name, type, default and meaning, from the JSON Schema."""

from __future__ import annotations

import inspect
import json
from functools import cache
from typing import Any

from pydantic import BaseModel

from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.json_schema import workflow_schema
from airflow_insightly_hooks.core.workflow.parts import FailureCallback, Schedule, UndeliveredAsset, Webhook
from blocks.markdown import described, table

MODELS: dict[str, type[BaseModel]] = {
    "Workflow": WorkflowDefinition,
    "Webhook": Webhook,
    "Schedule": Schedule,
    "UndeliveredAsset": UndeliveredAsset,
    "FailureCallback": FailureCallback,
}
NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
DURATION = "duration (`30m`, `2h`, `3d`)"
LINKS = {"Webhook": "[webhook](#the-keys-of-a-webhook)", "Schedule": "[schedule](#the-keys-of-schedule)"}


def block(model: str) -> str:
    """Return the keys of a model.

    :raises ValueError: if a key is not described.
    """
    definition = _schema()["$defs"][model]
    meanings = described(inspect.getdoc(MODELS[model])).arguments
    rows = []
    for name, facts in definition["properties"].items():
        if not (meaning := meanings.get(name)):
            raise ValueError(f"{model}: its docstring does not describe the key {name}")
        default = "required" if name in definition.get("required", ()) else _default(facts.get("default"))
        rows.append((f"`{name}`", _type(facts), default, meaning.replace("`None`", "`null`")))
    return table(("key", "type", "default", "meaning"), rows)


@cache
def _schema() -> dict[str, Any]:
    return workflow_schema()


def _default(value: Any) -> str:
    return "" if value in (None, [], {}, "") else f"`{json.dumps(value)}`"


def _type(facts: dict[str, Any]) -> str:
    if reference := facts.get("$ref", "").rpartition("/")[2]:
        return {"Criteria": "[criteria](criteria.md)", **LINKS}.get(reference, "mapping")
    if "enum" in facts and "anyOf" not in facts:
        return "one of " + ", ".join(f"`{value}`" for value in facts["enum"])
    if "const" in facts:
        return f"`{facts['const']}`"
    if "pattern" in facts and facts.get("examples") == ["30m", "2h", "3d"]:
        return DURATION
    if any("enum" in one and "type" not in one for one in facts.get("anyOf", ())):
        return "record type"
    if "anyOf" in facts:
        return " or ".join(dict.fromkeys(_type(one) for one in facts["anyOf"] if one.get("type") != "null"))
    if facts.get("type") == "array":
        return f"list: {_type(facts['items'])}"
    if facts.get("type") == "object":
        return "mapping"
    return NAMES[facts["type"]] + _bounds(facts)


def _bounds(facts: dict[str, Any]) -> str:
    low, high = facts.get("minimum"), facts.get("maximum")
    if high is not None and high < 1_000_000:
        return f", {low:,g} to {high:,g}"
    return f", {low:g} or more" if low is not None else ""
