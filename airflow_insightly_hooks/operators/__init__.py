"""Operators that evaluate, build and deliver."""
