"""The decisions of a deliver task: ids, ledger, order, limits, signatures and the report.

Private.
"""
