"""The error classes by topic. Everything imports them from ``core.errors``.

Private.
"""
