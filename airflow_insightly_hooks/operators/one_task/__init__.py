"""What ``InsightlyWorkflowOperator`` consists of: reading, delivering and scheduling, batch by batch.

Private.
"""
