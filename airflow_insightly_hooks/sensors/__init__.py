"""Sensors that detect record changes.

Public: ``links``, ``record_change``.
"""
