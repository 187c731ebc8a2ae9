"""Read the workflows, records and times that arguments name.

Private.
"""
