"""Payloads, as the tasks that have made them have left them in XCom.

Private.
"""
