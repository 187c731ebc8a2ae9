"""The work of a deliver task: its POSTs, their threads, its ledger, what it ends with, its metrics.

Private.
"""
