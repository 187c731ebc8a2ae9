"""Airflow's own metadata database, read and written for the command line and the UI; never in a worker.

Private.
"""
