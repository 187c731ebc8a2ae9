"""Insightly's own webhooks, as the sandbox simulates them. The setting is public, but no module here is.

* ``webhook``: the setting ``webhook`` of ``PUT /_sandbox``
* ``entity_body``: the body for a record
* ``sender``: the attempts of one webhook
* ``json_post``: one POST
* ``webhooks``: all webhooks of a sandbox

Private.
"""
