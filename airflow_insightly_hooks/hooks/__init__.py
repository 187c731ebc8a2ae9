"""Airflow hooks for Insightly's REST API, for POSTs of webhooks, and for Insightly's own webhooks.

Public: ``incoming``, ``insightly``, ``webhook``.
"""
