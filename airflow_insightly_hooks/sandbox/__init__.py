"""A stand-in for Insightly's REST API v3.1 and a request bin, to try and test DAGs without an account.

``python -m airflow_insightly_hooks.sandbox --port 8765`` serves it;
:func:`airflow_insightly_hooks.sandbox.server.running_sandbox` runs it inside a test.
Nothing is imported here, so that importing the package stays light.

Public: ``server``.
"""
