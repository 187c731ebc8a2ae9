"""The triggers in Airflow's triggerer: for deferred sensors, and for DAGs that run when records change.

Public: ``record_change``.
"""
