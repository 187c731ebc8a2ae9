"""Insightly's own webhooks, as the sandbox plays them. No module here is public; the setting is.

* ``webhook``: the setting ``webhook`` of ``PUT /_sandbox``
* ``entity_body``: the body that tells of a record
* ``sender``: the attempts of one webhook
* ``json_post``: one POST
* ``webhooks``: all webhooks of a sandbox, and which changes they tell of

Private.
"""
