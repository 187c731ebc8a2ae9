"""Operators that evaluate, build and deliver.

Public: ``criteria``, ``links``, ``payload``, ``pending``, ``retry``, ``webhook``, ``workflow``.
"""
