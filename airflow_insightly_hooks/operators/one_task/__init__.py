"""The parts of ``InsightlyWorkflowOperator``: it reads, delivers and schedules batch by batch.

Private.
"""
