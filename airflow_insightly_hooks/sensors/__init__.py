"""Sensors that detect record changes."""
