"""What a run covers and shares with other runs; sensors and operators both use it.

Public: ``received_changes``.
"""
