"""A workflow as a value: its parts and checks, its YAML file and JSON Schema, its backtest and preview.

Public: ``backtest``, ``preview``.
"""
