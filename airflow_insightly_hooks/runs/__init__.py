"""The window that a run covers, and the state that it shares with other runs.

Both sensors and operators use this package.

Public: ``received_changes``.
"""
