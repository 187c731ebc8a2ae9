"""The command line: ``airflow insightly …``, or ``python -m airflow_insightly_hooks …``.

Private: ``definitions`` declares the commands, and ``commands`` has a module with the function of each. A
function takes the parsed arguments and returns an exit code. Functions of the lower layers return the data
that it shows.
"""
