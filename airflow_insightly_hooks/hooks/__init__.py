"""Insightly's REST API and the webhook POST as Airflow hooks.

Public: ``incoming``, ``insightly``, ``webhook``.
"""
