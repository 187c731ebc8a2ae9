"""Insightly webhooks for Apache Airflow: record changes, criteria, payloads, delivery."""

__all__ = ["__version__"]

__version__ = "0.1.0"
