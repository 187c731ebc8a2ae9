"""The records that a sandbox begins with. No module here is public.

``seeded_records`` says which records there are, ``record_maker`` gives them ids, times, owners and custom
fields, and ``sample_words`` holds the words that they are made of.

Private.
"""
