"""Insightly webhooks for Apache Airflow: record changes, criteria, payloads, delivery, whole workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_insightly_hooks.core.workflow.definition import Schedule, Webhook, Workflow, load_workflows

__all__ = ["Schedule", "Webhook", "Workflow", "__version__", "load_workflows"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the workflow model when it is first asked for: Airflow imports this package while it starts."""
    if name in __all__:
        from airflow_insightly_hooks.core.workflow import definition as workflow

        return getattr(workflow, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
