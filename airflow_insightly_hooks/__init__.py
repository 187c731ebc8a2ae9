"""Insightly webhooks for Apache Airflow: record changes, criteria, payloads, delivery, whole workflows."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_insightly_hooks.version import __version__

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.workflow.parts import Schedule, Webhook
    from airflow_insightly_hooks.workflows.files import load_workflows
    from airflow_insightly_hooks.workflows.reading import load_workflow
    from airflow_insightly_hooks.workflows.workflow import Workflow

__all__ = ["Schedule", "Webhook", "Workflow", "__version__", "load_workflow", "load_workflows"]

_MODULES = {
    "Schedule": "core.workflow.parts",
    "Webhook": "core.workflow.parts",
    "Workflow": "workflows.workflow",
    "load_workflow": "workflows.reading",
    "load_workflows": "workflows.files",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: Airflow imports this package while it starts."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
