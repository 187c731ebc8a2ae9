"""The objects that the pytest plugin's fixtures return: connections to the sandbox, and runs of DAGs.

Public: ``connections``, ``dag_runs``, ``outcome``.
"""
