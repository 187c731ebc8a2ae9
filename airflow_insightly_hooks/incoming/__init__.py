"""The endpoint for Insightly's own webhooks: ``POST /insightly/hooks/{connection}`` in Airflow's API server.

A webhook is a wake-up call. It stores an event on the assets that DAGs are scheduled by
(``database.announcements``); each DAG reads what has changed from its own cursor. Private.
"""
