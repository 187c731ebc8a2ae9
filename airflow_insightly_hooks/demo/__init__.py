"""The demo: a real Airflow and the sandbox show how a record change becomes a webhook.

``python -m airflow_insightly_hooks.demo`` runs it. ``airflow_stack`` runs an Airflow on this machine.

Private, except for the command.
"""
