"""What the pytest plugin's fixtures give to tests: a sandbox, connections that lead to it, runs of DAGs.

Public: ``connections``, ``dag_runs``, ``outcome``.
"""
