"""The pure core: no Airflow, no HTTP, no clock of its own.

Public: ``criteria``, ``errors``, ``exact_json``, ``payload``, ``records``.
"""
