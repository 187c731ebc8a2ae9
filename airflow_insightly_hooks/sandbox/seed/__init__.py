"""The records at the start of a sandbox. No module here is public.

``seeded_records`` defines the records. ``record_maker`` gives them ids, times, owners and custom fields.
``sample_words`` holds the words in them.

Private.
"""
