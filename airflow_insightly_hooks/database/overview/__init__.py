"""The data of the overview: workflows, receivers, accounts, and what their tasks have counted.

Private.
"""
