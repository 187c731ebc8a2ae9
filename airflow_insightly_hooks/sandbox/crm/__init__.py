"""The account that the sandbox simulates: its records, searches, clock and history. It works without HTTP.

Public modules, for tests that search without HTTP (``docs/reference/sandbox.md`` shows how):

* ``record_store``: creates, changes, deletes and returns records
* ``search``: pages of records
* ``search_behaviour``: the order of records, the delay until they are visible, changes between pages
* ``clock``: the sandbox's time, and times as the API writes them

The other modules are details of these: ``record_table`` (the records of one type, indexed),
``change_history`` (what happened to the records), ``record_input`` (the check of a client's fields),
``derived_fields`` (fields that the CRM fills in), ``child_records`` (records below other records),
``custom_fields``, ``value_checks`` and ``error_answers``.

Public: ``clock``, ``record_store``, ``search``, ``search_behaviour``.
"""
