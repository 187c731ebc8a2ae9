"""What is wrong with connections, accounts, receivers and Airflow's settings, for command line and UI.

Private: ``diagnosis`` runs all checks, ``findings`` says what one returns, and a module for each subject
holds its checks.
"""
