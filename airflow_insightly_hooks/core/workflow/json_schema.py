"""The JSON Schema of a workflow file, which editors use to complete and check the file.

``workflow.schema.json`` beside the package's modules is made from it by ``tools/workflow_schema.py``.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel

from airflow_insightly_hooks.core.criteria import OPERATORS
from airflow_insightly_hooks.core.records import RECORD_TYPES
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import FailureCallback, Schedule, UndeliveredAsset, Webhook

__all__ = ["workflow_schema"]

_PARAM = re.compile(r"^:param (\w+): (.*?)(?=^:|\Z)", re.MULTILINE | re.DOTALL)


def workflow_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a workflow file: one workflow, or a list of them."""
    schema = WorkflowDefinition.model_json_schema()
    definitions = {**schema.pop("$defs"), **_criteria_definitions()}
    for model, definition in (
        (WorkflowDefinition, schema),
        (Webhook, definitions["Webhook"]),
        (Schedule, definitions["Schedule"]),
        (UndeliveredAsset, definitions["UndeliveredAsset"]),
        (FailureCallback, definitions["FailureCallback"]),
    ):
        _describe(model, definition)
    definitions["Webhook"]["oneOf"] = [{"required": ["conn_id"]}, {"required": ["uri"]}]
    definitions["UndeliveredAsset"]["anyOf"] = [{"required": ["name"]}, {"required": ["uri"]}]
    for short in (
        definitions["Webhook"]["properties"]["undelivered_asset"],
        schema["properties"]["undelivered_asset"],
        schema["properties"]["on_failure"],
    ):
        short["anyOf"].insert(0, {"type": "string", "minLength": 1})
    schema["properties"]["criteria"] = {"$ref": "#/$defs/Criteria"}
    schema["properties"]["record_type"] |= {
        "anyOf": [{"enum": list(RECORD_TYPES)}, {"pattern": "^[A-Za-z][A-Za-z0-9_]*__c$"}]
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Insightly workflows for Airflow",
        "$ref": "#/$defs/File",
        "$defs": {
            **definitions,
            "Workflow": schema,
            "File": {
                "anyOf": [
                    {"$ref": "#/$defs/Workflow"},
                    {"type": "array", "items": {"$ref": "#/$defs/Workflow"}, "minItems": 1},
                ]
            },
        },
    }


def _describe(model: type[BaseModel], definition: dict[str, Any]) -> None:
    """Add the descriptions in the model's docstring to a definition and its properties."""
    summary, _, arguments = inspect.cleandoc(model.__doc__ or "").partition("\n\n")
    definition["description"] = summary
    for name, text in _PARAM.findall(arguments):
        properties = definition["properties"][name]
        properties.pop("title", None)
        properties["description"] = " ".join(text.replace("``", "").split())


def _criteria_definitions() -> dict[str, Any]:
    members = {"type": "array", "items": {"$ref": "#/$defs/Criteria"}, "minItems": 1}
    without_value = [name for name, operator in OPERATORS.items() if not operator.takes_value]
    condition = {
        "type": "object",
        "properties": {
            "field": {"type": "string", "minLength": 1},
            "operator": {"enum": list(OPERATORS)},
            "value": {},
            "case_sensitive": {"type": "boolean", "default": False},
        },
        "required": ["field", "operator"],
        "additionalProperties": False,
        "if": {"properties": {"operator": {"enum": without_value}}},
        "then": {"properties": {"value": False}},
        "else": {"required": ["value"]},
    }
    groups = [
        {"type": "object", "properties": {kind: members}, "required": [kind], "additionalProperties": False}
        for kind in ("all", "any", "none")
    ]
    numbered = {
        "type": "object",
        "properties": {
            "conditions": {"type": "array", "items": {"$ref": "#/$defs/Condition"}, "minItems": 1},
            "logic": {"type": "string", "examples": ["1 AND (2 OR NOT 3)"]},
        },
        "required": ["conditions"],
        "additionalProperties": False,
    }
    return {
        "Condition": condition,
        "Criteria": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Condition"}, *groups, numbered]},
    }
