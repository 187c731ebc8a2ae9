"""A workflow as a value: its parts and checks, YAML file, JSON Schema, backtest and preview.

Public: ``backtest``, ``preview``.
"""
