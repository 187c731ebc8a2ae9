"""The pages, each in its own module.

Private.
"""
