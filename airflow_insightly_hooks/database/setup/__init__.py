"""Airflow's own setup, read from its database: components, connections and pools.

Private.
"""
