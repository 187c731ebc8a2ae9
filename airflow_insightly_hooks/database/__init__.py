"""Read and write Airflow's own metadata database, for the command line and the UI; never in a worker.

Private.
"""
