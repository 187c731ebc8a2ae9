"""What a deliver task decides: ids, ledger, order, limits, signatures and the report.

Private.
"""
