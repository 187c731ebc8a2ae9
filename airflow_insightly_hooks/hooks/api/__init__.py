"""Requests to Insightly's API: the account, one GET, and the limits that all hooks of a process share.

Public: ``api_errors``.
"""
