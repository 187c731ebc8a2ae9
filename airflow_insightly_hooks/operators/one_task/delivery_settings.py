"""How each webhook of a workflow is delivered by a task that delivers all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset

from airflow_insightly_hooks.core.errors import InvalidConnection, InvalidWorkflow
from airflow_insightly_hooks.core.workflow.definition import WorkflowDefinition
from airflow_insightly_hooks.core.workflow.parts import UndeliveredAsset, Webhook
from airflow_insightly_hooks.hooks.assets import with_asset
from airflow_insightly_hooks.operators.common.redacted_arguments import check_uri
from airflow_insightly_hooks.operators.delivery.outcome import FAIL, REPORT

__all__ = [
    "RETRIES",
    "RETRY_DELAY",
    "DeliverySettings",
    "asset_of",
    "check_workflow",
    "mapped_arguments",
    "settings_of",
    "undelivered_assets",
    "with_arguments",
]

NO_PENDING_DAG = (
    "it has a time trigger, and a DAG of its own sends its messages when they are due: create both DAGs with "
    "to_dag (mode: one_task makes one task of the rest), or name that DAG (pending_dag_id)"
)


class _DefaultRetries(int):
    """A number that differs from an equal number that the user has given."""


RETRIES = _DefaultRetries(2)
"""The default of ``retries``. It is in the operator's signature, where Airflow looks for it."""
RETRY_DELAY = timedelta(seconds=60)
"""The default of ``retry_delay``, also in the operator's signature."""


@dataclass(frozen=True)
class DeliverySettings:
    """How one webhook is delivered: see ``Webhook``; the defaults are those of ``WebhookOperator``."""

    ordered: bool = False
    on_undelivered: str = FAIL
    undelivered_asset: Asset | None = None
    retries: int = int(RETRIES)
    retry_delay: timedelta = RETRY_DELAY
    give_up_after: int = 20


def with_arguments(workflow: WorkflowDefinition, **arguments: Any) -> WorkflowDefinition:
    """Return the workflow with an operator's arguments, which take precedence over its keys.

    :param arguments: by name; ``None``, and the defaults of ``retries`` and ``retry_delay``, change nothing.
    :raises ValueError: if ``undelivered_asset`` is given, and no webhook has ``on_undelivered="report"``.
    """
    given = {
        name: value
        for name, value in arguments.items()
        if value is not None and value is not RETRIES and value is not RETRY_DELAY
    }
    if isinstance(delay := given.get("retry_delay"), int | float):
        given["retry_delay"] = timedelta(seconds=delay)
    workflow = workflow.with_delivery(given)
    if "undelivered_asset" in given and not any(
        workflow.delivery_of(webhook).get("on_undelivered") == REPORT for webhook in workflow.webhooks
    ):
        raise ValueError(f"undelivered_asset needs on_undelivered='{REPORT}': failed tasks emit no events")
    return workflow


def settings_of(workflow: WorkflowDefinition) -> dict[str, DeliverySettings]:
    """Return the settings of the webhooks that are sent at once, by slug.

    :raises InvalidWorkflow: if Airflow refuses an asset's name.
    """
    return {
        webhook.slug: DeliverySettings(**_said(workflow, webhook))
        for webhook in workflow.webhooks
        if not webhook.is_timed
    }


def _said(workflow: WorkflowDefinition, webhook: Webhook) -> Mapping[str, Any]:
    said = workflow.delivery_of(webhook)
    if isinstance(asset := said.get("undelivered_asset"), UndeliveredAsset):
        said["undelivered_asset"] = asset_of(asset, workflow, webhook)
    return said


def asset_of(asset: UndeliveredAsset, workflow: WorkflowDefinition, webhook: Webhook) -> Asset:
    """Return the asset that a webhook, or its workflow, names.

    :raises InvalidWorkflow: if Airflow refuses it.
    """
    try:
        return Asset(**asset.model_dump(exclude_none=True))
    except ValueError as error:
        path = f"webhooks[{workflow.webhooks.index(webhook)}].undelivered_asset"
        raise InvalidWorkflow(((path, f"Airflow refuses it: {error}"),)) from None


def undelivered_assets(settings: Mapping[str, DeliverySettings]) -> list[Asset]:
    """Return the assets that get an event if messages stay undelivered, each once."""
    found: list[Asset] = []
    for one in settings.values():
        if one.undelivered_asset is not None and one.undelivered_asset not in found:
            found.append(one.undelivered_asset)
    return found


def mapped_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that mapped tasks share, and add those that Airflow needs before it maps them.

    These are ``retries``, ``retry_delay`` and ``outlets``.
    """
    workflow = arguments.get("workflow")
    if not isinstance(workflow, WorkflowDefinition):
        return dict(arguments)
    given = dict(arguments)
    said = {name: given.get(name) for name in ("on_undelivered", "undelivered_asset")}
    settings = settings_of(with_arguments(workflow, **said))
    for name in ("retries", "retry_delay"):
        if any(name in workflow.delivery_of(webhook) for webhook in workflow.webhooks) and settings:
            given.setdefault(name, max(getattr(one, name) for one in settings.values()))
    for asset in undelivered_assets(settings):
        given["outlets"] = with_asset(given.get("outlets"), asset)
    return given


def check_workflow(workflow: WorkflowDefinition, pending_dag_id: str | None) -> None:
    """Refuse a workflow that one task can't deliver.

    :param pending_dag_id: the DAG that sends webhooks with a time trigger; ``None`` if there is no such DAG.

    :raises InvalidWorkflow: with the place of each mistake.
    """
    if not isinstance(workflow, WorkflowDefinition):
        raise ValueError(f"workflow must be a Workflow, not {type(workflow).__name__}")
    problems: list[tuple[str, str]] = []
    for index, webhook in enumerate(workflow.webhooks):
        path = f"webhooks[{index}]"
        if webhook.is_timed and pending_dag_id is None:
            problems.append((path, NO_PENDING_DAG))
        try:
            check_uri(webhook.uri)
        except InvalidConnection as error:
            problems.append((path, str(error)))
    if problems:
        raise InvalidWorkflow(tuple(problems))
