"""The pages, a module each.

Private.
"""
