"""The command line: ``airflow insightly …``, and the same as ``python -m airflow_insightly_hooks …``.

Private: ``definitions`` declares the commands, and ``commands`` has a module for each with its function. A
function takes the parsed arguments and returns an exit code. What it shows comes from functions of the floors
below, which return data.
"""
