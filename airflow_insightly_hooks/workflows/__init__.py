"""Workflows as Airflow's DAGs, made in Python or from a folder of YAML files.

Private: the package's root exports what is public.
"""
