"""The endpoint that receives Insightly's own webhooks."""

from __future__ import annotations

from airflow_insightly_hooks.plugin.lazy_app import LazyApp

__all__ = ["ENDPOINT"]

ENDPOINT = {
    "app": LazyApp("airflow_insightly_hooks.incoming.app"),
    "url_prefix": "/insightly/hooks",
    "name": "Insightly webhooks to Airflow",
}
