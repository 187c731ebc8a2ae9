"""What ``InsightlyWorkflowOperator`` consists of: its window, reading and delivering batch by batch.

Private.
"""
