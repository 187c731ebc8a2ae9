"""Asking Insightly: the account, one GET, the limits that all hooks of a process share.

Public: ``api_errors``.
"""
