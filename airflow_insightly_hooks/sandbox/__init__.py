"""A stand-in for Insightly's REST API v3.1 and a request bin, to try and test DAGs without an account.

``python -m airflow_insightly_hooks.sandbox --port 8765`` serves it;
:func:`airflow_insightly_hooks.sandbox.server.running_sandbox` runs it inside a test.

* ``server`` is public: ``running_sandbox``, and the ``RunningSandbox`` that it yields.
* ``app`` is the ASGI application.
* ``http`` holds its paths, pages and limits.
* ``webhooks`` holds Insightly's own webhooks, which announce changes.
* ``seed`` holds the records that a sandbox begins with.
* ``crm`` is the account: its records, searches, clock and history. Four modules in it are public.

``http`` may import the other three. ``webhooks`` and ``seed`` may import ``crm``. ``crm`` imports none of
them. This module imports nothing, so that importing the package stays fast.

Public: ``server``.
"""
