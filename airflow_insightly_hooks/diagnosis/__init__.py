"""Check connections, accounts, receivers and Airflow's settings, for the command line and the UI.

Private: ``diagnosis`` runs all checks, ``findings`` defines their results, and each subject has a module with
its checks.
"""
