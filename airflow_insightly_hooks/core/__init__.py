"""The pure core: no Airflow, no HTTP, no clock of its own.

Public: ``criteria``, ``errors``, ``payload``, ``records``.
"""
