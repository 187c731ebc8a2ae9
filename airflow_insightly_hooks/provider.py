"""The description of this provider for Airflow: connection types with their forms, and module names."""

from __future__ import annotations

from typing import Any

from airflow_insightly_hooks.hooks.connection_fields import CONNECTION_FIELDS, ConnectionField

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, in the shape of Airflow's ``provider_info.schema.json``."""
    integration = "Insightly"
    package = "airflow_insightly_hooks"
    return {
        "package-name": "airflow-insightly-hooks",
        "name": "Insightly hooks",
        "description": "Insightly webhooks: record changes, criteria, payloads, delivery.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://api.insightly.com/v3.1/Help",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": [
                    f"{package}.hooks.incoming",
                    f"{package}.hooks.insightly",
                    f"{package}.hooks.webhook",
                ],
            }
        ],
        "sensors": [
            {"integration-name": integration, "python-modules": [f"{package}.sensors.record_change"]}
        ],
        "triggers": [
            {"integration-name": integration, "python-modules": [f"{package}.triggers.record_change"]}
        ],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": [
                    f"{package}.operators.criteria",
                    f"{package}.operators.payload",
                    f"{package}.operators.pending",
                    f"{package}.operators.retry_queue",
                    f"{package}.operators.webhook",
                    f"{package}.operators.workflow",
                ],
            }
        ],
        "extra-links": [
            f"{package}.sensors.links.InsightlyRecordsLink",
            f"{package}.operators.links.DeliveriesLink",
            f"{package}.operators.links.ReceiverLink",
            f"{package}.operators.links.WorkflowRecordsLink",
        ],
        "cli": [f"{package}.cli.definition.get_cli_commands"],
        "connection-types": [
            _connection_type(
                "insightly",
                hook_class=f"{package}.hooks.insightly.InsightlyHook",
                hook_name="Insightly",
                behaviour={
                    # The API key is in the field password, since Airflow neither encrypts nor masks a login.
                    "hidden-fields": ["login", "extra"],
                    "relabeling": {
                        "password": "API key",
                        "host": "Pod or base URL",
                        "schema": "Scheme (host names only)",
                        "port": "Port (host names only)",
                    },
                    "placeholders": {
                        "password": "Insightly: User Settings > API",
                        "host": "na1",
                    },
                },
            ),
            _connection_type(
                "insightly_webhook",
                hook_class=f"{package}.hooks.webhook.WebhookHook",
                hook_name="Insightly webhook receiver",
                behaviour={
                    "hidden-fields": ["extra"],
                    "relabeling": {
                        "host": "URI or host name",
                        "login": "User name (Basic authentication)",
                        "password": "Password (Basic authentication)",
                        "schema": "Scheme (host names only)",
                        "port": "Port (host names only)",
                    },
                    "placeholders": {"host": "https://receiver.example.com/insightly", "schema": "https"},
                },
            ),
            _connection_type(
                "insightly_incoming",
                hook_class=f"{package}.hooks.incoming.InsightlyIncomingHook",
                hook_name="Insightly webhooks to Airflow",
                behaviour={
                    "hidden-fields": ["host", "schema", "port", "extra"],
                    "relabeling": {
                        "login": "User name (as in Insightly's webhook)",
                        "password": "Password (as in Insightly's webhook)",
                    },
                    "placeholders": {"login": "insightly"},
                },
            ),
        ],
    }


def _connection_type(
    name: str, *, hook_class: str, hook_name: str, behaviour: dict[str, Any]
) -> dict[str, Any]:
    """Return the description of a connection type.

    :param behaviour: how the form shows the fields that every connection has, such as host and password.
    """
    return {
        "connection-type": name,
        "hook-class-name": hook_class,
        "hook-name": hook_name,
        "ui-field-behaviour": behaviour,
        "conn-fields": {field.name: _form_field(field) for field in CONNECTION_FIELDS[name]},
    }


def _form_field(field: ConnectionField) -> dict[str, Any]:
    """Return a field in the form that Airflow's connection form needs. Every field may be left empty."""
    schema: dict[str, Any] = {"type": [field.kind, "null"]}
    if field.default is not None:
        schema["default"] = field.default
    if field.is_secret:
        schema["format"] = "password"
    form_field: dict[str, Any] = {"label": field.label, "schema": schema}
    if field.description:
        form_field["description"] = field.description
    return form_field
