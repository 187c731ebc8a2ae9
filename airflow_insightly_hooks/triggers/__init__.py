"""What the triggerer runs: a deferred sensor's trigger, and the watcher that wakes DAGs.

Public: ``record_change``.
"""
