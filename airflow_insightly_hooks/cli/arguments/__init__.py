"""What arguments name: workflows, records, times.

Private.
"""
