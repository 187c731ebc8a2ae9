"""What Airflow's providers manager asks for: connection types with their forms, and where things are."""

from __future__ import annotations

from typing import Any

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
                "python-modules": [f"{package}.hooks.insightly", f"{package}.hooks.webhook"],
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
                    f"{package}.operators.webhook",
                    f"{package}.operators.workflow",
                ],
            }
        ],
        "extra-links": [
            f"{package}.sensors.links.InsightlyRecordsLink",
            f"{package}.operators.links.ReceiverLink",
        ],
        "connection-types": [_insightly(package), _insightly_webhook(package)],
    }


def _insightly(package: str) -> dict[str, Any]:
    return {
        "connection-type": "insightly",
        "hook-class-name": f"{package}.hooks.insightly.InsightlyHook",
        "hook-name": "Insightly",
        "ui-field-behaviour": {
            # The key goes into the password, since Airflow neither encrypts nor masks a login.
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
        "conn-fields": {
            "api_version": _field("API version", "string", "v3.1"),
            "timeout": _field("Time-out", "number", 30, "Seconds without data."),
            "requests_per_second": _field(
                "Requests a second", "number", 10, "For each process; Insightly allows 10."
            ),
            "requests_per_day": _field(
                "Requests a day",
                "number",
                0,
                "Ask no more once the account has made so many in a day; 0 for all that the plan allows.",
            ),
        },
    }


def _insightly_webhook(package: str) -> dict[str, Any]:
    return {
        "connection-type": "insightly_webhook",
        "hook-class-name": f"{package}.hooks.webhook.WebhookHook",
        "hook-name": "Insightly webhook receiver",
        "ui-field-behaviour": {
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
        "conn-fields": {
            "path": _field("Path", "string", None, "Added to the address; starts with /."),
            "headers": _field("Headers", "string", None, "A JSON object of further HTTP headers."),
            "timeout": _field("Time-out", "number", 30, "Seconds for a whole exchange."),
            "verify": _field(
                "Verify TLS", "string", "true", "true, false, or the path of a file of trusted CAs."
            ),
            "cert": _field(
                "Client certificate", "string", None, "A PEM file, or two with a comma: certificate,key."
            ),
            "trust_env": _field(
                "Trust the environment",
                "boolean",
                True,
                "Honour HTTPS_PROXY, REQUESTS_CA_BUNDLE and their like.",
            ),
            "allow_insecure_http": _field(
                "Allow insecure http", "boolean", False, "Send credentials over http, too."
            ),
            "allow_private_networks": _field(
                "Allow private networks",
                "boolean",
                True,
                "Send to addresses of private networks and of this machine, too.",
            ),
            "allow_redirects": _field(
                "Allow redirects", "boolean", False, "Follow 307 and 308 to the same scheme, host and port."
            ),
            "expect_body": _field(
                "Expected in the answer", "string", None, "A 2xx whose body lacks this text is a failure."
            ),
            "requests_per_second": _field(
                "Requests a second", "number", 0, "For each task; 0 sets no limit."
            ),
            "signing_secret": {
                "label": "Signing secret",
                "description": "whsec_… of Standard Webhooks; several are separated by spaces.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "max_body_bytes": _field(
                "Largest body", "number", 25_000_000, "Bytes; a larger one is not sent."
            ),
            "web_url": _field(
                "Page of the receiver",
                "string",
                None,
                "Where a person sees what arrived; linked from the task.",
            ),
        },
    }


def _field(label: str, kind: str, default: object, description: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [kind, "null"]}
    if default is not None:
        schema["default"] = default
    return {"label": label, "schema": schema, **({"description": description} if description else {})}
