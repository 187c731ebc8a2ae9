"""Workflows as Airflow's DAGs, made in Python or from a folder of YAML files.

Private. The package's root exports the public names.
"""
