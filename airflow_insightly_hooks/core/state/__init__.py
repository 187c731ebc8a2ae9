"""What outlasts a run, in Airflow's state stores.

Private.
"""
