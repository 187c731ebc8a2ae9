"""State that is kept longer than a run, in Airflow's state stores.

Public: ``versions``.
"""
