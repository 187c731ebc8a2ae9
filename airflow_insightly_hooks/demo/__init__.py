"""The demo: a record change becomes a webhook, through a real Airflow (``python -m airflow_insightly_hooks.demo``)."""
